//! The commit record: the last segment that is whole, and how far its sources are in it. Renaming it into place is the
//! only moment in which a segment comes to count.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use netverdict_flowlog::{file::sync_folder, manifest::Link};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use crate::wal::WalPosition;

const NAME: &str = "commit.json";
const UNFINISHED: &str = "commit.json.tmp";
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    pub(super) version: u32,
    pub(super) segment: u64,
    pub(super) wal: Option<WalPosition>,
    pub(super) journal: Option<WalPosition>,
    /// The caller's; opaque here.
    pub(super) checkpoint: Option<String>,
    /// Manifest of the newest segment that has one: the next manifest's predecessor.
    #[serde(default)]
    pub(super) manifest: Option<Link>,
}

impl Default for Commit {
    fn default() -> Self {
        Self { version: VERSION, segment: 0, wal: None, journal: None, checkpoint: None, manifest: None }
    }
}

/// How safe a record is that is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Durable,
    /// Its folder could not be synced: a loss of power may bring the older one back, whose sources must still be there.
    InPlace,
}

impl Commit {
    /// `None`: there is none, the store is new. A returned commit is durable: sources may be released by it.
    pub(super) fn load(state_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = state_dir.join(NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::io(&path, source)),
        };
        let damaged = |found: String, path: PathBuf| StoreError::Commit { path, found };
        match serde_json::from_slice::<Self>(&text) {
            Ok(commit) if commit.version == VERSION => {
                sync_folder(state_dir).map_err(|source| StoreError::io(state_dir, source))?;
                Ok(Some(commit))
            }
            Ok(commit) => Err(damaged(format!("of version {}", commit.version), path)),
            Err(error) => Err(damaged(format!("not readable ({error})"), path)),
        }
    }

    /// On an error the record before is still in force. `renamed` is asked right before the point of no return.
    pub(super) fn save(
        &self,
        state_dir: &Path,
        renaming: &dyn Fn(&Path) -> Result<(), StoreError>,
    ) -> Result<Saved, StoreError> {
        let temporary = state_dir.join(UNFINISHED);
        let io = |source| StoreError::io(&temporary, source);
        let text = serde_json::to_vec(self).map_err(|error| io(error.into()))?;
        let mut file = File::create(&temporary).map_err(io)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
        renaming(&temporary)?;
        fs::rename(&temporary, state_dir.join(NAME)).map_err(io)?;
        Ok(if sync_folder(state_dir).is_ok() { Saved::Durable } else { Saved::InPlace })
    }
}
