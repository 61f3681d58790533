//! Frames for somebody else: a bridge that does not know where a hardware address is floods them to every pod on it. The
//! pod's own network stack ignores them. They are judged, for whatever may listen behind the pod, and never recorded; those
//! that are dropped are counted.

use aya_ebpf::programs::TcContext;

use crate::{
    own_source,
    packet::{Packet, Words},
    scene::Scene,
};

const LENGTH: usize = 6;
/// Of the first byte of a hardware address: broadcast or multicast.
const GROUP: u8 = 1;
/// Of the first byte too: it is inverted in an interface identifier (RFC 4291, appendix A).
const LOCAL: u8 = 2;

/// Neither the frame nor the packet is addressed to the pod, nor to a group. False while the endpoint is not complete: its
/// addresses need not be either.
#[inline(always)]
pub fn is_flooded(scene: &Scene<'_>, packet: &Packet) -> bool {
    if scene.is_egress() || !scene.complete || own_source::has(scene.ifindex, packet.destination) {
        return false;
    }
    let Ok(receiver) = TcContext::new(scene.skb).load::<[u8; LENGTH]>(0) else { return false };
    receiver[0] & GROUP == 0 && !own_source::has(scene.ifindex, link_local(receiver))
}

/// The address that an interface gives itself. User space lists it as the pod's own, so that it stands for the hardware
/// address here.
#[inline(always)]
fn link_local([a, b, c, d, e, f]: [u8; LENGTH]) -> Words {
    let word = |bytes: [u8; 4]| u32::from_ne_bytes(bytes);
    [word([0xfe, 0x80, 0, 0]), 0, word([a ^ LOCAL, b, c, 0xff]), word([0xfe, d, e, f])]
}
