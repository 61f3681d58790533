//! The end of a packet that was ruled: it is recorded, and forwarded or dropped.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use netverdict_abi::{Direction, KernelReason, Verdict};

use crate::{
    fragments,
    packet::{Fragment, Packet},
    packet_context::PacketContext,
    record,
    ruling::Ruling,
};

/// `TCX_NEXT`: the next program on the hook decides.
pub const PASS: i32 = -1;
pub const DROP: i32 = TC_ACT_SHOT as i32;

/// Records the ruling of an endpoint, and forwards or drops the packet.
#[inline(never)]
pub fn conclude(skb: *mut __sk_buff, packet: &Packet, ruling: &Ruling, ifindex: u32, direction: Direction) -> i32 {
    let Some(context) = PacketContext::of_endpoint(skb, packet, ifindex, direction) else { return PASS };
    let dropped = ruling.answer.verdict == Verdict::Denied && context.enforces();
    if ruling.for_fragments || (packet.fragment == Fragment::First && ruling.answer.reason != KernelReason::Malformed) {
        fragments::remember(packet, &context, &ruling.answer, dropped).consume();
    }
    if ruling.record {
        record::write(&context, packet, ruling, dropped).consume();
    }
    if dropped { DROP } else { PASS }
}
