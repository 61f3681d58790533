//! The link layer: up to two VLAN tags in the frame (a tag that the device took out is not in it).

use aya_ebpf::programs::TcContext;

use super::{Refusal, load};

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

/// The IP version that the frame announces, and where its header begins. A third tag is refused, not passed: behind it
/// could be anything.
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

#[inline(always)]
fn ethertype_at(ctx: &TcContext, offset: u32) -> Result<u16, Refusal> {
    load::<u16>(ctx, offset).map(u16::from_be).ok_or(Refusal::Malformed)
}
