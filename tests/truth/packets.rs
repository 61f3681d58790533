//! Packets, beginning with the Ethernet header.

use std::net::IpAddr;

use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep};

pub(crate) const ETHERNET: usize = 14;
const LINK: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// A TCP connection request (SYN).
pub(crate) fn syn(source: IpAddr, destination: IpAddr, source_port: u16, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(source, destination).tcp(source_port, port, 1, 1_000).syn().write(&mut packet, &[]).unwrap();
    packet
}

/// A UDP packet with a payload of this many bytes.
pub(crate) fn datagram(source: IpAddr, destination: IpAddr, source_port: u16, port: u16, payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(source, destination).udp(source_port, port).write(&mut packet, &vec![b'.'; payload]).unwrap();
    packet
}

pub(crate) fn ip(source: IpAddr, destination: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    let link = PacketBuilder::ethernet2(LINK[0], LINK[1]);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => link.ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => link.ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// An SCTP packet with an INIT chunk.
pub(crate) fn sctp(source: IpAddr, destination: IpAddr, source_port: u16, port: u16) -> Vec<u8> {
    let mut chunk = [0; 16];
    chunk[..2].copy_from_slice(&source_port.to_be_bytes());
    chunk[2..4].copy_from_slice(&port.to_be_bytes());
    chunk[12..].copy_from_slice(&[1, 0, 0, 4]);
    let mut packet = Vec::new();
    ip(source, destination).write(&mut packet, IpNumber::SCTP, &chunk).unwrap();
    packet
}

/// An ICMP echo request.
pub(crate) fn ping(source: IpAddr, destination: IpAddr, identifier: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let step = ip(source, destination);
    if source.is_ipv4() {
        step.icmpv4_echo_request(identifier, 1).write(&mut packet, b"ping").unwrap();
    } else {
        step.icmpv6_echo_request(identifier, 1).write(&mut packet, b"ping").unwrap();
    }
    packet
}

/// The packet as a fragment at `offset`, in units of eight bytes. At offset 0 the more-fragments flag is set.
pub(crate) fn fragment(packet: &[u8], offset: u16, identification: u16) -> Vec<u8> {
    let mut cut = packet.to_vec();
    if cut[12..14] == [0x08, 0x00] {
        cut[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&identification.to_be_bytes());
        let field = if offset == 0 { 0x2000 } else { offset };
        cut[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&field.to_be_bytes());
        return cut;
    }
    let field = (offset << 3) | u16::from(offset == 0);
    let ([high, low], [id_high, id_low]) = (field.to_be_bytes(), identification.to_be_bytes());
    let header = [cut[ETHERNET + 6], 0, high, low, 0, 0, id_high, id_low];
    cut[ETHERNET + 6] = 44;
    cut.splice(ETHERNET + 40..ETHERNET + 40, header);
    let length = u16::try_from(cut.len() - ETHERNET - 40).unwrap();
    cut[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
    cut
}
