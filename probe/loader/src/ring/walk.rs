//! Walks a ring's memory. Knows its layout, not where it comes from; believes nothing that it reads there.

use std::{io, os::fd::BorrowedFd};

use crate::mapping::Mapping;

/// Bytes in front of each record.
const HEAD: u64 = 8;
/// [`HEAD`] as an offset.
const HEAD_OFFSET: usize = 8;
/// The kernel is still writing the record.
const BUSY: u32 = 1 << 31;
/// The program gave the record up.
const DISCARD: u32 = 1 << 30;

/// A ring's pages, and how far they were walked.
pub(super) struct Walk {
    /// The consumer's page.
    consumer: Mapping,
    /// The producer's page, then the data twice.
    producer: Mapping,
    /// Size of the data in bytes, a power of two.
    size: u64,
    /// Start of the next record to look at. Never behind the consumer position.
    next: u64,
}

/// What is next in a ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A record that its program gave up.
    Skip { next: u64 },
    /// A finished record; `at` is for [`Walk::copy`].
    Record { at: usize, length: usize, next: u64 },
    /// Nothing that can be walked.
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

    /// The producer's position: no record that begins before it is still to be reserved.
    pub(super) fn end(&self) -> u64 {
        position(&self.producer)
    }

    /// Where the walk has come to.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Goes on at `next`.
    pub(super) fn go_to(&mut self, next: u64) {
        self.next = next;
    }

    /// Gives the room of everything walked so far back to the kernel.
    pub(super) fn commit(&mut self) {
        // Writable and one page long: it cannot fail.
        self.consumer.store_u64(0, self.next);
    }

    /// Bytes that the kernel may not write to yet, and the size of the ring.
    pub(super) fn fill(&self) -> (u64, u64) {
        (self.end().wrapping_sub(position(&self.consumer)).min(self.size), self.size)
    }

    /// Looks at what is next, `end` being the producer's position; `None` if that is not finished or not there.
    pub(super) fn step(&self, end: u64) -> Option<Step> {
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
        Some(Step::Record { at: at + HEAD_OFFSET, length: usize::try_from(length).ok()?, next })
    }

    /// Appends a record's bytes; `false`, and nothing is appended, if they do not lie in the ring.
    pub(super) fn copy(&self, at: usize, length: usize, to: &mut Vec<u8>) -> bool {
        self.producer.copy(at, length, to)
    }
}

/// The position at the start of a page.
fn position(page: &Mapping) -> u64 {
    // Every mapping is at least a page: it cannot fail.
    page.load_u64(0).unwrap_or_default()
}

#[cfg(test)]
mod tests;
