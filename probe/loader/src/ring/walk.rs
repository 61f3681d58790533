//! Walks the records in a ring's memory, and validates every number that it reads there.

use std::{io, os::fd::BorrowedFd};

use crate::mapping::Mapping;

/// Bytes of a record's header.
const HEAD: u64 = 8;
/// [`HEAD`] as an offset.
const HEAD_OFFSET: usize = 8;
/// `BPF_RINGBUF_BUSY_BIT`: the program is still writing the record.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: the program discarded the record.
const DISCARD: u32 = 1 << 30;

/// A mapped ring, and the position of the walk.
pub(super) struct Walk {
    /// The consumer's page.
    consumer: Mapping,
    /// The producer's page, then the data twice.
    producer: Mapping,
    /// Size of the data in bytes, a power of two.
    size: u64,
    /// Position of the next record. Never behind the consumer position.
    next: u64,
}

/// The next record of a ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The program discarded it.
    Skip { next: u64 },
    /// It is finished. `at` is an argument for [`Walk::copy`].
    Record { at: usize, length: usize, next: u64 },
    /// The data is not a valid record.
    Broken,
}

impl Walk {
    /// Maps a ring whose data has `size` bytes, a power of two.
    pub(super) fn new(map: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        let page = Mapping::page_size();
        let data = usize::try_from(size).map_err(io::Error::other)?;
        let consumer = Mapping::new(map, 0, page, true)?;
        let producer = Mapping::new(map, page as u64, page + 2 * data, false)?;
        let next = position(&consumer);
        Ok(Self { consumer, producer, size: size.into(), next })
    }

    /// The producer position: every record that begins before it is reserved.
    pub(super) fn end(&self) -> u64 {
        position(&self.producer)
    }

    /// The position of the walk.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Continues at `next`.
    pub(super) fn go_to(&mut self, next: u64) {
        self.next = next;
    }

    /// Sets the consumer position to the position of the walk: the kernel may reuse everything before it.
    pub(super) fn commit(&mut self) {
        // Always succeeds: the mapping is writable and one page long.
        self.consumer.store_u64(0, self.next);
    }

    /// Bytes between the consumer and the producer position, and the size of the ring.
    pub(super) fn fill(&self) -> (u64, u64) {
        (self.end().wrapping_sub(position(&self.consumer)).min(self.size), self.size)
    }

    /// The next record before `end`, a producer position; `None` if there is none or it is not finished.
    pub(super) fn step(&self, end: u64) -> Option<Step> {
        let available = end.wrapping_sub(self.next);
        if available == 0 {
            return None;
        }
        // Positions count bytes since the ring was created; their difference cannot exceed its size.
        if available > self.size || available < HEAD || !self.next.is_multiple_of(HEAD) {
            return Some(Step::Broken);
        }
        let offset = self.next & (self.size - 1);
        // At most page + size, which fitted into a usize when they were mapped.
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
        Some(Step::Record { at: at + HEAD_OFFSET, length: usize::try_from(length).ok()?, next })
    }

    /// Appends the content of a record to `to`; `false`, without appending, if it does not lie in the ring.
    pub(super) fn copy(&self, at: usize, length: usize, to: &mut Vec<u8>) -> bool {
        self.producer.copy(at, length, to)
    }
}

/// The position at the start of a page.
fn position(page: &Mapping) -> u64 {
    // Always succeeds: every mapping is at least one page.
    page.load_u64(0).unwrap_or_default()
}

#[cfg(test)]
mod tests;
