//! What holds while one packet is judged. The revision is read here, once: every table that the packet asks is asked as of it.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ktime_get_boot_ns, programs::TcContext};
use netverdict_abi::{Direction, Endpoint, Mode, Settings};

use crate::maps;

pub struct Scene<'a> {
    pub skb: *mut __sk_buff,
    pub settings: &'a Settings,
    /// `current_revision`.
    pub revision: u64,
    /// Nanoseconds since boot, suspended time included.
    pub now: u64,
    /// None until its tables are complete.
    pub endpoint: Option<&'a Endpoint>,
    pub ifindex: u32,
    /// Of the frame, in bytes.
    pub length: u32,
    pub direction: Direction,
}

impl Scene<'_> {
    /// None cannot happen (the maps are arrays of one), but the verifier wants to be told.
    #[inline(always)]
    pub fn set(ctx: &TcContext, direction: Direction) -> Option<Self> {
        let settings = maps::SETTINGS.get(0)?;
        let revision = maps::CURRENT_REVISION.get_ptr(0)?;
        // SAFETY: an element of an array map is never freed. Volatile, or the compiler might read again later.
        let revision = unsafe { revision.read_volatile() };
        // SAFETY: the context is the kernel's.
        let ifindex = unsafe { (*ctx.skb.skb).ifindex };
        // SAFETY: a value is replaced as a whole, never written in place.
        let endpoint = unsafe { maps::ENDPOINTS.get(ifindex) }.filter(|endpoint| endpoint.ready != 0);
        // SAFETY: no precondition.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        Some(Self { skb: ctx.skb.skb, settings, revision, now, endpoint, ifindex, length: ctx.len(), direction })
    }

    /// Only an explicit `enforce` drops: a settings cell that was never written is `observe`.
    #[inline(always)]
    pub fn enforces(&self) -> bool {
        self.settings.mode == Mode::Enforce as u8
    }

    #[inline(always)]
    pub fn is_egress(&self) -> bool {
        self.direction == Direction::Egress
    }
}
