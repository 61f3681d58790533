//! What functions that are never inlined need, because the verifier reads register 0 at the end of each: one that returns
//! nothing may leave an address of the stack in it, by the compiler's whim, and is refused. So they return [`Done`], out of
//! a register that the compiler knows nothing of, and callers take note of it. Zeroing is here for the same reason:
//! `memset` is such a function, and a loop over bytes besides.

use core::arch::asm;

/// Nothing, in a register.
#[must_use = "call `noted`, or the compiler drops the value again"]
pub struct Done(u64);

#[inline(always)]
pub fn done() -> Done {
    let nothing;
    // SAFETY: sets a register.
    unsafe { asm!("{nothing} = 0", nothing = out(reg) nothing) };
    Done(nothing)
}

impl Done {
    #[inline(always)]
    pub fn noted(self) {
        // SAFETY: moves a register onto itself.
        unsafe { asm!("{nothing} = {nothing}", nothing = inout(reg) self.0 => _) };
    }
}

/// Zeroes `value`.
///
/// # Safety
/// Zeroes are a value of `T`.
#[inline(always)]
pub unsafe fn zero<T>(value: &mut T) {
    const { assert!(align_of::<T>() >= 4 && size_of::<T>().is_multiple_of(4)) };
    let address = core::ptr::from_mut(value);
    // SAFETY: inside `value` and aligned, both as asserted. Volatile, or the compiler makes it a `memset` again.
    unsafe {
        if align_of::<T>() == 8 {
            for word in 0..size_of::<T>() / 8 {
                address.cast::<u64>().add(word).write_volatile(0);
            }
        } else {
            for word in 0..size_of::<T>() / 4 {
                address.cast::<u32>().add(word).write_volatile(0);
            }
        }
    }
}
