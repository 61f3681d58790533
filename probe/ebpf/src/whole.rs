//! Values of hash maps, copied whole.
//!
//! Two things can happen while user space replaces a value. The kernel hands the element that an update replaced, or a
//! deletion freed, to the next update at once: it waits for no program that still looks at it, so what is read through a
//! pointer may become the value of another key. And it puts the new element at the head of its bucket before it takes the
//! old one out, so a search that is past the head finds neither.
//!
//! So after copying, the key is asked for again: where the same element answers, it was this key's all the while, and where
//! none answers twice, there is none. (An element cannot have gone to another key and come back, and no key is missed
//! twice: user space writes a key once in a publication, and waits for the programs that run before it begins the next.)

use crate::atomic;

/// Every difference means that the key was written meanwhile, which happens once.
const ATTEMPTS: u32 = 4;

/// Has `copy` take what it needs out of the value that was found for a key, null if none was, and asks for the key again;
/// false if there is none. (It writes where the caller says: to return it would take the stack twice.)
#[inline(always)]
pub fn read<V>(found: *const V, ask: impl Fn() -> *const V, mut copy: impl FnMut(&V)) -> bool {
    let mut element = found;
    for _ in 0..ATTEMPTS {
        if !element.is_null() {
            // SAFETY: memory of the map: reused, never unmapped, and every value is plain numbers.
            copy(unsafe { &*element });
        }
        atomic::fence();
        let again = ask();
        if again == element {
            return !element.is_null();
        }
        element = again;
    }
    false
}

/// What a map says, as [`read`] takes it.
#[inline(always)]
pub fn pointer<V>(found: Option<*const V>) -> *const V {
    found.unwrap_or(core::ptr::null())
}
