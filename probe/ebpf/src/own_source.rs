//! Whether a pod sends from one of its own addresses (P-1). Hardware addresses, and the sender addresses inside ARP and
//! neighbour discovery, are not checked.

use netverdict_abi::OwnAddressKey;

use crate::{
    maps,
    packet::{Packet, Words, bytes, protocol, v4_words},
};

const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

/// Whether the source address is one of those that user space lists for the pod (its link-local addresses included), `::`,
/// or `0.0.0.0` in a request to a DHCP server.
#[inline(always)]
pub fn is_own(packet: &Packet, ifindex: u32) -> bool {
    has(ifindex, packet.source)
        || is_unspecified(packet)
        || (packet.source == v4_words(0)
            && packet.protocol == protocol::UDP
            && packet.source_port == DHCP_CLIENT
            && packet.destination_port == DHCP_SERVER)
}

/// Whether user space lists the address for the pod behind an interface.
#[inline(always)]
pub fn has(ifindex: u32, address: Words) -> bool {
    maps::OWN_ADDRESSES.get_ptr(&OwnAddressKey { ifindex, address: bytes(address) }).is_some()
}

/// Whether neighbour discovery may come from the source address: also from link-local addresses that user space has not
/// seen yet.
#[inline(always)]
pub fn may_discover(packet: &Packet) -> bool {
    is_unspecified(packet) || packet.source[0] & 0xffc0_0000_u32.to_be() == 0xfe80_0000_u32.to_be()
}

#[inline(always)]
fn is_unspecified(packet: &Packet) -> bool {
    packet.source == [0; 4]
}
