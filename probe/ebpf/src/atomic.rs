//! Atomic read-modify-write on map values that several CPUs share. `core` has no such operations for this target
//! (`atomic_cas` is false), so the BPF instructions are written out.

use core::arch::asm;

/// Adds without reading back.
///
/// # Safety
/// `cell` must point to an aligned `u64` inside a map value.
#[inline(always)]
pub unsafe fn add(cell: *mut u64, amount: u64) {
    // SAFETY: the caller vouches for `cell`; the instruction touches nothing else.
    unsafe { asm!("lock *(u64 *)({cell} + 0) += {amount}", cell = in(reg) cell, amount = in(reg) amount) }
}

/// A full memory barrier: no read or write moves across it, also on weakly ordered machines. BPF has no barrier
/// instruction, but its `xchg` (since Linux 5.12) is `atomic64_xchg` (`kernel/bpf/core.c`, `___bpf_prog_run`), which is
/// fully ordered (`Documentation/atomic_t.txt`, *ORDERING*).
#[inline(always)]
pub fn fence() {
    let mut cell = 0_u64;
    // SAFETY: the cell is this function's own.
    unsafe { exchange(&raw mut cell, 0) };
}

/// Stores `value` and returns the old one. Of several CPUs that store the same value, exactly one gets the old one back.
///
/// # Safety
/// `cell` must point to an aligned `u64` inside a map value, or on the stack.
#[inline(always)]
pub unsafe fn exchange(cell: *mut u64, value: u64) -> u64 {
    let mut previous = value;
    // SAFETY: the caller vouches for `cell`.
    unsafe { asm!("{value} = xchg_64({cell} + 0, {value})", cell = in(reg) cell, value = inout(reg) previous) }
    previous
}
