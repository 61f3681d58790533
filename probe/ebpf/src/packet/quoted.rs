//! The packet that an ICMP error quotes: enough of it to find its connection. A quotation is cut off, so lengths are not
//! believed; what is not there is no quotation.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

use super::{
    Packet,
    ip::{self, MALFORMED, SHORT_FRAGMENT, V4Header, V6Header},
    transport, v4_words,
};

/// Length of the ICMP header before the quotation.
const ICMP_LENGTH: u32 = 8;

/// Reads the quotation of the error `packet` over it, addresses and ports as the quoted packet had them. False where
/// there is none, where the error does not go to the sender of what it quotes, or where a fragment without ports is
/// quoted. A function of its own, so that its stack is not its caller's.
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
            packet.fragment = super::Fragment::Whole;
            match ip::skip_extensions(skb, packet, start, ctx.len()) {
                MALFORMED | SHORT_FRAGMENT => return false,
                _ if packet.fragment == super::Fragment::Later => return false,
                start => start,
            }
        } else {
            start
        }
    };
    packet.source == receiver && transport::read_quoted(&ctx, packet, start)
}
