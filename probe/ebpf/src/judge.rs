//! The judgement of one packet for one endpoint: looked up in the tables as a new flow, as a flow that the packet answers,
//! as a later fragment, or anew after a publication. [`crate::stages`] selects which of these happens.
//!
//! These functions are not inlined, so that their stack frames share the 512 bytes that a program has.

use netverdict_abi::{
    Direction, KernelReason, Peer, Unresolved, Verdict,
    map::{
        connection_flag::{RESOLVED, UNRESOLVED},
        peer_flag,
    },
};

use crate::{
    connections::{Entry, FlowTuple, allowed_in_any_mode},
    conntrack,
    decide::{Answer, Question, decide, find_peer},
    fragments, own_node,
    packet::{Packet, protocol},
    packet_context::PacketContext,
    parse,
    ruling::Ruling,
    subject::Subject,
    subprogram::{ScalarReturn, scalar_return},
};

/// Judges a flow that is not in the connection table, or that starts anew.
#[inline(never)]
pub fn rule_new_flow(
    context: &PacketContext<'_>,
    packet: &Packet,
    tuple: &FlowTuple,
    entry: Option<&Entry>,
    ruling: &mut Ruling,
) -> ScalarReturn {
    let peer = peer(context, packet);
    let subject = context.subject();
    let mut answer = Answer::not_ready(context.enforces());
    judge(subject, packet, peer, context.direction, Some(packet.destination_port), &mut answer);
    if peer.flags & peer_flag::OWN_NODE != 0 && own_node::may_be_anybodys(context, packet) {
        let anybody = own_node::without_owner(context, packet);
        let mut stricter = answer;
        judge(subject, packet, anybody, context.direction, Some(packet.destination_port), &mut stricter);
        if stricter.verdict == Verdict::Denied && answer.verdict != Verdict::Denied {
            answer = stricter;
        }
    }
    let mut reversed = false;
    if answer.verdict == Verdict::Denied && may_be_midstream(context, subject, packet) {
        let mut reverse = answer;
        judge(subject, packet, peer, opposite(context.direction), Some(packet.source_port), &mut reverse);
        if reverse.verdict != Verdict::Denied {
            answer = reverse;
            reversed = true;
            if answer.verdict == Verdict::Allowed {
                answer.reason = KernelReason::Midstream;
            }
        }
    }
    let mut record = true;
    if answer.reason == KernelReason::ServiceNotResolved {
        record = !conntrack::is_readable();
        if record && context.enforces() && context.settings.unresolved == Unresolved::Deny as u8 {
            answer.verdict = Verdict::Denied;
        }
    }
    if answer.verdict != Verdict::Denied || !context.enforces() {
        match entry {
            // A retransmitted request is not a new flow.
            Some(entry) if entry.is_repeated_request() && entry.has_answer(&answer) => {
                entry.update(&answer, context);
                entry.touch(packet, context);
                record = answer.reason == KernelReason::ServiceNotResolved && stays_unresolved(entry);
            }
            _ => tuple.open(packet, context, &answer, reversed).consume(),
        }
    }
    *ruling = Ruling { answer, record, reversed, for_fragments: false, peer, owner: owner_of(subject) };
    scalar_return()
}

/// Whether a request to a Service's address is repeated, no backend was seen for it, and that is not on record yet.
#[inline(always)]
fn stays_unresolved(entry: &Entry) -> bool {
    if entry.take(RESOLVED) || entry.get().flags & UNRESOLVED != 0 {
        return false;
    }
    entry.set(UNRESOLVED);
    true
}

/// Whether a pod reaches itself through a Service (E-8).
#[inline(always)]
fn is_hairpin(packet: &Packet) -> bool {
    packet.has_translated_destination() && packet.original_source == packet.destination
}

/// Judges the flow that a packet answers, and remembers it as `tuple`.
#[inline(never)]
pub fn rule_reversed_flow(
    context: &PacketContext<'_>,
    packet: &Packet,
    tuple: &FlowTuple,
    ruling: &mut Ruling,
) -> ScalarReturn {
    let peer = peer(context, packet);
    let subject = context.subject();
    let mut answer = Answer::not_ready(context.enforces());
    let (direction, port) = (opposite(context.direction), packet.original_source_port);
    judge(subject, packet, peer, direction, Some(port), &mut answer);
    if answer.verdict != Verdict::Denied || !context.enforces() {
        tuple.open(packet, context, &answer, true).consume();
    }
    *ruling = Ruling { answer, record: true, reversed: true, peer, owner: owner_of(subject), ..Ruling::PASS };
    scalar_return()
}

