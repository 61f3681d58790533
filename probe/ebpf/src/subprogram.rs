//! Functions that are not inlined, and how they pass the verifier.
//!
//! The verifier reads register 0 at the end of every BPF function. A function without a result may leave a stack
//! address there, depending on the compiler, and is then refused. Such functions return a [`ScalarReturn`] instead: a
//! zero in a register that the compiler cannot see through, and that the caller consumes. Zeroing memory is here for a
//! similar reason: the compiler turns it into a call of `memset`, which is such a function, and which loops over bytes.

use core::arch::asm;

/// A scalar return value for the verifier. It carries no information.
#[must_use = "call `consume`, or the compiler removes the value again"]
pub struct ScalarReturn(u64);

#[inline(always)]
pub fn scalar_return() -> ScalarReturn {
    let zero;
    // SAFETY: sets a register.
    unsafe { asm!("{zero} = 0", zero = out(reg) zero) };
    ScalarReturn(zero)
}

impl ScalarReturn {
    /// Uses the value, so that the compiler keeps it.
    #[inline(always)]
    pub fn consume(self) {
        // SAFETY: moves a register onto itself.
        unsafe { asm!("{value} = {value}", value = inout(reg) self.0 => _) };
    }
}

/// Zeroes `value`.
///
/// # Safety
/// All-zero bytes must be a valid `T`.
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

/// Copies `from`. A plain assignment becomes a call of `memmove`, which loops over bytes.
#[inline(always)]
pub fn copy<T: Copy>(from: &T, to: &mut T) {
    const { assert!(align_of::<T>() == 8 && size_of::<T>().is_multiple_of(8)) };
    let (from, to) = (core::ptr::from_ref(from).cast::<u64>(), core::ptr::from_mut(to).cast::<u64>());
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: inside both values and aligned, as asserted, and `T` has no destructor. Volatile, or the compiler makes
        // it a `memmove` again.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
}
