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
    /// What was found for the interface, null if nothing. It may be another's by now (see `whole`).
    endpoint: *const Endpoint,
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
        let endpoint = ask(ifindex);
        // A yes is made sure of before anything is judged, and a no is here.
        // SAFETY: memory of the map.
        let complete = (!endpoint.is_null() && unsafe { (*endpoint).ready } != 0) || is_complete(ifindex, endpoint);
        // SAFETY: no precondition.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        Some(Self {
            skb: ctx.skb.skb,
            settings,
            revision,
            now,
            complete,
            endpoint,
            ifindex,
            length: ctx.len(),
            direction,
        })
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
        let whole = read(self.ifindex, self.endpoint, |endpoint| {
            subject.ready = endpoint.ready;
            subject.owner = endpoint.owner;
            subject.attached_at = endpoint.attached_at;
            subject.classes = endpoint.as_of(self.revision);
        });
        (whole && subject.ready != 0).then_some(subject)
    }

    /// Owner id of the endpoint; 0 until its tables are complete.
    #[inline(always)]
    pub fn owner(&self) -> u32 {
        let mut owner = 0;
        let whole = read(self.ifindex, self.endpoint, |endpoint| {
            owner = if endpoint.ready != 0 { endpoint.owner } else { 0 };
        });
        if whole { owner } else { 0 }
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
    /// Owner id.
    pub owner: u32,
    ready: u8,
}

#[inline(always)]
fn is_complete(ifindex: u32, found: *const Endpoint) -> bool {
    let mut ready = 0;
    read(ifindex, found, |endpoint| ready = endpoint.ready) && ready != 0
}

#[inline(always)]
fn read(ifindex: u32, found: *const Endpoint, copy: impl FnMut(&Endpoint)) -> bool {
    whole::read(found, || ask(ifindex), copy)
}

#[inline(always)]
fn ask(ifindex: u32) -> *const Endpoint {
    whole::pointer(maps::ENDPOINTS.get_ptr(ifindex))
}
