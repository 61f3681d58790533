//! Values of hash maps, copied whole.
//!
//! The kernel hands the element that an update replaced, or a deletion freed, to the next update at once: it waits for
//! no program that still looks at it. So what is read through a pointer may become the value of another key at any moment.
//! After copying, the key is asked again: where the same element answers, it was this key's all the while. (It cannot have
//! gone to another key and come back: user space writes a key once in a publication, and waits for the programs that run
//! before it begins the next.)

use crate::atomic;

/// Every failure means that the key was written meanwhile, which happens once.
const ATTEMPTS: u32 = 4;

/// Has `copy` take what it needs out of the value that was found for a key, and asks for the key again; false if there is
/// none, or none that stays. (It writes where the caller says: to return it would take the stack twice.)
#[inline(always)]
pub fn read<V>(found: Option<*const V>, ask: impl Fn() -> Option<*const V>, mut copy: impl FnMut(&V)) -> bool {
    let Some(mut element) = found else { return false };
    for _ in 0..ATTEMPTS {
        // SAFETY: memory of the map: reused, never unmapped, and every value is plain numbers.
        copy(unsafe { &*element });
        atomic::fence();
        let Some(again) = ask() else { return false };
        if again == element {
            return true;
        }
        element = again;
    }
    false
}
