//! What holds for the whole node at the moment of one packet. The revision is read here, once: every table that the packet
//! asks is asked as of it.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use netverdict_abi::{Mode, Settings};

use crate::maps;

pub struct Node {
    pub settings: &'static Settings,
    /// `current_revision`.
    pub revision: u64,
    /// Nanoseconds since boot, suspended time included.
    pub now: u64,
}

impl Node {
    /// None cannot happen (the maps are arrays of one), but the verifier wants to be told.
    #[inline(always)]
    pub fn now() -> Option<Self> {
        let settings = maps::SETTINGS.get_ptr(0)?;
        let revision = maps::CURRENT_REVISION.get_ptr(0)?;
        // SAFETY: elements of array maps are never freed. The volatile read keeps the compiler from reading again later.
        unsafe {
            Some(Self { settings: &*settings, revision: revision.read_volatile(), now: bpf_ktime_get_boot_ns() })
        }
    }

    /// Only an explicit `enforce` drops: a settings cell that was never written is `observe`.
    #[inline(always)]
    pub fn enforces(&self) -> bool {
        self.settings.mode == Mode::Enforce as u8
    }
}
