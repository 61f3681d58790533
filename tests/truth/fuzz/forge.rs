//! Generates packets for fuzzing: valid, truncated, corrupted, concatenated or random. The same seed gives the same packets.

use std::net::IpAddr;

use crate::{
    chance::Chance,
    packets::{ETHERNET, datagram, fragment, ip, sctp, syn},
};

/// Generates packets between pairs of pods.
pub(super) struct Forge {
    pub(super) random: Chance,
    whole: Vec<Vec<u8>>,
    longest: usize,
}

impl Forge {
    /// `pairs` are (source, destination). No packet is longer than `longest` bytes.
    pub(super) fn new(seed: u64, pairs: &[(IpAddr, IpAddr)], longest: usize) -> Self {
        let mut whole = Vec::new();
        for &(source, destination) in pairs {
            whole.extend(honest(source, destination));
        }
        Self { random: Chance::new(seed), whole, longest }
    }

    /// The next packet. It has at least an Ethernet header.
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
        // Sometimes corrupted twice, because a second change may hide the first.
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
            // From 12: the link-layer addresses do not matter here.
            let at = 12 + self.random.below(packet.len().min(120) - 12);
            packet[at] ^= 1 << self.random.below(8);
        }
    }

    /// Overwrites bytes with boundary values of lengths, offsets and protocol numbers, where parsers tend to fail.
    fn stretch_numbers(&mut self, packet: &mut [u8]) {
        for _ in 0..=self.random.below(4) {
            let at = 12 + self.random.below(packet.len().min(120) - 12);
            packet[at] = [0x00, 0x01, 0x04, 0x06, 0x11, 0x2c, 0x3a, 0x3c, 0x45, 0x60, 0x7f, 0x80, 0xfe, 0xff]
                [self.random.below(14)];
        }
    }

    /// IPv6 with extension headers whose lengths may be wrong.
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

/// A valid packet of each kind that the programs parse.
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
    push(&|packet| packet.extend(sctp(source, destination, 40_000, 80)));
    let plain = syn(source, destination, 40_002, 80);
    packets.push(tagged(&plain, &[0x8100]));
    packets.push(tagged(&plain, &[0x88a8, 0x8100]));
    packets.push(tagged(&plain, &[0x88a8, 0x8100, 0x8100]));
    packets.extend([0, 1, 3, 200].map(|offset| fragment(&plain, offset, 7)));
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
