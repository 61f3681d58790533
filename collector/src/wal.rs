//! The write-ahead log: data of the rings and of other systems, kept until its rows are in Parquet files.
//!
//! An appended record survives a crash of the process at once, and a loss of power as [`FsyncPolicy`] says. The log
//! neither decodes events nor knows which of them became rows: [`crate::store`] remembers how far the files reach.

mod chain;
mod log;
mod record;

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub(crate) use chain::Chain;
pub(crate) use log::{Frame, Frames, Log};
pub use log::{FsyncPolicy, MAX_RECORD_BYTES, Recovered, WalPosition};
use record::Encoded;
pub use record::LogRecord;

#[derive(Debug, Error)]
pub enum WalError {
    /// Nothing of the record was kept: keep its source and try again.
    #[error("disk is full while writing {}: free space or lower the cap on disk use", path.display())]
    DiskFull { path: PathBuf, source: io::Error },
    #[error("{} could not be read or written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("record has {found} bytes, expected at most {MAX_RECORD_BYTES}: drain the ring in smaller batches")]
    TooLarge { found: usize },
}

impl WalError {
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}

/// One item of a replay, in the order in which it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Replayed {
    Record(WalPosition, LogRecord),
    /// So many bytes of a file cannot be read; their records are lost and belong into `gaps` as `unreadable`.
    Damaged(WalPosition, u64),
}

/// Records of the log after the committed position.
#[derive(Debug)]
pub struct Replay {
    recovered: Recovered,
    frames: Frames,
}

impl Replay {
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }
}

impl Iterator for Replay {
    type Item = Result<Replayed, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.frames.next()?.map(|frame| match frame {
            Frame::Payload(position, payload) => match LogRecord::decode(&payload) {
                Some(record) => Replayed::Record(position, record),
                None => Replayed::Damaged(position, payload.len() as u64),
            },
            Frame::Damaged(position, bytes) => Replayed::Damaged(position, bytes),
        }))
    }
}

/// The log, open for appending. One process at a time: the store's lock on the state directory sees to it.
#[derive(Debug)]
pub struct Wal {
    log: Log,
}

impl Wal {
    /// Opens or creates the log in `dir`. `committed` is how far the files reach ([`crate::store::Committed::wal`]); the
    /// replay is of everything after it, and must be through before rows of new records are stored.
    pub fn open(dir: &Path, policy: FsyncPolicy, committed: Option<WalPosition>) -> Result<(Self, Replay), WalError> {
        let (mut log, recovered) = Log::open(dir, policy, committed)?;
        let frames = log.replay(committed);
        if let Some(committed) = committed {
            // A crash may have come between the commit and the release.
            log.release(committed)?;
        }
        Ok((Self { log }, Replay { recovered, frames }))
    }

    /// Appends a record. On an error nothing of it is in the log.
    pub fn append(&mut self, record: &LogRecord) -> Result<WalPosition, WalError> {
        let Encoded { head, bytes } = record.encode();
        self.log.append(&[&head, bytes])
    }

    /// The same, and makes everything appended so far durable under every policy: for data that its sender forgets once it
    /// has its acknowledgement.
    pub fn append_durably(&mut self, record: &LogRecord) -> Result<WalPosition, WalError> {
        let Encoded { head, bytes } = record.encode();
        self.log.append_durably(&[&head, bytes])
    }

    /// Makes everything appended so far durable under every policy: before a stop, and when the rings are idle.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.log.sync()
    }

    /// Removes files that hold nothing after `through`. A failed removal is tried again next time.
    pub fn release(&mut self, through: WalPosition) -> Result<(), WalError> {
        self.log.release(through)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }
}

#[cfg(test)]
mod tests;
