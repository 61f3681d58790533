//! Packets with an address of the node that are not the node's own traffic. Policies exempt a pod's own node (E-6), so
//! that its kubelet can probe; this must cover nothing else.

use netverdict_abi::Peer;

use crate::{
    decide::find_peer_without_owner,
    packet::{Packet, protocol},
    packet_context::PacketContext,
};

/// Ports on which nodes take VXLAN (the assigned one and Linux's) and Geneve.
const TUNNEL_PORTS: [u16; 3] = [4789, 8472, 6081];
/// IPv4 and IPv6 in IP, GRE, ESP.
const TUNNEL_PROTOCOLS: [u8; 4] = [4, 41, 47, 50];

/// Whether the peer, which has an address of the node, may be another host: a pod sends a packet that the node would unpack,
/// or a packet from the node was received elsewhere before, and its origin is not known.
#[inline(always)]
pub fn may_be_anybodys(context: &PacketContext<'_>, packet: &Packet) -> bool {
    if context.is_egress() {
        return TUNNEL_PROTOCOLS.contains(&packet.protocol)
            || (packet.protocol == protocol::UDP && TUNNEL_PORTS.contains(&packet.destination_port));
    }
    // SAFETY: the context is the kernel's. 0: the packet was not received from anywhere.
    unsafe { (*context.skb).ingress_ifindex != 0 }
}

/// The other end as if its address had no owner.
#[inline(always)]
pub fn without_owner(context: &PacketContext<'_>, packet: &Packet) -> Peer {
    let address = if context.is_egress() { &packet.destination } else { &packet.original_source };
    find_peer_without_owner(address, context.revision)
}
