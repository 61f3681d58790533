//! Constant values in one stage of judging a packet. The revision cell is read once per packet, and every table is
//! read as of that revision.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ktime_get_boot_ns};
use netverdict_abi::{Direction, Endpoint, Mode, Settings};

use crate::{maps, packet::Packet, subject::Subject, subprogram::copy, validated_read};

pub struct PacketContext<'a> {
    pub skb: *mut __sk_buff,
    pub settings: &'a Settings,
    /// Of the packet.
    pub revision: u64,
    /// Nanoseconds since boot, suspended time included.
    pub now: u64,
    /// Whether the endpoint's tables are complete.
    pub complete: bool,
    /// The endpoint record that a first lookup found; null if there was none. Read it through `validated_read` only.
    endpoint: *const Endpoint,
    pub ifindex: u32,
    /// Length of the frame in bytes.
    pub length: u32,
    pub direction: Direction,
    /// This hook is behind the translation of addresses: a Service's address that is still there stands for itself.
    pub translated: bool,
}

impl PacketContext<'_> {
    /// Never `None`: the maps are arrays with one element. The verifier cannot know that.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff, packet: &Packet, direction: Direction) -> Option<Self> {
        // SAFETY: the context is the kernel's.
        let ifindex = unsafe { (*skb).ifindex };
        Self::of_endpoint(skb, packet, ifindex, direction)
    }

    /// For a packet at another interface than the endpoint's own.
    #[inline(always)]
    pub fn of_endpoint(skb: *mut __sk_buff, packet: &Packet, ifindex: u32, direction: Direction) -> Option<Self> {
        let settings = maps::SETTINGS.get(0)?;
        let endpoint = look_up(ifindex);
        // A positive result is validated again before anything is judged by it (`subject`); only a negative one must be
        // validated here. SAFETY: memory of the map.
        let complete = (!endpoint.is_null() && unsafe { (*endpoint).ready } != 0) || is_complete(ifindex, endpoint);
        // SAFETY: no precondition.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        Some(Self {
            skb,
            settings,
            revision: packet.revision,
            now,
            complete,
            endpoint,
            ifindex,
            // SAFETY: the context is the kernel's.
            length: unsafe { (*skb).len },
            direction,
            translated: false,
        })
    }

    /// Only an explicit `enforce` drops packets: a settings cell that was never written means `observe`.
    #[inline(always)]
    pub fn enforces(&self) -> bool {
        self.settings.mode == Mode::Enforce as u8
    }

    /// The endpoint as a policy subject; `None` until its tables are complete. The next call overwrites the value.
    #[inline(always)]
    pub fn subject(&self) -> Option<&'static Subject> {
        let subject = maps::SUBJECT.get_ptr_mut(0)?;
        // SAFETY: this CPU's own element, which nothing else on this CPU uses meanwhile (see `emit`).
        let subject = unsafe { &mut *subject };
        let found = read(self.ifindex, self.endpoint, |endpoint| {
            subject.ready = endpoint.ready;
            subject.owner = endpoint.owner;
            subject.attached_at = endpoint.attached_at;
            copy(endpoint.as_of(self.revision), &mut subject.classes);
        });
        (found && subject.ready != 0).then_some(subject)
    }

    /// Owner id of the endpoint; 0 until its tables are complete.
    #[inline(always)]
    pub fn owner(&self) -> u32 {
        let mut owner = 0;
        let found = read(self.ifindex, self.endpoint, |endpoint| {
            owner = if endpoint.ready != 0 { endpoint.owner } else { 0 };
        });
        if found { owner } else { 0 }
    }

    #[inline(always)]
    pub fn is_egress(&self) -> bool {
        self.direction == Direction::Egress
    }
}

/// The revision in force.
#[inline(always)]
pub fn current_revision() -> Option<u64> {
    let revision = maps::CURRENT_REVISION.get_ptr(0)?;
    // SAFETY: an element of an array map is never freed. Volatile, or the compiler might read it a second time later.
    Some(unsafe { revision.read_volatile() })
}

#[inline(always)]
fn is_complete(ifindex: u32, found: *const Endpoint) -> bool {
    let mut ready = 0;
    read(ifindex, found, |endpoint| ready = endpoint.ready) && ready != 0
}

#[inline(always)]
fn read(ifindex: u32, found: *const Endpoint, copy: impl FnMut(&Endpoint)) -> bool {
    validated_read::read(found, || look_up(ifindex), copy)
}

#[inline(always)]
fn look_up(ifindex: u32) -> *const Endpoint {
    validated_read::pointer(maps::ENDPOINTS.get_ptr(ifindex))
}
