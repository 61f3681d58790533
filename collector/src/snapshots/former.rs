//! Snapshots as they were kept before there was a log of them: a file each, `<number>.json`, and once it was in force
//! `<number>-<revision>.json`. They are read until their events are, and never written.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use netverdict_service::error_chain::chain;

use crate::{
    meaning::SnapshotState,
    state::{self, StateError},
};

/// The files, by number.
#[derive(Debug, Default)]
pub(super) struct Former(BTreeMap<u64, Vec<PathBuf>>);

impl Former {
    /// Reads the states of such files in `folder`. An unreadable file is reported, and left out.
    pub(super) fn read(folder: &Path) -> Result<(Self, BTreeMap<u64, SnapshotState>), StateError> {
        let mut former = Self::default();
        let mut states: BTreeMap<u64, SnapshotState> = BTreeMap::new();
        let listed = fs::read_dir(folder).map_err(|source| state::failed(folder, "read", source))?;
        let mut named: Vec<_> = listed.flatten().filter_map(|entry| named(entry.path())).collect();
        named.sort_unstable();
        for (number, revision, path) in named {
            match state::load::<SnapshotState>(&path) {
                Ok(Some(mut found)) if found.number == number => {
                    found.revision = revision;
                    let before = states.last_key_value().map(|(_, before)| before);
                    let found = before.map_or_else(|| found.clone(), |before| found.sharing_with(before));
                    states.insert(number, found);
                }
                Ok(_) => tracing::error!(file = %path.display(), "kept snapshot is not what its name says"),
                Err(error) => tracing::error!(error = %chain(&error), "kept snapshot cannot be read"),
            }
            former.0.entry(number).or_default().push(path);
        }
        Ok((former, states))
    }

    /// Removes files up to this number. A failed removal is tried again the next time.
    pub(super) fn forget_through(&mut self, number: u64) -> Result<(), StateError> {
        let mut failed = None;
        for (_, paths) in self.0.range_mut(..=number) {
            paths.retain(|path| match state::remove(path) {
                Ok(()) => false,
                Err(error) => {
                    failed.get_or_insert(error);
                    true
                }
            });
        }
        self.0.retain(|_, paths| !paths.is_empty());
        failed.map_or(Ok(()), Err)
    }
}

fn named(path: PathBuf) -> Option<(u64, u64, PathBuf)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let (number, revision) = name.split_once('-').unwrap_or((name, "0"));
    Some((number.parse().ok()?, revision.parse().ok()?, path))
}
