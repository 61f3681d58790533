//! Transport headers. An incomplete header makes the packet malformed, or in a first fragment a short fragment.
//!
//! ICMP has no ports, so the connection key uses substitutes. Echo: the identifier as the requester's port and 0 as the
//! responder's, so that two ends which ping each other with the same identifier have two connections. Any other type:
//! the type as the sender's port and 0xffff as the receiver's, so that no packet is a reply to it.

use aya_ebpf::programs::TcContext;

use super::frame::{Payload, load};
use crate::packet::{Fragment, Packet, Refusal, protocol};

const NO_REPLY: u16 = 0xffff;

#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    source_port: u16,
    destination_port: u16,
    _sequence: u32,
    _acknowledgement: u32,
    /// Length of the header in words, in the upper four bits.
    data_offset: u8,
    flags: u8,
    _window: u16,
}
const TCP_LENGTH: u32 = 20;

#[repr(C)]
#[derive(Clone, Copy)]
struct Udp {
    source_port: u16,
    destination_port: u16,
    length: u16,
    _checksum: u16,
}
const UDP_LENGTH: u32 = 8;

const SCTP_LENGTH: u32 = 12;

#[repr(C)]
#[derive(Clone, Copy)]
struct Icmp {
    kind: u8,
    code: u8,
    _checksum: u16,
    identifier: u16,
    _sequence: u16,
}
const ICMP_LENGTH: u32 = 8;

#[inline(always)]
pub fn read(ctx: &TcContext, packet: &mut Packet, payload: Payload) -> Result<(), Refusal> {
    packet.transport = payload.start;
    if packet.fragment == Fragment::Later {
        return Ok(());
    }
    let short = if packet.fragment == Fragment::First { Refusal::ShortFragment } else { Refusal::Malformed };
    // No underflow: parsing the IP headers ensured `start` ≤ `end`.
    let length = payload.end - payload.start;
    match packet.protocol {
        protocol::TCP => {
            if length < TCP_LENGTH {
                return Err(short);
            }
            let header: Tcp = load(ctx, payload.start).ok_or(short)?;
            set_ports(packet, header.source_port, header.destination_port);
            packet.tcp_flags = header.flags;
            let stated = u32::from(header.data_offset >> 4) * 4;
            if stated < TCP_LENGTH {
                return Err(Refusal::Malformed);
            }
            if stated > length {
                return Err(short);
            }
        }
        protocol::UDP => {
            if length < UDP_LENGTH {
                return Err(short);
            }
            let header: Udp = load(ctx, payload.start).ok_or(short)?;
            set_ports(packet, header.source_port, header.destination_port);
            let stated = u32::from(u16::from_be(header.length));
            // A datagram too long for the length field states 0 (RFC 2675).
            let too_short = stated < UDP_LENGTH && !(stated == 0 && length > u32::from(u16::MAX));
            if too_short || (stated > length && packet.fragment == Fragment::Whole) {
                return Err(Refusal::Malformed);
            }
        }
        protocol::SCTP => {
            if length < SCTP_LENGTH {
                return Err(short);
            }
            let [source_port, destination_port]: [u16; 2] = load(ctx, payload.start).ok_or(short)?;
            set_ports(packet, source_port, destination_port);
        }
        protocol::ICMP | protocol::ICMPV6 if packet.is_icmp() => {
            if length < ICMP_LENGTH {
                return Err(short);
            }
            let header: Icmp = load(ctx, payload.start).ok_or(short)?;
            packet.icmp_type = header.kind;
            packet.icmp_code = header.code;
            set_icmp_ports(packet, u16::from_be(header.identifier));
        }
        _ => {}
    }
    Ok(())
}

/// Reads the ports of a quoted packet, from the eight bytes that an ICMP error must quote; false if they are missing.
#[inline(always)]
pub fn read_quoted(ctx: &TcContext, packet: &mut Packet, start: u32) -> bool {
    match packet.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let Ok([source_port, destination_port]) = ctx.load::<[u16; 2]>(start as usize) else { return false };
            set_ports(packet, source_port, destination_port);
        }
        protocol::ICMP | protocol::ICMPV6 if packet.is_icmp() => {
            let Ok(header) = ctx.load::<Icmp>(start as usize) else { return false };
            packet.icmp_type = header.kind;
            set_icmp_ports(packet, u16::from_be(header.identifier));
        }
        _ => {}
    }
    true
}

#[inline(always)]
fn set_ports(packet: &mut Packet, source: u16, destination: u16) {
    packet.source_port = u16::from_be(source);
    packet.destination_port = u16::from_be(destination);
}

#[inline(always)]
fn set_icmp_ports(packet: &mut Packet, identifier: u16) {
    let echo_reply = if packet.family == 4 { 0 } else { 129 };
    (packet.source_port, packet.destination_port) = if packet.is_echo_request() {
        (identifier, 0)
    } else if packet.icmp_type == echo_reply {
        (0, identifier)
    } else {
        (u16::from(packet.icmp_type), NO_REPLY)
    };
}
