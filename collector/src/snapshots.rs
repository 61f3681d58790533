//! Snapshots on disk, for as long as an event that one of them judged may still have to be read: in a ring, or in the
//! write-ahead log after a crash.
//!
//! `snapshots/<number>.json`, and once it is in force `<number>-<revision>.json`. Written before it is published.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use netverdict_policy::{Compiler, tables::IdFloor};

use crate::{
    cause::chain,
    input::Meanings,
    meaning::SnapshotState,
    state::{self, StateError},
};

const FOLDER: &str = "snapshots";
const NUMBER_FILE: &str = "snapshot-number.json";

#[derive(Clone, Debug)]
pub struct Snapshots {
    state_dir: PathBuf,
}

impl Snapshots {
    /// # Errors
    /// The folder cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, StateError> {
        state::make_folder(&state_dir.join(FOLDER))?;
        Ok(Self { state_dir: state_dir.into() })
    }

    /// The next snapshot's number: one that was never used, over restarts and boots.
    ///
    /// # Errors
    /// It cannot be remembered that the number is used now.
    pub fn next_number(&self) -> Result<u64, StateError> {
        let path = self.state_dir.join(NUMBER_FILE);
        let next = state::load::<u64>(&path)?.unwrap_or(0) + 1;
        state::save(&path, &next)?;
        Ok(next)
    }

    /// Keeps a snapshot that is about to be published.
    ///
    /// # Errors
    /// It cannot be written: after a crash its events would lose their labels.
    pub fn keep(&self, state: &SnapshotState) -> Result<(), StateError> {
        state::save(&self.path(state.number, 0), state)
    }

    /// It came into force.
    ///
    /// # Errors
    /// It cannot be renamed. After a restart of the collector the probe knows the revision; after a reboot nobody does.
    pub fn published(&self, number: u64, revision: u64) -> Result<(), StateError> {
        let (from, to) = (self.path(number, 0), self.path(number, revision));
        fs::rename(&from, &to).map_err(|source| state::failed(&from, "renamed", source))
    }

    /// Removes a snapshot, published or not.
    ///
    /// # Errors
    /// The folder cannot be read or the file not removed.
    pub fn forget(&self, numbers: &[u64]) -> Result<(), StateError> {
        for (path, number, _) in self.files()? {
            if numbers.contains(&number) {
                state::remove(&path)?;
            }
        }
        Ok(())
    }

    /// All that are kept, the oldest first. `revisions`: (revision, number) as the probe knows them of this boot, for
    /// those whose name does not say yet. What cannot be read is told, and left out: its events lose their labels.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(&self, boot_id: &str, revisions: &[(u64, u64)]) -> Result<Vec<Arc<SnapshotState>>, StateError> {
        let mut states = Vec::new();
        for (path, number, revision) in self.files()? {
            let mut found = match state::load::<SnapshotState>(&path) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "kept snapshot cannot be read");
                    continue;
                }
            };
            let told = revisions.iter().find(|(_, known)| *known == number && found.boot_id == boot_id);
            found.revision = if revision == 0 { told.map_or(0, |(revision, _)| *revision) } else { revision };
            if found.revision == 0 {
                // It never came into force: nothing was judged by it.
                state::remove(&path)?;
                continue;
            }
            states.push(Arc::new(found));
        }
        states.sort_by_key(|state| state.number);
        Ok(states)
    }

    fn path(&self, number: u64, revision: u64) -> PathBuf {
        let name = if revision == 0 { format!("{number}.json") } else { format!("{number}-{revision}.json") };
        self.state_dir.join(FOLDER).join(name)
    }

    fn files(&self) -> Result<Vec<(PathBuf, u64, u64)>, StateError> {
        let folder = self.state_dir.join(FOLDER);
        let listed = fs::read_dir(&folder).map_err(|source| state::failed(&folder, "read", source))?;
        let named = listed.flatten().filter_map(|entry| {
            let path = entry.path();
            let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
            let (number, revision) = name.split_once('-').unwrap_or((name, "0"));
            let (number, revision) = (number.parse().ok()?, revision.parse().ok()?);
            Some((path, number, revision))
        });
        Ok(named.collect())
    }
}

/// What a snapshot's ids mean, found out anew: attribution ids are made of what they stand for, owners are kept with
/// the snapshot. For events of an earlier boot, of which the probe remembers nothing.
pub fn recompile(state: &SnapshotState, node: &str) -> Meanings {
    let change = Compiler::new(node, IdFloor::default()).compile(&state.snapshot);
    Meanings {
        attributions: change.attributions,
        owners: state.owners.iter().map(|(id, owner)| (*id, owner.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(number: u64) -> SnapshotState {
        SnapshotState {
            number,
            boot_id: "b".into(),
            revision: 0,
            seen_ns: 0,
            snapshot: Arc::default(),
            addresses: Arc::default(),
            blocks: Arc::default(),
            owners: Arc::default(),
        }
    }

    #[test]
    fn snapshots_come_back_with_the_revision_they_became() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(folder.path()).unwrap();
        for number in [1, 2, 3] {
            assert_eq!(snapshots.next_number().unwrap(), number);
            snapshots.keep(&state(number)).unwrap();
        }
        snapshots.published(1, 10).unwrap();
        // 2 was published, and the collector died before it knew; 3 was not.
        let revisions =
            |states: Vec<Arc<SnapshotState>>| states.iter().map(|s| (s.number, s.revision)).collect::<Vec<_>>();
        assert_eq!(revisions(snapshots.load("b", &[(11, 2)]).unwrap()), [(1, 10), (2, 11)]);
        snapshots.forget(&[1]).unwrap();
        assert_eq!(revisions(snapshots.load("b", &[(11, 2)]).unwrap()), [(2, 11)]);
        assert_eq!(Snapshots::open(folder.path()).unwrap().next_number().unwrap(), 4);
    }
}
