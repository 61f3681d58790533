//! The way of one packet: parse it, check its source address, handle neighbour discovery and later fragments, find its
//! connection, otherwise look it up in the tables; then record it, and forward or drop it. A packet to a pod is first
//! judged as its sender's egress where that could not be done when it was sent, see [`crate::source_side`].
//!
//! Everything but the path of a packet of a known connection is in functions that are not inlined, so that their stack
//! frames share the 512 bytes that a program has.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    programs::TcContext,
};
use netverdict_abi::{
    Direction, KernelReason, Peer, Unresolved, Verdict,
    map::{
        connection_flag::{RESOLVED, UNRESOLVED},
        peer_flag,
    },
};

use crate::{
    answers,
    connections::{Entry, FlowTuple, allowed_in_any_mode},
    conntrack::{self, Tracking},
    decide::{Answer, Question, decide, find_peer},
    fragments, maps, own_node, own_source,
    packet::{Fragment, Packet, Refusal, protocol},
    packet_context::PacketContext,
    parse::{self, Link},
    record,
    ruling::Ruling,
    source_side,
    subject::Subject,
    subprogram::{ScalarReturn, scalar_return},
};

/// `TCX_NEXT`: the next program on the hook decides.
pub const PASS: i32 = -1;
pub const DROP: i32 = TC_ACT_SHOT as i32;

/// What is left to do for a packet.
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
    let stage = match parse::read(packet, skb, Link::Ethernet) {
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

/// Rules the packets that no table need be asked about.
#[inline(never)]
fn rule_known(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    quoted: &mut Packet,
    direction: Direction,
    ruling: &mut Ruling,
) -> Stage {
    let Some(context) = PacketContext::new(skb, direction) else { return Stage::Pass };
    rule(&context, packet, quoted, ruling)
}

#[inline(never)]
fn rule_unknown(skb: *mut __sk_buff, packet: &Packet, direction: Direction, ruling: &mut Ruling) -> ScalarReturn {
    let Some(context) = PacketContext::new(skb, direction) else { return scalar_return() };
    let tuple = FlowTuple::of(packet, context.ifindex);
    let entry = tuple.find(&context);
    rule_new_flow(&context, packet, &tuple, entry.as_ref(), ruling).consume();
    scalar_return()
}

#[inline(never)]
fn rule_changed(skb: *mut __sk_buff, packet: &Packet, direction: Direction, ruling: &mut Ruling) -> ScalarReturn {
    let Some(context) = PacketContext::new(skb, direction) else { return scalar_return() };
    if let Some(entry) = FlowTuple::of(packet, context.ifindex).find(&context) {
        re_evaluate(&context, packet, &entry, ruling).consume();
        entry.touch(packet, &context);
    }
    scalar_return()
}

/// Records the ruling of an endpoint, and forwards or drops the packet.
#[inline(never)]
pub fn conclude(skb: *mut __sk_buff, packet: &Packet, ruling: &Ruling, ifindex: u32, direction: Direction) -> i32 {
    let Some(context) = PacketContext::of_endpoint(skb, ifindex, direction) else { return PASS };
    let dropped = ruling.answer.verdict == Verdict::Denied && context.enforces();
    if ruling.for_fragments
        || (packet.fragment == Fragment::First && ruling.answer.reason != KernelReason::Malformed)
    {
        fragments::remember(packet, &context, &ruling.answer, dropped).consume();
    }
    if ruling.record {
        record::write(&context, packet, ruling, dropped).consume();
    }
    if dropped { DROP } else { PASS }
}

/// Decides what happens to the packet, or what is left to ask. Leaves `ruling` unchanged if the packet passes without a record.
#[inline(always)]
fn rule(context: &PacketContext<'_>, packet: &mut Packet, quoted: &mut Packet, ruling: &mut Ruling) -> Stage {
    // Skip the source check until the endpoint's address list is complete.
    let own = !context.is_egress() || !context.complete || own_source::is_own(packet, context.ifindex);
    if packet.is_discovery() && (own || own_source::may_discover(packet)) {
        return Stage::Pass;
    }
    if packet.fragment == Fragment::Later {
        // Conntrack knows the ports of what it has reassembled.
        let tracked = !context.is_egress() && conntrack::restore(context.skb, packet) == Tracking::Original;
        if !tracked {
            if own {
                rule_later_fragment(context, packet, ruling).consume();
            } else {
                rule_spoofed_source(context, packet, None, None, ruling).consume();
            }
            return Stage::Ruled;
        }
    }
    let tuple = FlowTuple::of(packet, context.ifindex);
    let entry = tuple.find(context);
    if !own {
        rule_spoofed_source(context, packet, Some(&tuple), entry.as_ref(), ruling).consume();
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
    if packet.is_icmp_error() && is_related(context, packet, quoted) {
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
        if stricter.verdict == Verdict::Denied {
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

/// Gives a later fragment the verdict of the first; if that is not known, judges it for all ports together.
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
fn rule_spoofed_source(
    context: &PacketContext<'_>,
    packet: &Packet,
    tuple: Option<&FlowTuple>,
    entry: Option<&Entry>,
    ruling: &mut Ruling,
) -> ScalarReturn {
    // The owner of the address that the pod uses; the endpoint's owner says who sent the packet.
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
