//! Puts a ruling into an event. Where the ruling is of the other orientation the event is too: direction, ends and ports are
//! those of the flow that was judged, not of the packet that was seen.

use netverdict_abi::{Direction, Disposition, KernelReason, Lane, Verdict, event::flag, map::FLOODED, map::peer_flag};

use crate::{
    decide::find_peer,
    emit, flooded,
    judge::Ruling,
    packet::{Fragment, Packet, bytes, protocol},
    scene::Scene,
    subprogram::{Done, done},
};

#[inline(never)]
pub fn write(scene: &Scene<'_>, packet: &Packet, ruling: &Ruling, dropped: bool) -> Done {
    if flooded::is_flooded(scene, packet) {
        if dropped {
            emit::count_loss(FLOODED, scene.ifindex);
        }
        return done();
    }
    let Ruling { answer, reversed, peer, .. } = ruling;
    let endpoint_owner = if ruling.owner == 0 { scene.owner() } else { ruling.owner };
    let mut own = endpoint_owner;
    match answer.reason {
        // Who it pretends to be.
        KernelReason::SpoofedSource => own = find_peer(&packet.source, scene.revision).owner,
        // Nobody looked at the addresses.
        KernelReason::Malformed | KernelReason::ShortFragment => own = 0,
        _ => {}
    }
    let egress = scene.is_egress() != *reversed;
    let lane = if answer.verdict == Verdict::Denied { Lane::Denied } else { Lane::Flow };
    emit::send(scene, lane, |event| {
        event.direction = if egress { Direction::Egress } else { Direction::Ingress } as u8;
        event.attribution = answer.attribution;
        let (source, destination) =
            if *reversed { (&packet.destination, &packet.source) } else { (&packet.source, &packet.destination) };
        event.source = bytes(*source);
        event.destination = bytes(*destination);
        (event.source_owner, event.destination_owner) = if egress { (own, peer.owner) } else { (peer.owner, own) };
        event.endpoint_owner = endpoint_owner;
        if matches!(packet.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
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
        event.length = scene.length;
    });
    done()
}
