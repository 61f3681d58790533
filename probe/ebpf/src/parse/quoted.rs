//! The packet that an ICMP error quotes: enough fields to find its connection. A quotation is truncated, so the lengths
//! in its headers are not checked.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

use super::{
    ip::{self, MALFORMED, SHORT_FRAGMENT, V4Header, V6Header},
    transport,
};
use crate::packet::{Fragment, Packet, v4_words};

/// Length of the ICMP header, which precedes the quotation.
const ICMP_LENGTH: u32 = 8;

/// Replaces the fields of an ICMP error with those of the packet that it quotes. False if the quotation is missing or
/// is a fragment without ports, or if the error is not addressed to the sender of the quoted packet. Not inlined, to
/// keep the caller's stack frame small.
#[inline(never)]
pub fn read_over(skb: *mut __sk_buff, packet: &mut Packet) -> bool {
    let ctx = TcContext::new(skb);
    let receiver = packet.destination;
    let offset = packet.transport.saturating_add(ICMP_LENGTH);
    let start = if packet.family == 4 {
        let Ok(header) = ctx.load::<V4Header>(offset as usize) else { return false };
        let Some(length) = header.length() else { return false };
        if header.fragment_offset() != 0 {
            return false;
        }
        packet.source = v4_words(header.source);
        packet.destination = v4_words(header.destination);
        packet.protocol = header.protocol;
        offset + length
    } else {
        let Ok(header) = ctx.load::<V6Header>(offset as usize) else { return false };
        packet.source = header.source;
        packet.destination = header.destination;
        packet.protocol = header.next_header;
        let start = offset + size_of::<V6Header>() as u32;
        if ip::is_extension(header.next_header) {
            packet.fragment = Fragment::Whole;
            match ip::skip_extensions(skb, packet, start, ctx.len()) {
                MALFORMED | SHORT_FRAGMENT => return false,
                _ if packet.fragment == Fragment::Later => return false,
                start => start,
            }
        } else {
            start
        }
    };
    packet.source == receiver && transport::read_quoted(&ctx, packet, start)
}
