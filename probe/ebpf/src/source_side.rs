//! The egress side of a connection, where its destination is known at last: a Service's address is replaced by that of a
//! backend only after `from_pod`. So the hooks behind the translation ask whether the pod that sent the packet was
//! judged for exactly the destination that the packet has by now, and judge it if not.
//!
//! That holds for any translation, and whether or not `from_pod` knew the address as a Service's.

use aya_ebpf::bindings::__sk_buff;
use netverdict_abi::{AddressKey, Direction, KernelReason, Verdict, map::connection_flag::RESOLVED};

use crate::{
    connections::FlowTuple,
    conntrack::{self, Tracking},
    judge, maps,
    packet::{Fragment, Packet, Words, bytes},
    packet_context::PacketContext,
    ruling::Ruling,
    subprogram::{ScalarReturn, scalar_return},
    validated_read,
};

/// Judges the egress of the local pod that sent the packet, unless that was done for this destination. Returns the pod's
/// interface, for which the ruling is to be concluded; 0 if there is nothing to conclude. Sets the original ends of the
/// packet. `established`: the destination's side knows the
/// connection already, so that it goes on with any answer (E-10).
#[inline(never)]
pub fn rule(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    quoted: &mut Packet,
    established: bool,
    ruling: &mut Ruling,
) -> u32 {
    let tracking = conntrack::restore(skb, packet);
    // Its connection was judged by the ingress of the pod that replies.
    if tracking == Tracking::Reply {
        return 0;
    }
    let ifindex = local_pod(&packet.original_source);
    if ifindex == 0 || is_of_another_pod(skb, ifindex) {
        return 0;
    }
    let Some(mut context) = PacketContext::of_endpoint(skb, packet, ifindex, Direction::Egress) else { return 0 };
    context.translated = true;
    rule_sender(&context, packet, quoted, tracking, established, ruling);
    if ruling.record || ruling.for_fragments || ruling.answer.verdict == Verdict::Denied { ifindex } else { 0 }
}

#[inline(always)]
fn rule_sender(
    context: &PacketContext<'_>,
    packet: &mut Packet,
    quoted: &mut Packet,
    tracking: Tracking,
    established: bool,
    ruling: &mut Ruling,
) {
    if packet.fragment == Fragment::Later && tracking == Tracking::Untracked {
        judge::rule_later_fragment(context, packet, ruling).consume();
        return;
    }
    let related = match tracking {
        Tracking::Related => is_about_connection(context),
        Tracking::Untracked => packet.is_icmp_error() && judge::is_related(context, packet, quoted),
        Tracking::Original | Tracking::Reply => false,
    };
    if related {
        return;
    }
    let tuple = FlowTuple::of_sender(packet, context.ifindex);
    let entry = tuple.find(context);
    let translated = packet.has_translated_destination();
    if let Some(entry) = &entry
        && entry.get().reason != KernelReason::ServiceNotResolved as u8
        && !(translated && packet.is_connection_request())
    {
        if entry.get().revision != context.revision && context.complete {
            judge::re_evaluate(context, packet, entry, ruling).consume();
        }
        // Otherwise `from_pod` has seen the packet with the same ends.
        if translated {
            entry.touch(packet, context);
        }
        return;
    }
    judge::rule_new_flow(context, packet, &tuple, entry.as_ref(), ruling).consume();
    if established && ruling.answer.verdict == Verdict::Denied && context.enforces() {
        ruling.answer.verdict = Verdict::Allowed;
        ruling.answer.reason = KernelReason::EstablishedStale;
        tuple.open(packet, context, &ruling.answer, false).consume();
    }
    if translated {
        mark_resolved(context, packet).consume();
    }
}

/// Notes in the connection that `from_pod` opened that its backend was judged.
#[inline(never)]
fn mark_resolved(context: &PacketContext<'_>, packet: &Packet) -> ScalarReturn {
    let sent_to = FlowTuple::between(
        (&packet.original_source, packet.original_source_port),
        (&packet.original_destination, packet.original_destination_port),
        packet.protocol,
        context.ifindex,
    );
    if let Some(entry) = sent_to.find(context) {
        entry.set(RESOLVED);
    }
    scalar_return()
}

/// Whether conntrack relates an ICMP error to a connection of the pod that passes.
#[inline(never)]
fn is_about_connection(context: &PacketContext<'_>) -> bool {
    let Some((sender, sender_port, receiver, receiver_port, protocol)) = conntrack::related_connection() else {
        return false;
    };
    let (from, to) = ((&sender, sender_port), (&receiver, receiver_port));
    FlowTuple::between(from, to, protocol, context.ifindex).find(context).is_some()
}

/// The interface of the local pod that has an address; 0 if none has.
#[inline(always)]
fn local_pod(address: &Words) -> u32 {
    let key = AddressKey { address: bytes(*address) };
    let mut ifindex = 0;
    let look_up = || validated_read::pointer(maps::LOCAL_PODS.get_ptr(&key));
    if validated_read::read(look_up(), look_up, |found| ifindex = *found) { ifindex } else { 0 }
}

/// Whether the packet came from another pod, which uses an address that is not its own: a matter of that pod's egress.
#[inline(always)]
fn is_of_another_pod(skb: *mut __sk_buff, ifindex: u32) -> bool {
    // SAFETY: the context is the kernel's.
    let arrived = unsafe { (*skb).ingress_ifindex };
    arrived != ifindex && maps::ENDPOINTS.get_ptr(arrived).is_some()
}
