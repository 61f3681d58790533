//! Writes events to the ring buffers. Each event gets a sequence number even if the ring has no room for it, so that a
//! reader knows how many are missing per CPU and lane. Losses are also counted per interface.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::bpf_get_smp_processor_id,
};
use netverdict_abi::{ABI_VERSION, EventKind, Lane, LossClass, LossKey, VerdictEvent};

use crate::{atomic, maps, packet_context::PacketContext, subprogram::zero};

/// Writes one event: sets the fields that are the same for every event, and has `fill` set the others.
#[inline(always)]
pub fn send(context: &PacketContext<'_>, lane: Lane, fill: impl FnOnce(&mut VerdictEvent)) {
    let Some(counters) = maps::LANES.get_ptr_mut(lane as u32) else { return };
    // SAFETY: this CPU's own element. tcx programs run with bottom halves disabled and never in hard interrupt context,
    // so no other program on this CPU is here at the same time: plain increments are enough.
    let seq = unsafe {
        (*counters).seq += 1;
        (*counters).seq
    };
    let ring = match lane {
        Lane::Denied => &maps::RING_DENIED,
        Lane::Flow => &maps::RING_FLOW,
    };
    let Some(mut entry) = ring.reserve::<VerdictEvent>(0) else {
        // SAFETY: as above.
        unsafe { (*counters).lost += 1 };
        count_loss(lane.into(), context.ifindex);
        return;
    };
    // SAFETY: every field is a number, so all-zero bytes are an event.
    let event = unsafe {
        let event = &mut *entry.as_mut_ptr();
        zero(event);
        event
    };
    event.kind = EventKind::Verdict as u8;
    event.abi_version = ABI_VERSION;
    event.lane = lane as u8;
    // SAFETY: no precondition.
    event.cpu = unsafe { bpf_get_smp_processor_id() };
    event.seq = seq;
    event.boot_time = context.now;
    event.revision = context.revision;
    event.ifindex = context.ifindex;
    event.mode = context.settings.mode;
    fill(event);
    // User space polls every few tens of milliseconds; only a denial is worth a wake-up.
    entry.submit(match lane {
        Lane::Denied => 0,
        Lane::Flow => u64::from(BPF_RB_NO_WAKEUP),
    });
}

/// Counts one event or frame without a record.
#[inline(always)]
pub fn count_loss(class: LossClass, ifindex: u32) {
    let key = LossKey { ifindex, class: class as u32 };
    if maps::LOSSES.get_ptr(&key).is_none() {
        // Fails if another CPU was first; both then add to the same entry.
        let _ = maps::LOSSES.insert(&key, 0u64, u64::from(BPF_NOEXIST));
    }
    if let Some(lost) = maps::LOSSES.get_ptr_mut(&key) {
        // SAFETY: an aligned `u64` in a map value.
        unsafe { atomic::add(lost, 1) };
    }
}
