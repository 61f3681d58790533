//! Later fragments follow the first (E-15).

use netverdict_abi::{Direction, Disposition, FragmentKey, FragmentVerdict, KernelReason, Verdict};

use crate::{
    decide::Answer,
    maps,
    node::Node,
    packet::{Packet, bytes},
};

/// As long as Linux waits for the rest of a packet, in nanoseconds.
const TIMEOUT: u64 = 30_000_000_000;
/// Stands for the protocol of IPv6 fragments: the header after the fragment header need not be the same in all of them.
const IPV6_FRAGMENT: u8 = 44;

/// What is known of the packet that a later fragment belongs to.
pub struct First {
    pub answer: Answer,
    pub dropped: bool,
    pub source_port: u16,
    pub destination_port: u16,
}

#[inline(always)]
pub fn find(packet: &Packet, direction: Direction, ifindex: u32, node: &Node) -> Option<First> {
    let key = key(packet, direction, ifindex);
    // SAFETY: memory of the map; an evicted entry is reused, never unmapped.
    let first = unsafe { maps::FRAGMENTS.get(&key) }?;
    if first.expires_at <= node.now {
        return None;
    }
    Some(First {
        answer: Answer {
            verdict: Verdict::try_from(first.verdict).ok()?,
            reason: KernelReason::try_from(first.reason).ok()?,
            attribution: first.attribution,
        },
        dropped: first.disposition == Disposition::Dropped as u8,
        source_port: first.source_port,
        destination_port: first.destination_port,
    })
}

/// A full map changes nothing else: the others are then judged without ports.
#[inline(always)]
pub fn remember(packet: &Packet, direction: Direction, ifindex: u32, answer: &Answer, dropped: bool, node: &Node) {
    let disposition = if dropped { Disposition::Dropped } else { Disposition::Forwarded };
    let verdict = FragmentVerdict {
        expires_at: node.now.saturating_add(TIMEOUT),
        attribution: answer.attribution,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        verdict: answer.verdict as u8,
        reason: answer.reason as u8,
        disposition: disposition as u8,
        reserved: [0; 9],
    };
    let _ = maps::FRAGMENTS.insert(key(packet, direction, ifindex), verdict, 0);
}

#[inline(always)]
fn key(packet: &Packet, direction: Direction, ifindex: u32) -> FragmentKey {
    FragmentKey {
        ifindex,
        source: bytes(packet.source),
        destination: bytes(packet.destination),
        identification: packet.identification,
        protocol: if packet.family == 6 { IPV6_FRAGMENT } else { packet.protocol },
        direction: direction as u8,
        reserved: [0; 2],
    }
}
