//! IPv4 with options, IPv6 with extension headers, and the fragment fields of both.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

use super::frame::{Payload, load};
use crate::packet::{Fragment, Packet, Refusal, protocol, v4_words};

/// The longest packet whose IP header states its length. Longer ones (BIG TCP) state 0 and are segmented later.
const LONGEST_STATED: u32 = 65_535;
/// The most extension headers that are followed.
const LONGEST_CHAIN: u32 = 8;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct V4Header {
    pub version_and_length: u8,
    _service: u8,
    pub total_length: u16,
    pub identification: u16,
    pub fragment: u16,
    _time_to_live: u8,
    pub protocol: u8,
    _checksum: u16,
    pub source: u32,
    pub destination: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct V6Header {
    pub version_class_flow: [u8; 4],
    pub payload_length: u16,
    pub next_header: u8,
    _hop_limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

impl V4Header {
    /// Length of the header in bytes, options included; `None` if this is not an IPv4 header.
    #[inline(always)]
    pub fn length(&self) -> Option<u32> {
        let words = u32::from(self.version_and_length & 0x0f);
        (self.version_and_length >> 4 == 4 && words >= 5).then_some(words * 4)
    }

    /// Offset of this fragment's payload in the original packet, in bytes.
    #[inline(always)]
    pub fn fragment_offset(&self) -> u32 {
        u32::from(u16::from_be(self.fragment) & 0x1fff) * 8
    }

    #[inline(always)]
    fn more_fragments(&self) -> bool {
        u16::from_be(self.fragment) & 0x2000 != 0
    }
}

#[inline(always)]
pub fn read_v4(ctx: &TcContext, packet: &mut Packet, offset: u32) -> Result<Payload, Refusal> {
    let header: V4Header = load(ctx, offset).ok_or(Refusal::Malformed)?;
    packet.family = 4;
    packet.source = v4_words(header.source);
    packet.destination = v4_words(header.destination);
    packet.protocol = header.protocol;
    let length = header.length().ok_or(Refusal::Malformed)?;
    // No underflow: the load above proved that the frame is longer than `offset`.
    let available = ctx.len() - offset;
    let total = stated_length(u16::from_be(header.total_length), available);
    if total < length || total > available {
        return Err(Refusal::Malformed);
    }
    let fragment_offset = header.fragment_offset();
    if fragment_offset != 0 || header.more_fragments() {
        packet.identification = u32::from(u16::from_be(header.identification));
        note_fragment(packet, fragment_offset)?;
    }
    Ok(Payload { start: offset + length, end: offset + total })
}

#[inline(always)]
pub fn read_v6(ctx: &TcContext, packet: &mut Packet, offset: u32) -> Result<Payload, Refusal> {
    let header: V6Header = load(ctx, offset).ok_or(Refusal::Malformed)?;
    packet.family = 6;
    packet.source = header.source;
    packet.destination = header.destination;
    packet.protocol = header.next_header;
    if header.version_class_flow[0] >> 4 != 6 {
        return Err(Refusal::Malformed);
    }
    let start = offset + size_of::<V6Header>() as u32;
    let available = ctx.len() - start;
    let stated = stated_length(u16::from_be(header.payload_length), available);
    if stated > available {
        return Err(Refusal::Malformed);
    }
    let end = start + stated;
    if !is_extension(header.next_header) {
        return Ok(Payload { start, end });
    }
    match skip_extensions(ctx.skb.skb, packet, start, end) {
        MALFORMED => Err(Refusal::Malformed),
        SHORT_FRAGMENT => Err(Refusal::ShortFragment),
        start => Ok(Payload { start, end }),
    }
}

/// The length that the header states, or the whole rest of the frame for a BIG TCP packet, which states 0.
#[inline(always)]
fn stated_length(stated: u16, available: u32) -> u32 {
    if stated == 0 && available > LONGEST_STATED { available } else { u32::from(stated) }
}

/// Notes the kind of fragment. A later fragment that overlaps the transport header of the first is refused (RFC 3128):
/// receivers differ in which of the two they keep, so the judged header might not be the header that they use.
#[inline(always)]
fn note_fragment(packet: &mut Packet, fragment_offset: u32) -> Result<(), Refusal> {
    if fragment_offset == 0 {
        packet.fragment = Fragment::First;
        return Ok(());
    }
    packet.fragment = Fragment::Later;
    let header = match packet.protocol {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        _ => 8,
    };
    if fragment_offset < header { Err(Refusal::Malformed) } else { Ok(()) }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

#[inline(always)]
pub fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Results of [`skip_extensions`] that no offset in a frame can reach.
pub const MALFORMED: u32 = u32::MAX;
pub const SHORT_FRAGMENT: u32 = u32::MAX - 1;

/// Follows the chain of extension headers from `offset`, where a header of kind `packet.protocol` begins, up to `end`.
/// Sets the protocol and the fragment fields of `packet`. Returns the offset of the transport header, [`MALFORMED`] or
/// [`SHORT_FRAGMENT`]. Not inlined: the verifier would follow every path through the loop once per caller.
#[inline(never)]
pub fn skip_extensions(skb: *mut __sk_buff, packet: &mut Packet, mut offset: u32, end: u32) -> u32 {
    let ctx = TcContext::new(skb);
    for _ in 0..LONGEST_CHAIN {
        let kind = packet.protocol;
        if !is_extension(kind) {
            return offset;
        }
        let cut = if packet.fragment == Fragment::First { SHORT_FRAGMENT } else { MALFORMED };
        if offset.saturating_add(8) > end {
            return cut;
        }
        let Ok(header) = ctx.load::<[u32; 2]>(offset as usize) else { return cut };
        let [next_header, length, ..] = header[0].to_ne_bytes();
        packet.protocol = next_header;
        offset += match kind {
            FRAGMENT => {
                if packet.fragment != Fragment::Whole {
                    return MALFORMED;
                }
                let fields = u32::from_be(header[0]) & 0xffff;
                let fragment_offset = fields & 0xfff8;
                // A fragment header with offset 0 and no more fragments (atomic fragment, RFC 6946) is a whole packet.
                if fragment_offset != 0 || fields & 1 != 0 {
                    packet.identification = u32::from_be(header[1]);
                    if note_fragment(packet, fragment_offset).is_err() {
                        return MALFORMED;
                    }
                }
                if packet.fragment == Fragment::Later {
                    return offset + 8;
                }
                8
            }
            AUTHENTICATION => (u32::from(length) + 2) * 4,
            _ => (u32::from(length) + 1) * 8,
        };
        if offset > end {
            return cut;
        }
    }
    if is_extension(packet.protocol) { MALFORMED } else { offset }
}
