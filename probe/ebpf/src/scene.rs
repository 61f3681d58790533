//! What holds while one packet is judged. The revision is read here, once: every table that the packet asks is asked as of it.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ktime_get_boot_ns, programs::TcContext};
use netverdict_abi::{Direction, Endpoint, EndpointClasses, Mode, Settings};

use crate::{maps, whole};

pub struct Scene<'a> {
    pub skb: *mut __sk_buff,
    pub settings: &'a Settings,
    /// `current_revision`.
    pub revision: u64,
    /// Nanoseconds since boot, suspended time included.
    pub now: u64,
    /// Whether the endpoint's tables are complete.
    pub complete: bool,
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
        // SAFETY: memory of the map. Perhaps it is another endpoint's by now (see `whole`): a yes is made sure of before
        // anything is judged, and a no is here.
        let complete = match unsafe { maps::ENDPOINTS.get(ifindex) } {
            Some(endpoint) => endpoint.ready != 0 || is_complete(ifindex),
            None => false,
        };
        // SAFETY: no precondition.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        Some(Self { skb: ctx.skb.skb, settings, revision, now, complete, ifindex, length: ctx.len(), direction })
    }

    /// Only an explicit `enforce` drops: a settings cell that was never written is `observe`.
    #[inline(always)]
    pub fn enforces(&self) -> bool {
        self.settings.mode == Mode::Enforce as u8
    }

    /// How the endpoint is judged; None until its tables are complete. Good until it is asked for again.
    #[inline(always)]
    pub fn subject(&self) -> Option<&'static Subject> {
        let subject = maps::SUBJECT.get_ptr_mut(0)?;
        // SAFETY: this CPU's own element, and nothing else on this CPU uses it meanwhile (see `emit`).
        let subject = unsafe { &mut *subject };
        let found = whole::read(
            || maps::ENDPOINTS.get_ptr(self.ifindex),
            |endpoint| {
                subject.ready = endpoint.ready;
                subject.attached_at = endpoint.attached_at;
                subject.classes = if self.revision >= endpoint.since { endpoint.after } else { endpoint.before };
            },
        );
        (found && subject.ready != 0).then_some(subject)
    }

    /// Owner id of the endpoint; 0 until its tables are complete.
    #[inline(always)]
    pub fn owner(&self) -> u32 {
        let mut owner = 0;
        let copy = |endpoint: &Endpoint| owner = if endpoint.ready != 0 { endpoint.owner } else { 0 };
        if whole::read(|| maps::ENDPOINTS.get_ptr(self.ifindex), copy) { owner } else { 0 }
    }

    #[inline(always)]
    pub fn is_egress(&self) -> bool {
        self.direction == Direction::Egress
    }
}

/// An endpoint as of the packet's revision.
pub struct Subject {
    pub classes: EndpointClasses,
    /// Nanoseconds since boot.
    pub attached_at: u64,
    ready: u8,
}

#[inline(always)]
fn is_complete(ifindex: u32) -> bool {
    let mut ready = 0;
    whole::read(|| maps::ENDPOINTS.get_ptr(ifindex), |endpoint| ready = endpoint.ready) && ready != 0
}
