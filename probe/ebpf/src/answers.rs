//! Answers to a pod from a Service's address. Where the backend is a pod, or is not on this node, the hooks behind the
//! translation have judged the egress of the pod that asks. Packets to a backend on the node itself pass none of them, so
//! so the backend's first answer identifies it.

use aya_ebpf::bindings::__sk_buff;
use netverdict_abi::{
    Direction, KernelReason, Unresolved, Verdict,
    map::connection_flag::{RESOLVED, UNRESOLVED},
};

use crate::{
    connections::{Entry, FlowTuple},
    conntrack::{self, Tracking},
    decide::Answer,
    judge,
    packet::{Packet, protocol},
    packet_context::PacketContext,
    ruling::Ruling,
    subprogram::{ScalarReturn, scalar_return},
};

/// Whether a reply must be ruled here: its connection was opened to a Service's address. A TCP connection keeps its
/// backend; with other protocols the next packet may go to another one.
#[inline(always)]
pub fn concerns(packet: &Packet, entry: &Entry) -> bool {
    let connection = entry.get();
    !entry.original
        && connection.reason == KernelReason::ServiceNotResolved as u8
        && !(packet.protocol == protocol::TCP && connection.flags & RESOLVED != 0)
}

/// Rules an answer. The connection of the packet as it is on the wire is known.
#[inline(never)]
pub fn rule(skb: *mut __sk_buff, packet: &mut Packet, ruling: &mut Ruling) -> ScalarReturn {
    let Some(mut context) = PacketContext::new(skb, packet, Direction::Ingress) else { return scalar_return() };
    let Some(entry) = FlowTuple::of(packet, context.ifindex).find(&context) else { return scalar_return() };
    entry.touch(packet, &context);
    if conntrack::restore(skb, packet) != Tracking::Reply {
        rule_unresolved(&context, &entry, ruling);
        return scalar_return();
    }
    context.translated = true;
    let backend = FlowTuple::between(
        (&packet.original_source, packet.original_source_port),
        (&packet.destination, packet.destination_port),
        packet.protocol,
        context.ifindex,
    );
    // If not, the Service's own address answers, and the connection that asked is the one to judge.
    let translated = packet.has_translated_source();
    if translated && backend.find(&context).is_some() {
        entry.set(RESOLVED);
        return scalar_return();
    }
    judge::rule_reversed_flow(&context, packet, &backend, ruling).consume();
    // Where nothing was translated the entry was replaced, and the pointer may point to another's.
    if translated && ruling.answer.verdict != Verdict::Denied {
        entry.set(RESOLVED);
    }
    scalar_return()
}

/// The backend that answers is not known.
#[inline(always)]
fn rule_unresolved(context: &PacketContext<'_>, entry: &Entry, ruling: &mut Ruling) {
    let denies = context.enforces() && context.settings.unresolved == Unresolved::Deny as u8;
    // A denial is recorded each time, like any other.
    if !denies && entry.get().flags & UNRESOLVED != 0 {
        return;
    }
    entry.set(UNRESOLVED);
    let verdict = if denies { Verdict::Denied } else { Verdict::Unknown };
    let answer = Answer { verdict, reason: KernelReason::ServiceNotResolved, attribution: 0 };
    *ruling = Ruling { answer, record: true, reversed: true, ..Ruling::PASS };
}
