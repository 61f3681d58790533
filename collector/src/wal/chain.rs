//! A value that changes a little at a time, in a log: once as a whole, then differences, until they outgrow it and it is
//! written as a whole again.
//!
//! It knows neither the value nor the content of a difference, only the layout that its owner writes them in: frames of
//! another layout count as damaged. A whole always begins a file, so that damage before it does not reach it, and the
//! files before it can be released.

use std::{path::Path, time::Duration};

use super::{Frame, FsyncPolicy, Log, Recovered, WalError, WalPosition};

/// Differences of a small value may come to this much.
const SMALL: u64 = 256 << 10;

#[derive(Debug)]
pub(crate) struct Chain {
    log: Log,
    /// First byte of every payload.
    layout: u8,
    /// Bytes of the last whole and of the differences after it; `None` until this process has written one.
    written: Option<(u64, u64)>,
    /// File that the last whole begins.
    begins: u64,
}

/// Contents of a log, oldest first.
pub(crate) type Links = Box<dyn Iterator<Item = Result<Frame, WalError>>>;

impl Chain {
    /// Opens or creates the log in `dir`, with all its contents. The caller has the lock on the state directory.
    pub(crate) fn open(dir: &Path, layout: u8) -> Result<(Self, Links, Recovered), WalError> {
        // Frames that must be durable are synced one by one.
        let (log, recovered) = Log::open(dir, FsyncPolicy::Interval(Duration::MAX), None)?;
        let links = log.replay(None).map(move |frame| frame.map(|frame| link(frame, layout)));
        Ok((Self { log, layout, written: None, begins: 0 }, Box::new(links), recovered))
    }

    /// Whether the value is to be written as a whole now.
    pub(crate) fn wants_whole(&self) -> bool {
        self.written.is_none_or(|(whole, differences)| differences > whole.max(SMALL))
    }

    /// Whether there is a whole that a difference could follow.
    pub(crate) fn has_whole(&self) -> bool {
        self.written.is_some()
    }

    /// Writes the value as a whole, durably. On an error nothing of it is in the log.
    pub(crate) fn whole(&mut self, payload: &[u8]) -> Result<WalPosition, WalError> {
        self.log.next_file()?;
        let position = self.log.append_durably(&[&[self.layout], payload])?;
        self.written = Some((payload.len() as u64, 0));
        self.begins = position.segment;
        Ok(position)
    }

    /// Writes a difference, durably. On an error nothing of it is in the log.
    pub(crate) fn difference(&mut self, payload: &[u8]) -> Result<WalPosition, WalError> {
        let position = self.log.append_durably(&[&[self.layout], payload])?;
        Ok(self.follows(position, payload))
    }

    /// Writes a note that a loss of power may take: durable with the next difference.
    pub(crate) fn note(&mut self, payload: &[u8]) -> Result<WalPosition, WalError> {
        let position = self.log.append(&[&[self.layout], payload])?;
        Ok(self.follows(position, payload))
    }

    fn follows(&mut self, position: WalPosition, payload: &[u8]) -> WalPosition {
        if let Some((_, differences)) = &mut self.written {
            *differences += payload.len() as u64;
        }
        position
    }

    /// Removes the files before the last whole.
    pub(crate) fn release_before_whole(&mut self) -> Result<(), WalError> {
        self.log.release(WalPosition { segment: self.begins, offset: 0 })
    }

    /// Removes files that hold nothing after `through`.
    pub(crate) fn release(&mut self, through: WalPosition) -> Result<(), WalError> {
        self.log.release(through)
    }
}

fn link(frame: Frame, layout: u8) -> Frame {
    match frame {
        Frame::Payload(position, mut payload) if payload.first() == Some(&layout) => {
            payload.remove(0);
            Frame::Payload(position, payload)
        }
        Frame::Payload(position, payload) => Frame::Damaged(position, payload.len() as u64),
        damaged @ Frame::Damaged(..) => damaged,
    }
}

#[cfg(test)]
impl Chain {
    /// The next write fails as on a full disk.
    pub(crate) fn fill_disk(&mut self) {
        self.log.fill_disk();
    }
}
