//! Writes events to the rings. Each has a number even when there is no room for it, so that losses are known by the CPU and
//! the lane, and here also by interface.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::bpf_get_smp_processor_id,
};
use netverdict_abi::{ABI_VERSION, EventKind, Lane, LossKey, VerdictEvent};

use crate::{atomic, maps, scene::Scene, subprogram::zero};

/// Fills in what is the same for every event; the rest is the caller's.
#[inline(always)]
pub fn send(scene: &Scene<'_>, lane: Lane, fill: impl FnOnce(&mut VerdictEvent)) {
    let Some(counters) = maps::LANES.get_ptr_mut(lane as u32) else { return };
    // SAFETY: this CPU's own element. tcx programs run with bottom halves off and are not entered from hard interrupts, so
    // nothing else on this CPU is here at the same time: plain increments are enough.
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
        count_loss(lane as u32, scene.ifindex);
        return;
    };
    // SAFETY: every field is a number, so zeroes are an event.
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
    event.boot_time = scene.now;
    event.revision = scene.revision;
    event.ifindex = scene.ifindex;
    event.mode = scene.settings.mode;
    fill(event);
    // User space looks every few tens of milliseconds; only a denial is worth waking it for.
    entry.submit(match lane {
        Lane::Denied => 0,
        Lane::Flow => u64::from(BPF_RB_NO_WAKEUP),
    });
}

/// `lane`: or what stands in its place.
#[inline(always)]
pub fn count_loss(lane: u32, ifindex: u32) {
    let key = LossKey { ifindex, lane };
    if maps::LOSSES.get_ptr(&key).is_none() {
        // Another CPU may be first; then it is theirs that we add to.
        let _ = maps::LOSSES.insert(&key, 0u64, u64::from(BPF_NOEXIST));
    }
    if let Some(lost) = maps::LOSSES.get_ptr_mut(&key) {
        // SAFETY: an aligned `u64` in a map value.
        unsafe { atomic::add(lost, 1) };
    }
}
