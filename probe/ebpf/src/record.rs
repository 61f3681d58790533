//! Writes the event of a ruling. Where the ruling is for the other orientation the event is too: direction, ends and
//! ports are those of the flow that was judged, not of the packet that was seen.

use netverdict_abi::{
    Direction, Disposition, KernelReason, Lane, LossClass, Verdict, VerdictEvent, event::flag, map::peer_flag,
};

use crate::{
    emit, flooded,
    packet::{Fragment, Packet, bytes, protocol},
    packet_context::PacketContext,
    ruling::Ruling,
    subprogram::{ScalarReturn, scalar_return},
};

#[inline(never)]
pub fn write(context: &PacketContext<'_>, packet: &Packet, ruling: &Ruling, dropped: bool) -> ScalarReturn {
    if flooded::is_flooded(context, packet) {
        if dropped {
            emit::count_loss(LossClass::Flooded, context.ifindex);
        }
        return scalar_return();
    }
    let Ruling { answer, reversed, peer, .. } = ruling;
    let is_spoofed = answer.reason == KernelReason::SpoofedSource;
    let endpoint_owner = if ruling.owner == 0 || is_spoofed { context.owner() } else { ruling.owner };
    let own = match answer.reason {
        KernelReason::SpoofedSource => ruling.owner,
        // The addresses were not looked up.
        KernelReason::Malformed | KernelReason::ShortFragment => 0,
        _ => endpoint_owner,
    };
    let egress = context.is_egress() != *reversed;
    let lane = if answer.verdict == Verdict::Denied { Lane::Denied } else { Lane::Flow };
    emit::send(context, lane, |event| {
        event.direction = if egress { Direction::Egress } else { Direction::Ingress } as u8;
        event.attribution = answer.attribution;
        write_ends(packet, *reversed, event);
        (event.source_owner, event.destination_owner) = if egress { (own, peer.owner) } else { (peer.owner, own) };
        event.endpoint_owner = endpoint_owner;
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
        event.length = context.length;
    });
    scalar_return()
}

/// The ends of the flow that was judged, and how they were translated.
#[inline(always)]
fn write_ends(packet: &Packet, reversed: bool, event: &mut VerdictEvent) {
    let has_ports = matches!(packet.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    let port = |port: u16| if has_ports { port } else { 0 };
    if reversed {
        event.source = bytes(packet.destination);
        event.source_port = port(packet.destination_port);
        event.destination = bytes(packet.original_source);
        event.destination_port = port(packet.original_source_port);
        // A Service's answer: the request was addressed to the translated source.
        if packet.has_translated_source() {
            event.original_destination = bytes(packet.source);
            event.original_destination_port = port(packet.source_port);
        }
        return;
    }
    event.source = bytes(packet.original_source);
    event.source_port = port(packet.original_source_port);
    event.destination = bytes(packet.destination);
    event.destination_port = port(packet.destination_port);
    if packet.has_translated_source() {
        event.translated_source = bytes(packet.source);
        event.translated_source_port = port(packet.source_port);
    }
    if packet.has_translated_destination() {
        event.original_destination = bytes(packet.original_destination);
        event.original_destination_port = port(packet.original_destination_port);
    }
}
