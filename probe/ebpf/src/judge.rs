//! What happens to one packet, in order: read it, check who sends it, let discovery and later fragments go their way, know
//! its connection again, or else ask the tables; then record and forward or drop.

use aya_ebpf::{bindings::TC_ACT_SHOT, programs::TcContext};
use netverdict_abi::{
    Direction, Disposition, Endpoint, KernelReason, Lane, Peer, Verdict,
    event::flag,
    map::peer_flag,
};

use crate::{
    connections::{Entry, Place, passes_by_right},
    decide::{Answer, Question, decide, find_peer},
    emit, fragments, maps,
    node::Node,
    own_source,
    packet::{Fragment, Packet, Refusal, bytes, protocol, quoted},
};

/// `TCX_NEXT`: other programs on the hook have their say too.
pub const PASS: i32 = -1;
const DROP: i32 = TC_ACT_SHOT as i32;

#[inline(always)]
pub fn packet(ctx: &TcContext, direction: Direction) -> i32 {
    let mut packet = Packet::EMPTY;
    let read = packet.read(ctx);
    if matches!(read, Err(Refusal::NotIp)) {
        return PASS;
    }
    let Some(node) = Node::now() else { return PASS };
    // SAFETY: the context is the kernel's.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: a value is replaced as a whole, never written in place.
    let endpoint = unsafe { maps::ENDPOINTS.get(ifindex) }.filter(|endpoint| endpoint.ready != 0);
    let scene = Scene { ctx, node, ifindex, direction, endpoint, length: ctx.len() };
    let ruling = match read {
        Ok(()) => scene.rule(&mut packet),
        Err(Refusal::ShortFragment) => Ruling::denied(KernelReason::ShortFragment),
        Err(_) => Ruling::denied(KernelReason::Malformed),
    };
    let dropped = ruling.answer.verdict as u8 == Verdict::Denied as u8 && scene.node.enforces();
    if packet.fragment == Fragment::First && ruling.answer.reason as u8 != KernelReason::Malformed as u8 {
        fragments::remember(&packet, direction, ifindex, &ruling.answer, dropped, &scene.node);
    }
    if ruling.record {
        scene.record(&packet, &ruling, dropped);
    }
    if dropped { DROP } else { PASS }
}

/// What holds while one packet is judged.
struct Scene<'a> {
    ctx: &'a TcContext,
    node: Node,
    ifindex: u32,
    direction: Direction,
    /// None until its tables are complete.
    endpoint: Option<&'a Endpoint>,
    /// Of the frame, in bytes.
    length: u32,
}

/// What is to be done.
struct Ruling {
    answer: Answer,
    /// One event.
    record: bool,
    /// The judgement is of the other orientation: the flow that is recorded runs against this packet.
    reversed: bool,
    /// Who the other end is, where it was asked for.
    peer: Peer,
}

const NOBODY: Peer = Peer { identity: 0, owner: 0, flags: 0, reserved: 0 };

impl Ruling {
    /// Passes, and is known already or of no interest.
    const PASSES: Self = Self {
        answer: Answer { verdict: Verdict::Allowed, reason: KernelReason::ByPolicy, attribution: 0 },
        record: false,
        reversed: false,
        peer: NOBODY,
    };

    #[inline(always)]
    fn denied(reason: KernelReason) -> Self {
        let answer = Answer { verdict: Verdict::Denied, reason, attribution: 0 };
        Self { answer, record: true, reversed: false, peer: NOBODY }
    }
}

