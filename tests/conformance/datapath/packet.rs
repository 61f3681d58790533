//! The packets of a flow, complete and valid: opening, following and answering packets.

use std::net::IpAddr;

use etherparse::{IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep};
use netverdict_policy::model::Protocol;

const ETHERNET: usize = 14;
/// The programs do not look at hardware addresses.
const LINK: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const HOPS: u8 = 64;
/// Neighbour discovery that came through a router is no neighbour's (RFC 4861).
const HOPS_OF_NEIGHBOURS: u8 = 255;

/// Two ends that talk. Both addresses are of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    /// Identifier of an ICMP echo.
    pub(crate) source_port: u16,
    /// Not used for ICMP.
    pub(crate) destination_port: u16,
}

/// The place of a TCP segment in its connection.
#[derive(Clone, Copy)]
enum Segment {
    Syn,
    SynAck,
    Ack,
}

impl Talk {
    /// The same connection after a Service's address became this one.
    pub(crate) fn to(self, destination: IpAddr, port: Option<u16>) -> Self {
        Self { destination, destination_port: port.unwrap_or_default(), ..self }
    }

    /// The first packet.
    pub(crate) fn opening(&self) -> Vec<u8> {
        self.write(Segment::Syn)
    }

    /// A later packet of the source.
    pub(crate) fn going_on(&self) -> Vec<u8> {
        self.write(Segment::Ack)
    }

    /// The destination's first packet.
    pub(crate) fn reply(&self) -> Vec<u8> {
        if !self.protocol.has_ports() {
            let mut packet = Vec::new();
            let back = ip(self.destination, self.source, HOPS);
            match self.destination {
                IpAddr::V4(_) => back.icmpv4_echo_reply(self.source_port, 1).write(&mut packet, b"ping"),
                IpAddr::V6(_) => back.icmpv6_echo_reply(self.source_port, 1).write(&mut packet, b"ping"),
            }
            .expect("a packet");
            return packet;
        }
        let back = Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        };
        back.write(Segment::SynAck)
    }

    /// The destination's word that the port cannot be reached.
    pub(crate) fn error(&self) -> Vec<u8> {
        let quoted = &self.opening()[ETHERNET..];
        let mut packet = Vec::new();
        let back = ip(self.destination, self.source, HOPS);
        match self.destination {
            IpAddr::V4(_) => back.icmpv4_raw(3, 3, [0; 4]).write(&mut packet, quoted),
            IpAddr::V6(_) => back.icmpv6_raw(1, 4, [0; 4]).write(&mut packet, quoted),
        }
        .expect("a packet");
        packet
    }

    /// The source asks for the owner of the destination's address.
    pub(crate) fn solicitation(&self) -> Vec<u8> {
        let IpAddr::V6(target) = self.destination else { panic!("IPv4 has ARP for this") };
        let mut packet = Vec::new();
        let to_target = ip(self.source, self.destination, HOPS_OF_NEIGHBOURS);
        to_target.icmpv6_raw(135, 0, [0; 4]).write(&mut packet, &target.octets()).expect("a packet");
        packet
    }

    fn write(&self, segment: Segment) -> Vec<u8> {
        let mut packet = Vec::new();
        let to_destination = ip(self.source, self.destination, HOPS);
        match self.protocol {
            Protocol::TCP => {
                let tcp = to_destination.tcp(self.source_port, self.destination_port, 1, 1_000);
                match segment {
                    Segment::Syn => tcp.syn(),
                    Segment::SynAck => tcp.syn().ack(2),
                    Segment::Ack => tcp.ack(2),
                }
                .write(&mut packet, &[])
            }
            Protocol::UDP => to_destination.udp(self.source_port, self.destination_port).write(&mut packet, b"hello"),
            Protocol::SCTP => {
                let mut header = [0; 12];
                header[..2].copy_from_slice(&self.source_port.to_be_bytes());
                header[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
                to_destination.write(&mut packet, IpNumber::SCTP, &header)
            }
            Protocol::ICMP => to_destination.icmpv4_echo_request(self.source_port, 1).write(&mut packet, b"ping"),
            Protocol::ICMPV6 => to_destination.icmpv6_echo_request(self.source_port, 1).write(&mut packet, b"ping"),
            other => panic!("no packets of {other} are made here"),
        }
        .expect("a packet");
        packet
    }
}

fn ip(source: IpAddr, destination: IpAddr, hops: u8) -> PacketBuilderStep<IpHeaders> {
    let link = PacketBuilder::ethernet2(LINK[0], LINK[1]);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => link.ipv4(source.octets(), destination.octets(), hops),
        (IpAddr::V6(source), IpAddr::V6(destination)) => link.ipv6(source.octets(), destination.octets(), hops),
        _ => panic!("{source} and {destination} are of two families"),
    }
}
