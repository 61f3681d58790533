//! What happens to one packet, in order: read it, check who sends it, let discovery and later fragments go their way, know
//! its connection again, or else ask the tables; then record and forward or drop.
//!
//! What is not the way of a packet of a known connection stands in functions of its own, never inlined: their frames take
//! turns on the 512 bytes of stack.

use aya_ebpf::{bindings::TC_ACT_SHOT, programs::TcContext};
use netverdict_abi::{Direction, KernelReason, Peer, Verdict};

use crate::{
    connections::{Entry, Place, passes_by_right},
    decide::{Answer, NOBODY, Question, decide, find_peer},
    fragments, maps, own_source,
    packet::{Fragment, Packet, Refusal, protocol, quoted},
    record,
    scene::{Scene, Subject},
    subprogram::{Done, done},
};

/// `TCX_NEXT`: other programs on the hook have their say too.
pub const PASS: i32 = -1;
const DROP: i32 = TC_ACT_SHOT as i32;

#[inline(always)]
pub fn packet(ctx: &TcContext, direction: Direction) -> i32 {
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else { return PASS };
    // SAFETY: this CPU's own element, and nothing else on this CPU uses it meanwhile (see `emit`).
    let [packet, quoted] = unsafe { &mut *scratch };
    let read = packet.read(ctx.skb.skb);
    if matches!(read, Err(Refusal::NotIp)) {
        return PASS;
    }
    let Some(scene) = Scene::set(ctx, direction) else { return PASS };
    let mut ruling = Ruling::PASSES;
    match read {
        Ok(()) => rule(&scene, packet, quoted, &mut ruling),
        Err(Refusal::ShortFragment) => ruling.deny(KernelReason::ShortFragment),
        Err(_) => ruling.deny(KernelReason::Malformed),
    }
    let dropped = ruling.answer.verdict == Verdict::Denied && scene.enforces();
    if packet.fragment == Fragment::First && ruling.answer.reason != KernelReason::Malformed {
        fragments::remember(packet, &scene, &ruling.answer, dropped).noted();
    }
    if ruling.record {
        record::write(&scene, packet, &ruling, dropped).noted();
    }
    if dropped { DROP } else { PASS }
}

/// What is to be done.
pub struct Ruling {
    pub answer: Answer,
    /// One event.
    pub record: bool,
    /// The judgement is of the other orientation: the flow that is recorded runs against this packet.
    pub reversed: bool,
    /// Who the other end is, where it was asked for.
    pub peer: Peer,
    /// Owner id of the endpoint; 0 where it was not asked for.
    pub owner: u32,
}

impl Ruling {
    /// Passes, and is known already or of no interest.
    const PASSES: Self = Self {
        answer: Answer { verdict: Verdict::Allowed, reason: KernelReason::ByPolicy, attribution: 0 },
        record: false,
        reversed: false,
        peer: NOBODY,
        owner: 0,
    };

    #[inline(always)]
    fn deny(&mut self, reason: KernelReason) {
        self.answer = Answer { verdict: Verdict::Denied, reason, attribution: 0 };
        self.record = true;
    }
}

/// Leaves `ruling` as it is where the packet passes unrecorded.
#[inline(always)]
fn rule(scene: &Scene<'_>, packet: &mut Packet, quoted: &mut Packet, ruling: &mut Ruling) {
    // Before the endpoint is complete its addresses need not be either: nobody is called a liar on half a list.
    let own = !scene.is_egress() || !scene.complete || own_source::is_own(packet, scene.ifindex);
    if packet.is_discovery() && (own || own_source::may_discover(packet)) {
        return;
    }
    if packet.fragment == Fragment::Later {
        if own {
            rule_later_fragment(scene, packet, ruling).noted();
        } else {
            rule_spoofed(scene, packet, None, None, ruling).noted();
        }
        return;
    }
    let place = Place::of(packet, scene.ifindex);
    let entry = place.find(scene);
    if !own {
        rule_spoofed(scene, packet, Some(&place), entry.as_ref(), ruling).noted();
        return;
    }
    if let Some(entry) = &entry
        && !begins_anew(packet, entry)
    {
        // Before the endpoint is complete there is nothing to judge by.
        if entry.get().revision != scene.revision && scene.complete {
            review(scene, packet, entry, ruling).noted();
        }
        entry.touch(packet, scene);
        return;
    }
    if packet.is_icmp_error() && is_related(scene, packet, quoted) {
        return;
    }
    rule_new(scene, packet, &place, entry.as_ref(), ruling).noted();
}

/// A packet that an entry does not answer for: one that asks for a connection, and an echo request that only looks like
/// a reply because both ends use the identifier 0.
#[inline(always)]
fn begins_anew(packet: &Packet, entry: &Entry) -> bool {
    packet.asks_for_connection() || (!entry.original && packet.is_echo_request())
}