/// Re-evaluates a connection that was judged by an older revision, in its original direction. An allowed connection
/// keeps passing (E-10); a record is written only if the verdict changed.
#[inline(never)]
pub fn re_evaluate(context: &PacketContext<'_>, packet: &Packet, entry: &Entry, ruling: &mut Ruling) -> ScalarReturn {
    let (direction, port) = if entry.original {
        (context.direction, packet.destination_port)
    } else {
        (opposite(context.direction), packet.source_port)
    };
    let peer = peer(context, packet);
    let subject = context.subject();
    let mut answer = Answer::not_ready(context.enforces());
    judge(subject, packet, peer, direction, Some(port), &mut answer);
    if answer.reason == KernelReason::PolicyNotReady {
        return scalar_return();
    }
    let record = if !allowed_in_any_mode(entry.get()) {
        let same = entry.has_answer(&answer);
        entry.update(&answer, context) && !same
    } else if answer.verdict == Verdict::Denied {
        answer.verdict = Verdict::Allowed;
        answer.reason = KernelReason::EstablishedStale;
        entry.mark_stale(context)
    } else {
        entry.update(&answer, context);
        false
    };
    *ruling = Ruling { answer, record, reversed: !entry.original, peer, owner: owner_of(subject), ..Ruling::PASS };
    scalar_return()
}

/// Sets the verdict of a later fragment to that of the first; if that is not known, judges it for all ports together.
#[inline(never)]
pub fn rule_later_fragment(context: &PacketContext<'_>, packet: &mut Packet, ruling: &mut Ruling) -> ScalarReturn {
    let answer = Answer::not_ready(context.enforces());
    let mut first = fragments::First { answer, dropped: false, source_port: 0, destination_port: 0 };
    if fragments::find(packet, context, &mut first) {
        if first.dropped {
            packet.source_port = first.source_port;
            packet.destination_port = first.destination_port;
            let peer = peer(context, packet);
            *ruling = Ruling { answer: first.answer, record: true, peer, ..Ruling::PASS };
        }
        return scalar_return();
    }
    let peer = peer(context, packet);
    let subject = context.subject();
    let mut answer = answer;
    judge(subject, packet, peer, context.direction, None, &mut answer);
    *ruling = Ruling { answer, record: true, peer, owner: owner_of(subject), ..Ruling::PASS };
    // The fragments after this one follow it without a record of their own. The first fragment overwrites it if it
    // still comes.
    ruling.for_fragments = true;
    scalar_return()
}

/// Denies a packet whose source address is not the pod's own. `tuple` is `None` for a fragment without ports.
#[inline(never)]
pub fn rule_spoofed_source(
    context: &PacketContext<'_>,
    packet: &Packet,
    tuple: Option<&FlowTuple>,
    entry: Option<&Entry>,
    ruling: &mut Ruling,
) -> ScalarReturn {
    // The owner of the address that the pod uses; the endpoint's owner identifies the sender.
    let claimed = find_peer(&packet.source, context.revision, !0).owner;
    let mut spoofed = Ruling { peer: peer(context, packet), owner: claimed, ..Ruling::PASS };
    spoofed.deny(KernelReason::SpoofedSource);
    if let Some(tuple) = tuple
        && !context.enforces()
    {
        if let Some(entry) = entry
            && entry.has_answer(&spoofed.answer)
        {
            entry.touch(packet, context);
            return scalar_return();
        }
        tuple.open(packet, context, &spoofed.answer, false).consume();
    }
    *ruling = spoofed;
    scalar_return()
}

/// Whether an ICMP error quotes a packet of a connection that passes.
#[inline(never)]
pub fn is_related(context: &PacketContext<'_>, packet: &Packet, quoted: &mut Packet) -> bool {
    *quoted = *packet;
    parse::quoted::read_over(context.skb, quoted) && FlowTuple::of(quoted, context.ifindex).find(context).is_some()
}

/// Whether the packet may belong to a TCP connection that began before the probe was attached (E-10b).
#[inline(always)]
fn may_be_midstream(context: &PacketContext<'_>, subject: Option<&Subject>, packet: &Packet) -> bool {
    let Some(subject) = subject else { return false };
    packet.protocol == protocol::TCP
        && !packet.is_connection_request()
        && context.now < subject.attached_at.saturating_add(context.settings.midstream_window)
}

/// The end of the packet that is not the pod.
#[inline(always)]
fn peer(context: &PacketContext<'_>, packet: &Packet) -> Peer {
    let address = if context.is_egress() { &packet.destination } else { &packet.original_source };
    find_peer(address, context.revision, if context.translated { !peer_flag::SERVICE } else { !0 })
}

/// Looks the flow up in the tables. Leaves `answer` ("not ready") unchanged if the endpoint is not ready or an entry is
/// missing.
#[inline(always)]
fn judge(
    subject: Option<&Subject>,
    packet: &Packet,
    peer: Peer,
    direction: Direction,
    port: Option<u16>,
    answer: &mut Answer,
) {
    if let Some(Subject { classes, .. }) = subject {
        if is_hairpin(packet) {
            *answer = Answer { verdict: Verdict::Allowed, reason: KernelReason::SelfTraffic, attribution: 0 };
            return;
        }
        decide(&Question { classes, peer, direction, protocol: packet.protocol, port }, answer).consume();
    }
}

#[inline(always)]
fn owner_of(subject: Option<&Subject>) -> u32 {
    subject.map_or(0, |subject| subject.owner)
}

#[inline(always)]
fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}
