//! Memory shared with the kernel: the pages of a map.

#![expect(unsafe_code, reason = "memory that the kernel writes can only be reached through raw pointers")]

use std::{
    io,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Mapped pages of a map, unmapped when dropped. Reads past the end return `None`.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
    writable: bool,
}

// SAFETY: the pages belong to the process, not to a thread. They are read and written with atomic operations, or copied
// after an acquire load which shows that the kernel has finished writing them.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes from `offset` (a multiple of the page size).
    pub(crate) fn new(map: BorrowedFd<'_>, offset: u64, length: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address that the kernel chooses does not overlap memory that Rust uses.
        let start = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, map, offset)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { start, length, writable })
    }

    /// Size of a page in bytes.
    pub(crate) fn page_size() -> usize {
        rustix::param::page_size()
    }

    /// Reads a number that the kernel stores with release ordering; `None` outside the mapping.
    pub(crate) fn load_u64(&self, offset: usize) -> Option<u64> {
        let at = self.aligned::<AtomicU64>(offset)?;
        // SAFETY: `aligned` checked bounds and alignment; an atomic load tolerates a concurrent writer.
        Some(unsafe { at.as_ref() }.load(Ordering::Acquire))
    }

    /// Reads the header of a record, which the kernel writes with a fully ordered exchange; `None` outside the mapping.
    pub(crate) fn load_u32(&self, offset: usize) -> Option<u32> {
        let at = self.aligned::<AtomicU32>(offset)?;
        // SAFETY: as in `load_u64`.
        Some(unsafe { at.as_ref() }.load(Ordering::Acquire))
    }

    /// Stores a number with release ordering; `false` if it lies outside the mapping or the mapping is read-only.
    pub(crate) fn store_u64(&self, offset: usize, value: u64) -> bool {
        match self.aligned::<AtomicU64>(offset) {
            Some(at) if self.writable => {
                // SAFETY: `aligned` checked bounds and alignment, and the pages were mapped writable.
                unsafe { at.as_ref() }.store(value, Ordering::Release);
                true
            }
            _ => false,
        }
    }

    /// Appends `length` bytes to `to`; `false` if they lie outside the mapping. The kernel must have finished writing
    /// them: their record's header was read with [`Self::load_u32`] and is not marked busy.
    pub(crate) fn copy(&self, offset: usize, length: usize, to: &mut Vec<u8>) -> bool {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => {
                to.reserve(length);
                // SAFETY: the source lies inside the mapping, the destination inside the reserved capacity, and they cannot
                // overlap. The kernel does not write to a finished record until the consumer position has passed it.
                unsafe {
                    ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), to.as_mut_ptr().add(to.len()), length);
                    to.set_len(to.len() + length);
                }
                true
            }
            _ => false,
        }
    }

    fn aligned<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let fits = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.length);
        // SAFETY: `offset` lies inside the mapping.
        (fits && offset.is_multiple_of(align_of::<T>())).then(|| unsafe { self.start.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference outlives `self`. It fails only for an address without a
        // mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
