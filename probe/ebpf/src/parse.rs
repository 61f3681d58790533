//! Parses a frame into a [`Packet`]. The parser is strict: a packet whose headers contradict each other is refused, and
//! the refusal is recorded. It decides nothing else.

mod ethernet;
mod frame;
mod ip;
pub mod quoted;
pub mod transport;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

use crate::{
    packet::{Packet, Refusal},
    subprogram::zero,
};

/// The header before the IP header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    /// Nothing.
    Bare,
}

/// Parses the frame. After a refusal `packet` holds the fields that were read before it, and 0 in the others; after
/// [`Refusal::NotIp`] all fields are 0.
#[inline(never)]
pub fn read(packet: &mut Packet, skb: *mut __sk_buff, link: Link) -> Result<(), Refusal> {
    let ctx = &TcContext::new(skb);
    // SAFETY: every field is a number, and 0 is `Fragment::Whole`.
    unsafe { zero(packet) };
    let (version, offset) = match link {
        Link::Ethernet => ethernet::strip(ctx)?,
        Link::Bare => (ethernet::of_bare_packet(ctx)?, 0),
    };
    let payload = match version {
        ethernet::Version::V4 => ip::read_v4(ctx, packet, offset)?,
        ethernet::Version::V6 => ip::read_v6(ctx, packet, offset)?,
    };
    let refused = transport::read(ctx, packet, payload);
    packet.assume_untranslated();
    refused
}
