//! Failures of the store.

use std::{
    io,
    path::{Path, PathBuf},
};

use netverdict_flowlog::{
    columns::BatchError,
    file::{FileError, is_disk_full},
    path::PathError,
};
use thiserror::Error;

use crate::wal::WalError;

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("{} is in use by another collector: stop that one, or give this one another state directory", path.display())]
    InUse { path: PathBuf },
    #[error("disk is full at {}: free space or lower the cap on disk use", path.display())]
    DiskFull { path: PathBuf, source: io::Error },
    #[error("{} could not be read or written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "commit record {} is {found}, expected one that this release wrote: restore it, or move it away to go on with rows of the last minute perhaps twice",
        path.display()
    )]
    Commit { path: PathBuf, found: String },
    #[error("a file of the segment could not be written")]
    File(#[from] FileError),
    #[error("rows could not be made columns")]
    Batch(#[from] BatchError),
    #[error("the journal of rows failed")]
    Journal(#[source] WalError),
    #[error("no file can be named after this cluster, node and boot")]
    Path(#[from] PathError),
}

impl StoreError {
    /// Whether more space would help.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::File(error) => error.is_disk_full(),
            Self::Journal(error) => error.is_disk_full(),
            Self::InUse { .. } | Self::Io { .. } | Self::Commit { .. } | Self::Batch(_) | Self::Path(_) => false,
        }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match is_disk_full(&source) {
            true => Self::DiskFull { path, source },
            false => Self::Io { path, source },
        }
    }
}
