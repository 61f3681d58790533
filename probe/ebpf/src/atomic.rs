//! Read-modify-write on map values that several CPUs touch. `core` offers none for this target (`atomic_cas` is false).

use core::arch::asm;

/// Adds without reading back.
///
/// # Safety
/// `cell` points to an aligned `u64` inside a map value.
#[inline(always)]
pub unsafe fn add(cell: *mut u64, amount: u64) {
    // SAFETY: the caller vouches for `cell`; the instruction touches nothing else.
    unsafe { asm!("lock *(u64 *)({cell} + 0) += {amount}", cell = in(reg) cell, amount = in(reg) amount) }
}

/// What was read before is read before what comes after, also on machines that would do otherwise. (The instruction set has no
/// barrier of its own; an exchange is one.)
#[inline(always)]
pub fn fence() {
    let mut cell = 0_u64;
    // SAFETY: the cell is this function's.
    unsafe { exchange(&raw mut cell, 0) };
}

/// Stores `value` and returns what was there: of several CPUs that store the same, exactly one sees the old value.
///
/// # Safety
/// `cell` points to an aligned `u64` inside a map value.
#[inline(always)]
pub unsafe fn exchange(cell: *mut u64, value: u64) -> u64 {
    let mut previous = value;
    // SAFETY: as above.
    unsafe { asm!("{value} = xchg_64({cell} + 0, {value})", cell = in(reg) cell, value = inout(reg) previous) }
    previous
}
