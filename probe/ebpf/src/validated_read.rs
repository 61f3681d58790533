//! Optimistic reads of hash map values: copy, validate, retry.
//!
//! User space may replace a value while a program reads it, and a pointer into a hash map does not protect the reader
//! (`kernel/bpf/hashtab.c`):
//!
//! - The element that an update replaced, or a deletion freed, is handed to the next update at once, without waiting
//!   for programs that still hold a pointer to it. The bytes behind the pointer may then become the value of another
//!   key.
//! - An update links the new element at the head of its bucket before it unlinks the old one. A lookup that has passed
//!   the head already finds neither.
//!
//! So a program copies the value and looks the key up again. If the lookup returns the same element, the copy is of
//! this key; if two lookups in a row find nothing, the key is absent. An element cannot leave its key and return, and a
//! key cannot be missed twice, because user space writes a key once per publication and waits for all running programs
//! before the next one (ADR 7).

use crate::atomic;

/// Enough: a lookup returns another element only if the key was written meanwhile, and that happens once.
const ATTEMPTS: u32 = 4;

/// Calls `copy` with the value at `found`, the result of a first lookup (null if the key was absent), until `look_up`
/// confirms it. Returns whether the key is present. `copy` may be called more than once and writes to the caller's
/// variables, because returning the value would take its size on the stack twice.
#[inline(always)]
pub fn read<V>(found: *const V, look_up: impl Fn() -> *const V, mut copy: impl FnMut(&V)) -> bool {
    let mut element = found;
    for _ in 0..ATTEMPTS {
        if !element.is_null() {
            // SAFETY: memory of the map, which is reused but never unmapped, and any bytes are a valid value.
            copy(unsafe { &*element });
        }
        atomic::fence();
        let again = look_up();
        if again == element {
            return !element.is_null();
        }
        element = again;
    }
    false
}

/// The result of a lookup as [`read`] takes it.
#[inline(always)]
pub fn pointer<V>(found: Option<*const V>) -> *const V {
    found.unwrap_or(core::ptr::null())
}
