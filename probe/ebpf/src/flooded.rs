//! Frames for another pod. A bridge that does not know the port of a hardware address floods the frame to every pod;
//! the network stack of the others ignores it. Such frames are judged, because a process in the pod may capture them,
//! but never recorded. Dropped ones are counted.

use aya_ebpf::programs::TcContext;

use crate::{
    own_source,
    packet::{Packet, Words},
    packet_context::PacketContext,
};

/// Of a hardware address, in bytes.
const LENGTH: usize = 6;
/// Bit in the first byte of a hardware address: broadcast or multicast.
const GROUP: u8 = 1;
/// Bit in the same byte, "locally administered": inverted in an interface identifier (RFC 4291, appendix A).
const LOCAL: u8 = 2;

/// Whether neither the frame nor the packet is addressed to the pod or to a group. False until the endpoint's address
/// list is complete.
#[inline(always)]
pub fn is_flooded(context: &PacketContext<'_>, packet: &Packet) -> bool {
    if context.is_egress() || !context.complete || own_source::has(context.ifindex, packet.destination) {
        return false;
    }
    let Ok(receiver) = TcContext::new(context.skb).load::<[u8; LENGTH]>(0) else { return false };
    receiver[0] & GROUP == 0 && !own_source::has(context.ifindex, link_local(receiver))
}

/// The link-local address that an interface derives from its hardware address. User space lists it among the pod's own
/// addresses, so it stands for the hardware address here.
#[inline(always)]
fn link_local([a, b, c, d, e, f]: [u8; LENGTH]) -> Words {
    let word = |bytes: [u8; 4]| u32::from_ne_bytes(bytes);
    [word([0xfe, 0x80, 0, 0]), 0, word([a ^ LOCAL, b, c, 0xff]), word([0xfe, d, e, f])]
}
