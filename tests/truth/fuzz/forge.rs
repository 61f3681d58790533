//! Packets that no honest sender sends: whole ones, cut short, bent, glued together, or noise. The same seed gives the same
//! packets.

use std::net::IpAddr;

use etherparse::{PacketBuilder, PacketBuilderStep};

pub(super) const ETHERNET: usize = 14;
const LINK: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// SplitMix64: small, and good enough to bend packets.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Bends packets between two pods.
pub(super) struct Forge {
    pub(super) random: Random,
    whole: Vec<Vec<u8>>,
    longest: usize,
}

impl Forge {
    /// `pairs`: (source, destination) of the packets that are bent. None is longer than `longest` bytes.
    pub(super) fn new(seed: u64, pairs: &[(IpAddr, IpAddr)], longest: usize) -> Self {
        let mut whole = Vec::new();
        for &(source, destination) in pairs {
            whole.extend(honest(source, destination));
        }
        Self { random: Random(seed), whole, longest }
    }

    /// The next packet, at least an Ethernet header.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut packet = self.pick();
        match self.random.below(10) {
            0 => {}
            1 | 2 => self.cut(&mut packet),
            3 | 4 => self.flip(&mut packet),
            5 => self.stretch_numbers(&mut packet),
            6 => {
                let other = self.pick();
                let at = ETHERNET + self.random.below(packet.len() - ETHERNET + 1);
                packet.truncate(at);
                packet.extend(&other[self.random.below(other.len())..]);
            }
            7 => self.chain(&mut packet),
            8 => {
                packet.truncate(ETHERNET);
                let length = self.random.below(120);
                packet.extend(self.random.bytes(length));
            }
            _ => {
                let length = ETHERNET + self.random.below(150);
                packet = self.random.bytes(length);
            }
        }
        // Bent twice, now and then: what one change makes unreadable, another may hide.
        match self.random.below(8) {
            0 => self.cut(&mut packet),
            1 => self.flip(&mut packet),
            2 => {
                let length = self.random.below(self.longest);
                packet.extend(self.random.bytes(length));
            }
            _ => {}
        }
        packet.truncate(self.longest);
        packet
    }

    fn pick(&mut self) -> Vec<u8> {
        let index = self.random.below(self.whole.len());
        self.whole[index].clone()
    }

    fn cut(&mut self, packet: &mut Vec<u8>) {
        let length = ETHERNET + self.random.below(packet.len() - ETHERNET + 1);
        packet.truncate(length);
    }

    fn flip(&mut self, packet: &mut [u8]) {
        for _ in 0..=self.random.below(6) {
            // Addresses of the link layer are looked at by nobody here.
            let at = 12 + self.random.below(packet.len().min(120) - 12);
            packet[at] ^= 1 << self.random.below(8);
        }
    }

    /// Lengths, offsets and counts live in bytes: the ends of their ranges are where readers go wrong.
    fn stretch_numbers(&mut self, packet: &mut [u8]) {
        for _ in 0..=self.random.below(4) {
            let at = 12 + self.random.below(packet.len().min(120) - 12);
            packet[at] = [0x00, 0x01, 0x04, 0x06, 0x11, 0x2c, 0x3a, 0x3c, 0x45, 0x60, 0x7f, 0x80, 0xfe, 0xff]
                [self.random.below(14)];
        }
    }

    /// IPv6 with extension headers that may lie about their lengths.
    fn chain(&mut self, packet: &mut Vec<u8>) {
        const KINDS: [u8; 10] = [0, 43, 44, 51, 60, 6, 17, 58, 59, 132];
        let fixed = ETHERNET + 40;
        if packet.len() < fixed || packet[12..14] != [0x86, 0xdd] {
            packet.resize(fixed, 0);
            packet[12..14].copy_from_slice(&[0x86, 0xdd]);
            packet[ETHERNET] = 0x60;
        }
        packet.truncate(fixed);
        packet[ETHERNET + 6] = KINDS[self.random.below(5)];
        for _ in 0..self.random.below(12) {
            let units = self.random.below(4);
            let stated = if self.random.below(8) == 0 { self.random.byte() } else { u8::try_from(units).unwrap() };
            packet.push(KINDS[self.random.below(KINDS.len())]);
            packet.push(stated);
            packet.extend(self.random.bytes(units * 8 + 6));
        }
        let tail = self.random.below(60);
        packet.extend(self.random.bytes(tail));
        if self.random.below(4) > 0 {
            let length = u16::try_from(packet.len() - fixed).unwrap();
            packet[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// A TCP packet that asks for a connection.
pub(super) fn syn(source: IpAddr, destination: IpAddr, source_port: u16, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(source, destination).tcp(source_port, port, 1, 1_000).syn().write(&mut packet, &[]).unwrap();
    packet
}

/// A UDP packet with as many bytes of payload.
pub(super) fn datagram(source: IpAddr, destination: IpAddr, source_port: u16, port: u16, payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(source, destination).udp(source_port, port).write(&mut packet, &vec![b'.'; payload]).unwrap();
    packet
}

fn ip(source: IpAddr, destination: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    let link = PacketBuilder::ethernet2(LINK[0], LINK[1]);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => link.ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => link.ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// One of every kind that the programs read.
fn honest(source: IpAddr, destination: IpAddr) -> Vec<Vec<u8>> {
    let mut packets = vec![syn(source, destination, 40_000, 80), datagram(source, destination, 40_000, 80, 20)];
    let mut push = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = Vec::new();
        write(&mut packet);
        packets.push(packet);
    };
    push(&|packet| {
        let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1_460), etherparse::TcpOptionElement::Noop];
        ip(source, destination).tcp(40_001, 81, 1, 9).ack(5).options(&options).unwrap().write(packet, b"data").unwrap();
    });
    if source.is_ipv4() {
        push(&|packet| ip(source, destination).icmpv4_echo_request(7, 1).write(packet, b"ping").unwrap());
        push(&|packet| ip(source, destination).icmpv4_echo_reply(7, 1).write(packet, b"ping").unwrap());
        push(&|packet| {
            let quoted = syn(destination, source, 80, 40_000);
            ip(source, destination).icmpv4_raw(3, 1, [0; 4]).write(packet, &quoted[ETHERNET..]).unwrap();
        });
    } else {
        push(&|packet| ip(source, destination).icmpv6_echo_request(7, 1).write(packet, b"ping").unwrap());
        push(&|packet| ip(source, destination).icmpv6_raw(135, 0, [0; 4]).write(packet, &[0; 16]).unwrap());
        push(&|packet| {
            let quoted = syn(destination, source, 80, 40_000);
            ip(source, destination).icmpv6_raw(1, 1, [0; 4]).write(packet, &quoted[ETHERNET..]).unwrap();
        });
    }
    push(&|packet| {
        let sctp = [0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4];
        ip(source, destination).write(packet, etherparse::IpNumber::SCTP, &sctp).unwrap();
    });
    let plain = syn(source, destination, 40_002, 80);
    packets.push(tagged(&plain, &[0x8100]));
    packets.push(tagged(&plain, &[0x88a8, 0x8100]));
    packets.push(tagged(&plain, &[0x88a8, 0x8100, 0x8100]));
    packets.extend([0, 1, 3, 200].map(|offset| fragment(&plain, offset)));
    let mut arp = plain[..ETHERNET].to_vec();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    arp.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([0; 20]);
    packets.push(arp);
    packets
}

fn tagged(packet: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut tagged = packet[..12].to_vec();
    for tag in tags {
        tagged.extend(tag.to_be_bytes());
        tagged.extend([0, 9]);
    }
    tagged.extend(&packet[12..]);
    tagged
}

/// The packet as a fragment that begins `offset` units of eight bytes into the whole; at 0 more follow.
fn fragment(packet: &[u8], offset: u16) -> Vec<u8> {
    let mut cut = packet.to_vec();
    if cut[12..14] == [0x08, 0x00] {
        let field = if offset == 0 { 0x2000 } else { offset };
        cut[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&field.to_be_bytes());
        return cut;
    }
    let field = (offset << 3) | u16::from(offset == 0);
    let [high, low] = field.to_be_bytes();
    let header = [cut[ETHERNET + 6], 0, high, low, 0, 0, 0, 7];
    cut[ETHERNET + 6] = 44;
    cut.splice(ETHERNET + 40..ETHERNET + 40, header);
    let length = u16::try_from(cut.len() - ETHERNET - 40).unwrap();
    cut[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
    cut
}
