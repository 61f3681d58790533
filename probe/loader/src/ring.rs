//! Reads a BPF ring buffer in batches: copies records out, and moves the consumer position once, after the caller has
//! made the batch durable.
//!
//! A ring buffer (`kernel/bpf/ringbuf.c`, since Linux 5.8) consists of a page with the consumer position, a page with
//! the producer position, and the data. The data is mapped twice in a row, so that a record which wraps around is
//! contiguous. A record is a header of eight bytes (length with two flag bits, and a page offset that only the kernel
//! uses) and its content, padded to eight bytes.
//!
//! The reader does not interpret records. Data that is not a valid sequence of records is skipped and logged; the
//! sequence numbers in the records then show the loss.

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
    /// While it exists, [`crate::Probe::rings`] refuses to open another pair of readers.
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

    /// Copies finished records in order, as many as fit into `max_bytes`, but at least one. Continues where the last
    /// call ended. The kernel does not reuse the space before [`Self::commit`].
    ///
    /// `None` if no record is finished.
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

    /// Returns the space of all drained records to the kernel.
    pub fn commit(&mut self) {
        self.walk.commit();
    }

    /// Waits for a finished record that was not drained yet, or for the timeout; `true` if there is one. Call
    /// [`Self::commit`] first: the kernel wakes only a reader whose consumer position is at the record that was just
    /// finished.
    ///
    /// # Errors
    /// `poll(2)` failed for a reason other than a signal.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        // A store-buffering (Dekker) pattern. This side stores the consumer position, then reads record headers. The
        // kernel side, `bpf_ringbuf_commit` in `kernel/bpf/ringbuf.c` (since Linux 5.8), writes the header with `xchg`,
        // a full barrier (`Documentation/atomic_t.txt`), then reads the consumer position to decide on a wake-up. With
        // a full barrier here too, either this side sees the record, or the kernel sees the position and wakes the
        // reader.
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

    /// Bytes that are not committed yet, and the size of the ring in bytes.
    pub fn fill(&self) -> (u64, u64) {
        self.walk.fill()
    }

    /// Whether the next record is finished or discarded.
    fn has_more(&self) -> bool {
        self.walk.step(self.walk.end()).is_some()
    }

    /// Skips everything up to `end`, because it is not a valid sequence of records.
    fn give_up(&mut self, end: u64) {
        tracing::error!(
            ring.name = ring_name(self.lane),
            ring.position = self.walk.next(),
            ring.producer = end,
            "ring holds invalid data, skipping it"
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

/// Used bytes and size of a ring.
pub(crate) struct Fill {
    pub(crate) used: u64,
    pub(crate) size: u64,
}

/// Reads the positions of a ring without consuming from it.
pub(crate) fn fill(lane: Lane, folder: &Path) -> Result<Fill, ProbeError> {
    let (used, size) = RingReader::open(lane, folder, Arc::new(()))?.fill();
    Ok(Fill { used, size })
}
