//! The way of one packet: parse it, check its source address, handle neighbour discovery and later fragments, find its
//! connection, otherwise have it judged; then conclude. A packet to a pod is first judged as its sender's egress where
//! that could not be done when it was sent, see [`crate::source_side`].

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netverdict_abi::{Direction, KernelReason};

use crate::{
    answers,
    conclude::{DROP, PASS, conclude},
    connections::{Entry, FlowTuple},
    conntrack::{self, Tracking},
    judge, maps, own_source,
    packet::{Fragment, Packet, Refusal},
    packet_context::{PacketContext, current_revision},
    parse::{self, Link},
    ruling::Ruling,
    source_side,
    subprogram::{ScalarReturn, scalar_return},
};

/// The work that is left for a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Stage {
    /// Nothing: it passes without a record.
    Pass = 0,
    /// To conclude the ruling.
    Ruled,
    /// It belongs to no known connection.
    NewFlow,
    /// Its connection was judged by an older revision.
    Changed,
    /// The same, and its sender may be a local pod whose egress was too.
    ChangedAtBothEnds,
    /// It is an answer from a Service's address.
    Answer,
}

/// The stages follow one another and do not call each other, so that their stack frames share the memory that a program
/// has.
#[inline(always)]
pub fn packet(ctx: &TcContext, direction: Direction) -> i32 {
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else { return PASS };
    // SAFETY: this CPU's own element, which nothing else on this CPU uses meanwhile (see `emit`).
    let [packet, quoted] = unsafe { &mut *scratch };
    let skb = ctx.skb.skb;
    let mut ruling = Ruling::PASS;
    let parsed = parse::read(packet, skb, Link::Ethernet);
    let Some(revision) = current_revision() else { return PASS };
    packet.revision = revision;
    let stage = match parsed {
        Ok(()) => rule_known(skb, packet, quoted, direction, &mut ruling),
        Err(Refusal::NotIp) => return PASS,
        Err(refusal) => {
            packet.assume_untranslated();
            let short = refusal == Refusal::ShortFragment;
            ruling.deny(if short { KernelReason::ShortFragment } else { KernelReason::Malformed });
            Stage::Ruled
        }
    };
    if stage == Stage::Pass {
        return PASS;
    }
    // A local pod's egress comes before the ingress of the pod that it sends to.
    if direction == Direction::Ingress && matches!(stage, Stage::NewFlow | Stage::ChangedAtBothEnds) {
        let established = stage == Stage::ChangedAtBothEnds;
        let sender = source_side::rule(skb, packet, quoted, established, &mut ruling);
        if sender != 0 && conclude(skb, packet, &ruling, sender, Direction::Egress) == DROP {
            return DROP;
        }
        ruling = Ruling::PASS;
    }
    match stage {
        Stage::Pass | Stage::Ruled => {}
        Stage::NewFlow => rule_unknown(skb, packet, direction, &mut ruling).consume(),
        Stage::Changed | Stage::ChangedAtBothEnds => rule_changed(skb, packet, direction, &mut ruling).consume(),
        Stage::Answer => answers::rule(skb, packet, &mut ruling).consume(),
    }
    // SAFETY: the context is the kernel's.
    conclude(skb, packet, &ruling, unsafe { (*skb).ifindex }, direction)
}

/// A packet that leaves the node. Nothing is recorded, and nothing dropped, but for the egress of a pod.
#[inline(always)]
pub fn leaving(ctx: &TcContext, link: Link) -> i32 {
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else { return PASS };
    // SAFETY: this CPU's own element, which nothing else on this CPU uses meanwhile (see `emit`).
    let [packet, quoted] = unsafe { &mut *scratch };
    // A malformed packet was refused when a pod sent it; packets of the node itself are not judged.
    if parse::read(packet, ctx.skb.skb, link).is_err() {
        return PASS;
    }
    let Some(revision) = current_revision() else { return PASS };
    packet.revision = revision;
    let mut ruling = Ruling::PASS;
    let sender = source_side::rule(ctx.skb.skb, packet, quoted, false, &mut ruling);
    if sender == 0 {
        return PASS;
    }
    conclude(ctx.skb.skb, packet, &ruling, sender, Direction::Egress)
}