impl Scene<'_> {
    #[inline(always)]
    fn rule(&self, packet: &mut Packet) -> Ruling {
        // Before the endpoint is complete its addresses need not be either: nobody is called a liar on half a list.
        let own = self.direction as u8 == Direction::Ingress as u8
            || self.endpoint.is_none()
            || own_source::is_own(packet, self.ifindex);
        if packet.is_discovery() && (own || own_source::may_discover(packet)) {
            return Ruling::PASSES;
        }
        if packet.fragment == Fragment::Later {
            return if own { self.rule_later_fragment(packet) } else { self.denied_with_peer(packet) };
        }
        let place = Place::of(packet, self.ifindex);
        let entry = place.find(&self.node);
        if !own {
            return self.rule_spoofed(packet, &place, entry.as_ref());
        }
        if let Some(entry) = &entry
            && !begins_anew(packet, entry)
        {
            let ruling = self.review(packet, entry);
            entry.touch(packet, self.length, &self.node);
            return ruling;
        }
        if packet.is_icmp_error() && self.is_related(packet) {
            return Ruling::PASSES;
        }
        self.rule_new(packet, &place, entry.as_ref())
    }

    /// A flow of which nothing is known yet, or one that asks to be judged again.
    #[inline(always)]
    fn rule_new(&self, packet: &Packet, place: &Place, entry: Option<&Entry>) -> Ruling {
        let peer = self.peer(packet);
        let mut answer = self.judge(packet, peer, self.direction, Some(packet.destination_port));
        let mut reversed = false;
        if answer.verdict as u8 == Verdict::Denied as u8 && self.may_be_midstream(packet) {
            let reverse = self.judge(packet, peer, opposite(self.direction), Some(packet.source_port));
            if reverse.verdict as u8 != Verdict::Denied as u8 {
                answer = reverse;
                reversed = true;
                if answer.verdict as u8 == Verdict::Allowed as u8 {
                    answer.reason = KernelReason::Midstream;
                }
            }
        }
        let mut record = true;
        if answer.verdict as u8 != Verdict::Denied as u8 || !self.node.enforces() {
            match entry {
                // A request sent again is no new flow.
                Some(entry) if entry.awaits_answer() && entry.agrees(&answer) => {
                    entry.take_on(&answer, &self.node);
                    entry.touch(packet, self.length, &self.node);
                    record = false;
                }
                _ => place.open(packet, self.direction, reversed, &answer, self.length, &self.node),
            }
        }
        Ruling { answer, record, reversed, peer }
    }

    /// A packet of a connection that passes. If the tables are newer than its judgement, its original direction is judged
    /// again; what may pass keeps passing (E-10), and only what has to be known is recorded.
    #[inline(always)]
    fn review(&self, packet: &Packet, entry: &Entry) -> Ruling {
        let connection = entry.get();
        if connection.revision == self.node.revision || self.endpoint.is_none() {
            return Ruling::PASSES;
        }
        let (direction, port) = if entry.original {
            (self.direction, packet.destination_port)
        } else {
            (opposite(self.direction), packet.source_port)
        };
        let peer = self.peer(packet);
        let mut answer = self.judge(packet, peer, direction, Some(port));
        if answer.reason as u8 == KernelReason::PolicyNotReady as u8 {
            return Ruling::PASSES;
        }
        let by_right = passes_by_right(connection);
        let record = if !by_right {
            let same = entry.agrees(&answer);
            entry.take_on(&answer, &self.node) && !same
        } else if answer.verdict as u8 == Verdict::Denied as u8 {
            answer.verdict = Verdict::Allowed;
            answer.reason = KernelReason::EstablishedStale;
            entry.grow_stale(&self.node)
        } else {
            entry.take_on(&answer, &self.node);
            false
        };
        Ruling { answer, record, reversed: !entry.original, peer }
    }

    /// Follows the first fragment; without one, the tables say what holds for all ports.
    #[inline(always)]
    fn rule_later_fragment(&self, packet: &mut Packet) -> Ruling {
        if let Some(first) = fragments::find(packet, self.direction, self.ifindex, &self.node) {
            if !first.dropped {
                return Ruling::PASSES;
            }
            packet.source_port = first.source_port;
            packet.destination_port = first.destination_port;
            return Ruling { answer: first.answer, record: true, reversed: false, peer: self.peer(packet) };
        }
        let peer = self.peer(packet);
        let answer = self.judge(packet, peer, self.direction, None);
        let dropped = answer.verdict as u8 == Verdict::Denied as u8 && self.node.enforces();
        // One record for those that pass; the first fragment, if it still comes, takes its place.
        fragments::remember(packet, self.direction, self.ifindex, &answer, dropped, &self.node);
        Ruling { answer, record: true, reversed: false, peer }
    }

    #[inline(always)]
    fn rule_spoofed(&self, packet: &Packet, place: &Place, entry: Option<&Entry>) -> Ruling {
        let ruling = self.denied_with_peer(packet);
        if self.node.enforces() {
            return ruling;
        }
        if let Some(entry) = entry
            && entry.agrees(&ruling.answer)
        {
            entry.touch(packet, self.length, &self.node);
            return Ruling::PASSES;
        }
        place.open(packet, self.direction, false, &ruling.answer, self.length, &self.node);
        ruling
    }

    #[inline(always)]
    fn denied_with_peer(&self, packet: &Packet) -> Ruling {
        Ruling { peer: self.peer(packet), ..Ruling::denied(KernelReason::SpoofedSource) }
    }

    /// The other end of the packet, whichever way it runs.
    #[inline(always)]
    fn peer(&self, packet: &Packet) -> Peer {
        let address = match self.direction {
            Direction::Egress => &packet.destination,
            Direction::Ingress => &packet.source,
        };
        let mut peer = NOBODY;
        find_peer(address, self.node.revision, &mut peer);
        peer
    }

    #[inline(always)]
    fn judge(&self, packet: &Packet, peer: Peer, direction: Direction, port: Option<u16>) -> Answer {
        let mut answer = Answer::not_ready(self.node.enforces());
        if let Some(endpoint) = self.endpoint {
            let revision = self.node.revision;
            let question = Question { endpoint, peer, direction, protocol: packet.protocol, port, revision };
            if !decide(&question, &mut answer) {
                answer = Answer::not_ready(self.node.enforces());
            }
        }
        answer
    }

    /// TCP under way that the probe did not see begin, soon after it came (E-10b).
    #[inline(always)]
    fn may_be_midstream(&self, packet: &Packet) -> bool {
        let Some(endpoint) = self.endpoint else { return false };
        packet.protocol == protocol::TCP
            && !packet.asks_for_connection()
            && self.node.now < endpoint.attached_at.saturating_add(self.node.settings.midstream_window)
    }

    /// An ICMP error about a connection that passes.
    #[inline(always)]
    fn is_related(&self, packet: &Packet) -> bool {
        let mut quoted = *packet;
        quoted::read_over(self.ctx.skb.skb, &mut quoted) && Place::of(&quoted, self.ifindex).find(&self.node).is_some()
    }

    #[inline(always)]
    fn record(&self, packet: &Packet, ruling: &Ruling, dropped: bool) {
        let Ruling { answer, reversed, peer, .. } = ruling;
        let lane = if answer.verdict as u8 == Verdict::Denied as u8 { Lane::Denied } else { Lane::Flow };
        let endpoint_owner = self.endpoint.map_or(0, |endpoint| endpoint.owner);
        let mut own = endpoint_owner;
        match answer.reason {
            // Who it pretends to be.
            KernelReason::SpoofedSource => {
                let mut claimed = NOBODY;
                find_peer(&packet.source, self.node.revision, &mut claimed);
                own = claimed.owner;
            }
            // Nobody looked at the addresses.
            KernelReason::Malformed | KernelReason::ShortFragment => own = 0,
            _ => {}
        }
        let direction = if *reversed { opposite(self.direction) } else { self.direction };
        let has_ports = matches!(packet.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        emit::send(
            |event| {
                event.direction = direction as u8;
                event.attribution = answer.attribution;
                let (source, destination) =
                    if *reversed { (packet.destination, packet.source) } else { (packet.source, packet.destination) };
                event.source = bytes(source);
                event.destination = bytes(destination);
                (event.source_owner, event.destination_owner) = match direction {
                    Direction::Egress => (own, peer.owner),
                    Direction::Ingress => (peer.owner, own),
                };
                event.endpoint_owner = endpoint_owner;
                if has_ports {
                    (event.source_port, event.destination_port) = if *reversed {
                        (packet.destination_port, packet.source_port)
                    } else {
                        (packet.source_port, packet.destination_port)
                    };
                }
                event.protocol = packet.protocol;
                event.family = packet.family;
                event.tcp_flags = packet.tcp_flags;
                event.icmp_type = packet.icmp_type;
                event.icmp_code = packet.icmp_code;
                event.verdict = answer.verdict as u8;
                event.disposition = if dropped { Disposition::Dropped } else { Disposition::Forwarded } as u8;
                event.reason = answer.reason as u8;
                if packet.fragment == Fragment::Later {
                    event.flags |= flag::FRAGMENT;
                }
                if peer.flags & peer_flag::UNKNOWN_POD != 0 {
                    event.flags |= flag::UNKNOWN_POD;
                }
                event.length = self.length;
            },
            lane,
            self.ifindex,
            &self.node,
        );
    }
}

/// A packet that an entry does not answer for: one that asks for a connection, and an echo request that only looks like
/// a reply because both ends use the identifier 0.
#[inline(always)]
fn begins_anew(packet: &Packet, entry: &Entry) -> bool {
    packet.asks_for_connection() || (!entry.original && packet.is_echo_request())
}

#[inline(always)]
fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}
