//! The write-ahead log: raw batches of ring events, kept until their rows are in Parquet files.
//!
//! What was appended survives a crash of the process at once, and a loss of power as [`FsyncPolicy`] says. It neither
//! decodes events nor knows which of them became rows: [`crate::store`] remembers how far the files reach.

mod chain;
mod log;

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub(crate) use chain::Chain;
pub(crate) use log::{Frame, Frames, Log};
pub use log::{FsyncPolicy, MAX_RECORD_BYTES, Recovered, WalPosition};

#[derive(Debug, Error)]
pub enum WalError {
    /// Nothing of the record was kept: keep the ring's position and try again.
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

/// One drained batch as the kernel wrote it, and what is needed to date its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalRecord<'a> {
    /// Number of the ring that it came from.
    pub lane: u8,
    /// When it was read: nanoseconds since 1970, UTC.
    pub ingest_time_ns: i64,
    /// To add to an event's time since boot to get nanoseconds since 1970, UTC.
    pub clock_offset_ns: i64,
    pub bytes: Cow<'a, [u8]>,
}

/// One thing that replay comes upon, in the order in which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    Record(WalPosition, WalRecord<'static>),
    /// So many bytes of a file cannot be read; what they held is lost and belongs into `gaps` as `unreadable`.
    Damaged(WalPosition, u64),
}

/// What is in the log after the committed position.
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
            Frame::Payload(position, payload) => match decode(&payload) {
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

    /// Appends a batch. On an error nothing of it is in the log.
    pub fn append(&mut self, record: &WalRecord<'_>) -> Result<WalPosition, WalError> {
        let WalRecord { lane, ingest_time_ns, clock_offset_ns, bytes } = record;
        self.log.append(&[&[KIND, *lane], &ingest_time_ns.to_le_bytes(), &clock_offset_ns.to_le_bytes(), bytes])
    }

    /// Makes everything appended so far durable, whatever the policy: before a stop, and when the rings are idle.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.log.sync()
    }

    /// Removes files that hold nothing after `through`. What cannot be removed is tried again next time.
    pub fn release(&mut self, through: WalPosition) -> Result<(), WalError> {
        self.log.release(through)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }
}

/// First byte of a record: its layout.
const KIND: u8 = 1;

fn decode(payload: &[u8]) -> Option<WalRecord<'static>> {
    let (&[kind, lane], rest) = payload.split_first_chunk()?;
    let (ingest, rest) = rest.split_first_chunk()?;
    let (offset, bytes) = rest.split_first_chunk()?;
    (kind == KIND).then(|| WalRecord {
        lane,
        ingest_time_ns: i64::from_le_bytes(*ingest),
        clock_offset_ns: i64::from_le_bytes(*offset),
        bytes: Cow::Owned(bytes.to_vec()),
    })
}

#[cfg(test)]
mod tests;