/// Rules the packets that no table need be asked about.
#[inline(never)]
fn rule_known(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    quoted: &mut Packet,
    direction: Direction,
    ruling: &mut Ruling,
) -> Stage {
    let Some(context) = PacketContext::new(skb, packet, direction) else { return Stage::Pass };
    rule(&context, packet, quoted, ruling)
}

#[inline(never)]
fn rule_unknown(skb: *mut __sk_buff, packet: &Packet, direction: Direction, ruling: &mut Ruling) -> ScalarReturn {
    let Some(context) = PacketContext::new(skb, packet, direction) else { return scalar_return() };
    let tuple = FlowTuple::of(packet, context.ifindex);
    let entry = tuple.find(&context);
    judge::rule_new_flow(&context, packet, &tuple, entry.as_ref(), ruling).consume();
    scalar_return()
}

#[inline(never)]
fn rule_changed(skb: *mut __sk_buff, packet: &Packet, direction: Direction, ruling: &mut Ruling) -> ScalarReturn {
    let Some(context) = PacketContext::new(skb, packet, direction) else { return scalar_return() };
    if let Some(entry) = FlowTuple::of(packet, context.ifindex).find(&context) {
        judge::re_evaluate(&context, packet, &entry, ruling).consume();
        entry.touch(packet, &context);
    }
    scalar_return()
}

/// Decides on the packet, or returns the stage that has to. Leaves `ruling` unchanged if the packet passes without a record.
#[inline(always)]
fn rule(context: &PacketContext<'_>, packet: &mut Packet, quoted: &mut Packet, ruling: &mut Ruling) -> Stage {
    // Skip the source check until the endpoint's address list is complete.
    let own = !context.is_egress() || !context.complete || own_source::is_own(packet, context.ifindex);
    if packet.is_discovery() && (own || own_source::may_discover(packet)) {
        return Stage::Pass;
    }
    if packet.fragment == Fragment::Later {
        // Conntrack knows the ports of packets that it has reassembled.
        let tracked = !context.is_egress() && conntrack::restore(context.skb, packet) == Tracking::Original;
        if !tracked {
            if own {
                judge::rule_later_fragment(context, packet, ruling).consume();
            } else {
                judge::rule_spoofed_source(context, packet, None, None, ruling).consume();
            }
            return Stage::Ruled;
        }
    }
    let tuple = FlowTuple::of(packet, context.ifindex);
    let entry = tuple.find(context);
    if !own {
        judge::rule_spoofed_source(context, packet, Some(&tuple), entry.as_ref(), ruling).consume();
        return Stage::Ruled;
    }
    if let Some(entry) = &entry
        && !starts_new_flow(packet, entry)
    {
        if !context.is_egress() && answers::concerns(packet, entry) {
            return Stage::Answer;
        }
        // Without complete tables there is nothing to re-evaluate it by.
        if entry.get().revision != context.revision && context.complete {
            let from_sender = !context.is_egress() && entry.original;
            return if from_sender { Stage::ChangedAtBothEnds } else { Stage::Changed };
        }
        entry.touch(packet, context);
        return if packet.fragment == Fragment::First { Stage::Ruled } else { Stage::Pass };
    }
    if packet.is_icmp_error() && judge::is_related(context, packet, quoted) {
        return if packet.fragment == Fragment::First { Stage::Ruled } else { Stage::Pass };
    }
    Stage::NewFlow
}

/// Whether a packet is judged as a new flow although its connection is known: a TCP connection request, or an echo
/// request that looks like a reply because both ends use the identifier 0.
#[inline(always)]
fn starts_new_flow(packet: &Packet, entry: &Entry) -> bool {
    packet.is_connection_request() || (!entry.original && packet.is_echo_request())
}
