//! Reads a ring in batches: copies records out, and moves the consumer position once, after the batch is safe.
//!
//! The kernel lays a ring out as a page with the consumer's position, a page with the producer's, and the data, which
//! is mapped twice in a row so that no record is ever broken at the end. A record is a head of eight bytes (length,
//! two flag bits, and a page offset that is the kernel's own) and its bytes, padded to eight.
//!
//! The reader does not know what a record means. What it cannot walk it skips whole, says so, and leaves to the
//! sequence numbers in the records to account for.

pub(crate) mod batch;
mod walk;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::Path,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use aya::maps::{MapData, MapType};
use netverdict_abi::{Lane, map::name};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

pub use self::batch::Batch;
use self::walk::{Step, Walk};
use crate::{error::ProbeError, maps::pinned};

/// The one reader of one ring.
pub struct RingReader {
    lane: Lane,
    map: MapData,
    walk: Walk,
    /// While it lives, [`crate::Probe::rings`] refuses another pair of readers.
    _lease: Arc<()>,
}

impl RingReader {
    pub(crate) fn open(lane: Lane, folder: &Path, lease: Arc<()>) -> Result<Self, ProbeError> {
        let name = ring_name(lane);
        let map = pinned::open(folder, name)?;
        let info = map.info().map_err(|error| pinned::failed(name, "inspect", error))?;
        let layout = |found: String| ProbeError::MapLayout {
            name,
            expected: "a ring whose size is a power of two".to_owned(),
            found,
        };
        let kind = info.map_type().map_err(|error| pinned::failed(name, "inspect", error))?;
        if kind != MapType::RingBuf {
            return Err(layout(format!("a map of type {kind:?}")));
        }
        let size = info.max_entries();
        if !size.is_power_of_two() {
            return Err(layout(format!("{size} bytes")));
        }
        let walk = Walk::new(map.fd().as_fd(), size).map_err(|source| ProbeError::Ring { name, source })?;
        Ok(Self { lane, map, walk, _lease: lease })
    }

    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Copies records, in order, until `max_bytes` would be passed (but at least one) or none is finished. Goes on
    /// where the last call ended; the kernel gets no room back before [`Self::commit`].
    ///
    /// `None`: nothing finished to read.
    pub fn drain(&mut self, max_bytes: usize) -> Option<Batch> {
        let mut batch = Batch { lane: self.lane, bytes: Vec::new(), records: 0 };
        let end = self.walk.end();
        while let Some(step) = self.walk.step(end) {
            match step {
                Step::Skip { next } => self.walk.go_to(next),
                Step::Record { at, length, next } => {
                    if batch.records > 0 && batch.bytes.len() + batch::PREFIX + length > max_bytes {
                        break;
                    }
                    if !batch.push_with(length, |bytes| self.walk.copy(at, length, bytes)) {
                        self.give_up(end);
                        break;
                    }
                    self.walk.go_to(next);
                }
                Step::Broken => {
                    self.give_up(end);
                    break;
                }
            }
        }
        (batch.records > 0).then_some(batch)
    }

    /// Gives the room of everything drained so far back to the kernel.
    pub fn commit(&mut self) {
        self.walk.commit();
    }

    /// Waits until there is something that no batch holds, or until the timeout. Commit first: the kernel wakes only
    /// a reader that has caught up. `true` if there is something.
    ///
    /// # Errors
    /// `poll(2)` failed for another reason than a signal.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        // Pairs with the kernel's barrier between finishing a record and reading the consumer position: either this
        // sees the record, or the kernel sees the position and wakes.
        fence(Ordering::SeqCst);
        if self.has_more() {
            return Ok(true);
        }
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(self.map.fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(self.has_more()),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes that the kernel may not write to yet, and the size of the ring.
    pub fn fill(&self) -> (u64, u64) {
        self.walk.fill()
    }

    /// Whether a finished record, or one that can be skipped, is next.
    fn has_more(&self) -> bool {
        self.walk.step(self.walk.end()).is_some()
    }

    /// Skips everything up to `end`: what is there cannot be walked.
    fn give_up(&mut self, end: u64) {
        tracing::error!(
            ring.name = ring_name(self.lane),
            ring.position = self.walk.next(),
            ring.producer = end,
            "ring cannot be walked, skipping what it holds"
        );
        self.walk.go_to(end);
    }
}

impl AsFd for RingReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

impl AsRawFd for RingReader {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Name of a lane's ring.
pub(crate) const fn ring_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Denied => name::RING_DENIED,
        Lane::Flow => name::RING_FLOW,
    }
}

/// How full a ring is, in bytes.
pub(crate) struct Fill {
    pub(crate) used: u64,
    pub(crate) size: u64,
}

/// Looks at a ring without reading from it.
pub(crate) fn fill(lane: Lane, folder: &Path) -> Result<Fill, ProbeError> {
    let (used, size) = RingReader::open(lane, folder, Arc::new(()))?.fill();
    Ok(Fill { used, size })
}
