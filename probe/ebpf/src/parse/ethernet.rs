//! The link layer: an Ethernet header with up to two VLAN tags. (A tag that the network device removed is not in the frame.)

use aya_ebpf::programs::TcContext;

use super::frame::load;
use crate::packet::Refusal;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const ADDRESSES_LENGTH: u32 = 12;
const TAG_LENGTH: u32 = 4;

pub enum Version {
    V4,
    V6,
}

/// The IP version of the frame, and the offset of the IP header. A third tag is refused rather than passed, because any
/// packet could follow it.
#[inline(always)]
pub fn strip(ctx: &TcContext) -> Result<(Version, u32), Refusal> {
    let mut offset = ADDRESSES_LENGTH;
    let mut ethertype = ethertype_at(ctx, offset)?;
    for _ in 0..2 {
        if !TAGS.contains(&ethertype) {
            break;
        }
        offset += TAG_LENGTH;
        ethertype = ethertype_at(ctx, offset)?;
    }
    match ethertype {
        IPV4 => Ok((Version::V4, offset + 2)),
        IPV6 => Ok((Version::V6, offset + 2)),
        tag if TAGS.contains(&tag) => Err(Refusal::Malformed),
        _ => Err(Refusal::NotIp),
    }
}

/// The IP version of a packet without a link-layer header.
#[inline(always)]
pub fn of_bare_packet(ctx: &TcContext) -> Result<Version, Refusal> {
    // SAFETY: the context is the kernel's. Network order in the low half.
    let protocol = unsafe { (*ctx.skb.skb).protocol } as u16;
    match u16::from_be(protocol) {
        IPV4 => Ok(Version::V4),
        IPV6 => Ok(Version::V6),
        _ => Err(Refusal::NotIp),
    }
}

#[inline(always)]
fn ethertype_at(ctx: &TcContext, offset: u32) -> Result<u16, Refusal> {
    load::<u16>(ctx, offset).map(u16::from_be).ok_or(Refusal::Malformed)
}
