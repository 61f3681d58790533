//! Reads a ring in batches: copies records out, and moves the consumer position once, after the batch is safe.
//!
//! The kernel lays a ring out as a page with the consumer's position, a page with the producer's, and the data, which
//! is mapped twice in a row so that no record is ever broken at the end. A record is a head of eight bytes (length,
//! two flag bits, and a page offset that is the kernel's own) and its bytes, padded to eight.
//!
//! The reader does not know what a record means. What it cannot walk it skips whole, says so, and leaves to the
//! sequence numbers in the records to account for.

pub(crate) mod batch;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    path::Path,
    time::Duration,
};

use aya::maps::{MapData, MapType};
use netverdict_abi::{Lane, map::name};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

pub use self::batch::Batch;
use crate::{error::ProbeError, mapping::Mapping, maps};

/// Bytes in front of each record.
const HEAD: u64 = 8;
/// The kernel is still writing the record.
const BUSY: u32 = 1 << 31;
/// The program gave the record up.
const DISCARD: u32 = 1 << 30;

/// The one reader of one ring.
pub struct RingReader {
    lane: Lane,
    map: MapData,
    consumer: Mapping,
    /// The producer's page, then the data twice.
    producer: Mapping,
    /// Size of the data in bytes, a power of two.
    size: u64,
    /// Start of the first record that no batch holds yet. Never behind the consumer position.
    next: u64,
    /// While it lives, [`crate::Probe::rings`] refuses another pair of readers.
    _lease: Arc<()>,
}

impl RingReader {
    pub(crate) fn open(lane: Lane, folder: &Path, lease: Arc<()>) -> Result<Self, ProbeError> {
        let name = ring_name(lane);
        let map = maps::open(folder, name)?;
        let info = map.info().map_err(|error| maps::failed(name, "inspect", error))?;
        let layout = |found: String| ProbeError::MapLayout {
            name,
            expected: "a ring whose size is a power of two".to_owned(),
            found,
        };
        let kind = info.map_type().map_err(|error| maps::failed(name, "inspect", error))?;
        if kind != MapType::RingBuf {
            return Err(layout(format!("a map of type {kind:?}")));
        }
        let size = info.max_entries();
        if !size.is_power_of_two() {
            return Err(layout(format!("{size} bytes")));
        }
        let unmapped = |source| ProbeError::Ring { name, source };
        let page = Mapping::page_size();
        let data = usize::try_from(size).map_err(|error| unmapped(io::Error::other(error)))?;
        let fd = map.fd().as_fd();
        let consumer = Mapping::new(fd, 0, page, true).map_err(unmapped)?;
        let producer = Mapping::new(fd, page as u64, page + 2 * data, false).map_err(unmapped)?;
        let next = position(&consumer);
        Ok(Self { lane, map, consumer, producer, size: u64::from(size), next, _lease: lease })
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
        let end = position(&self.producer);
        while let Some(step) = self.step(end) {
            match step {
                Step::Skip { next } => self.next = next,
                Step::Record { at, length, next } => {
                    if batch.records > 0 && batch.bytes.len() + batch::PREFIX + length > max_bytes {
                        break;
                    }
                    if !batch.push_with(length, |bytes| self.producer.copy(at, length, bytes)) {
                        self.give_up(end);
                        break;
                    }
                    self.next = next;
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
        // Writable and one page long: it cannot fail.
        self.consumer.store_u64(0, self.next);
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
        (position(&self.producer).wrapping_sub(position(&self.consumer)).min(self.size), self.size)
    }

    /// Whether a finished record, or one that can be skipped, is next.
    fn has_more(&self) -> bool {
        self.step(position(&self.producer)).is_some()
    }

    /// Looks at the record at `next`, `end` being the producer's position.
    fn step(&self, end: u64) -> Option<Step> {
        let available = end.wrapping_sub(self.next);
        if available == 0 {
            return None;
        }
        // Positions count bytes since the ring was made; a difference beyond its size is no position of this ring.
        if available > self.size || available < HEAD || !self.next.is_multiple_of(HEAD) {
            return Some(Step::Broken);
        }
        let offset = self.next & (self.size - 1);
        // At most page + size: both fitted into a usize when they were mapped.
        let at = usize::try_from(offset).ok()? + Mapping::page_size();
        let Some(head) = self.producer.load_u32(at) else { return Some(Step::Broken) };
        if head & BUSY != 0 {
            return None;
        }
        let length = head & !(BUSY | DISCARD);
        let taken = (HEAD + u64::from(length)).next_multiple_of(HEAD);
        if taken > available {
            return Some(Step::Broken);
        }
        let next = self.next.wrapping_add(taken);
        if head & DISCARD != 0 {
            return Some(Step::Skip { next });
        }
        Some(Step::Record { at: at + HEAD as usize, length: usize::try_from(length).ok()?, next })
    }

    /// Skips everything up to `end`: what is there cannot be walked.
    fn give_up(&mut self, end: u64) {
        tracing::error!(
            ring.name = ring_name(self.lane),
            ring.position = self.next,
            ring.producer = end,
            "ring cannot be walked, skipping what it holds"
        );
        self.next = end;
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

/// What is next in a ring.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Skip {
        next: u64,
    },
    /// `at` counts from the start of the producer's mapping.
    Record {
        at: usize,
        length: usize,
        next: u64,
    },
    Broken,
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

/// The position at the start of a page.
fn position(page: &Mapping) -> u64 {
    // Every mapping is at least a page: it cannot fail.
    page.load_u64(0).unwrap_or_default()
}