/// A flow of which nothing is known yet, or one that asks to be judged again.
#[inline(never)]
fn rule_new(scene: &Scene<'_>, packet: &Packet, place: &Place, entry: Option<&Entry>, ruling: &mut Ruling) -> Done {
    let peer = peer(scene, packet);
    let subject = scene.subject();
    let mut answer = Answer::not_ready(scene.enforces());
    judge(subject, packet, peer, scene.direction, Some(packet.destination_port), &mut answer);
    let mut reversed = false;
    if answer.verdict == Verdict::Denied && may_be_midstream(scene, subject, packet) {
        let mut reverse = answer;
        judge(subject, packet, peer, opposite(scene.direction), Some(packet.source_port), &mut reverse);
        if reverse.verdict != Verdict::Denied {
            answer = reverse;
            reversed = true;
            if answer.verdict == Verdict::Allowed {
                answer.reason = KernelReason::Midstream;
            }
        }
    }
    let mut record = true;
    if answer.verdict != Verdict::Denied || !scene.enforces() {
        match entry {
            // A request sent again is no new flow.
            Some(entry) if entry.awaits_answer() && entry.agrees(&answer) => {
                entry.take_on(&answer, scene);
                entry.touch(packet, scene);
                record = false;
            }
            _ => place.open(packet, scene, &answer, reversed).noted(),
        }
    }
    *ruling = Ruling { answer, record, reversed, peer, owner: owner_of(subject) };
    done()
}

/// A connection that passes, but was judged by older tables: its original direction is judged again. What may pass keeps
/// passing (E-10), and only what has to be known is recorded.
#[inline(never)]
fn review(scene: &Scene<'_>, packet: &Packet, entry: &Entry, ruling: &mut Ruling) -> Done {
    let (direction, port) = if entry.original {
        (scene.direction, packet.destination_port)
    } else {
        (opposite(scene.direction), packet.source_port)
    };
    let peer = peer(scene, packet);
    let subject = scene.subject();
    let mut answer = Answer::not_ready(scene.enforces());
    judge(subject, packet, peer, direction, Some(port), &mut answer);
    if answer.reason == KernelReason::PolicyNotReady {
        return done();
    }
    let record = if !passes_by_right(entry.get()) {
        let same = entry.agrees(&answer);
        entry.take_on(&answer, scene) && !same
    } else if answer.verdict == Verdict::Denied {
        answer.verdict = Verdict::Allowed;
        answer.reason = KernelReason::EstablishedStale;
        entry.grow_stale(scene)
    } else {
        entry.take_on(&answer, scene);
        false
    };
    *ruling = Ruling { answer, record, reversed: !entry.original, peer, owner: owner_of(subject) };
    done()
}

/// Follows the first fragment; without one, the tables say what holds for all ports.
#[inline(never)]
fn rule_later_fragment(scene: &Scene<'_>, packet: &mut Packet, ruling: &mut Ruling) -> Done {
    let answer = Answer::not_ready(scene.enforces());
    let mut first = fragments::First { answer, dropped: false, source_port: 0, destination_port: 0 };
    if fragments::find(packet, scene, &mut first) {
        if first.dropped {
            packet.source_port = first.source_port;
            packet.destination_port = first.destination_port;
            let peer = peer(scene, packet);
            *ruling = Ruling { answer: first.answer, record: true, reversed: false, peer, owner: 0 };
        }
        return done();
    }
    let peer = peer(scene, packet);
    let subject = scene.subject();
    let mut answer = answer;
    judge(subject, packet, peer, scene.direction, None, &mut answer);
    let dropped = answer.verdict == Verdict::Denied && scene.enforces();
    // One record for those that pass; the first fragment, if it still comes, takes its place.
    fragments::remember(packet, scene, &answer, dropped).noted();
    *ruling = Ruling { answer, record: true, reversed: false, peer, owner: owner_of(subject) };
    done()
}

/// Not the pod's own source. `place` is None where no port is known.
#[inline(never)]
fn rule_spoofed(
    scene: &Scene<'_>,
    packet: &Packet,
    place: Option<&Place>,
    entry: Option<&Entry>,
    ruling: &mut Ruling,
) -> Done {
    let mut spoofed = Ruling { peer: peer(scene, packet), ..Ruling::PASSES };
    spoofed.deny(KernelReason::SpoofedSource);
    if let Some(place) = place
        && !scene.enforces()
    {
        if let Some(entry) = entry
            && entry.agrees(&spoofed.answer)
        {
            entry.touch(packet, scene);
            return done();
        }
        place.open(packet, scene, &spoofed.answer, false).noted();
    }
    *ruling = spoofed;
    done()
}

/// An ICMP error about a connection that passes.
#[inline(never)]
fn is_related(scene: &Scene<'_>, packet: &Packet, quoted: &mut Packet) -> bool {
    *quoted = *packet;
    quoted::read_over(scene.skb, quoted) && Place::of(quoted, scene.ifindex).find(scene).is_some()
}

/// TCP under way that the probe did not see begin, soon after it came (E-10b).
#[inline(always)]
fn may_be_midstream(scene: &Scene<'_>, subject: Option<&Subject>, packet: &Packet) -> bool {
    let Some(subject) = subject else { return false };
    packet.protocol == protocol::TCP
        && !packet.asks_for_connection()
        && scene.now < subject.attached_at.saturating_add(scene.settings.midstream_window)
}

/// The other end of the packet, whichever way it runs.
#[inline(always)]
fn peer(scene: &Scene<'_>, packet: &Packet) -> Peer {
    let address = if scene.is_egress() { &packet.destination } else { &packet.source };
    find_peer(address, scene.revision)
}

/// Leaves `answer` as it is, not ready, where the endpoint is not or its tables have a hole.
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
        decide(&Question { classes, peer, direction, protocol: packet.protocol, port }, answer).noted();
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
