//! Later fragments follow the first (E-15).

use core::mem::MaybeUninit;

use netverdict_abi::{Disposition, FragmentKey, FragmentVerdict, KernelReason, Verdict};

use crate::{
    decide::Answer,
    maps,
    packet::{Packet, bytes},
    scene::Scene,
    subprogram::{Done, done, zero},
    whole,
};

/// As long as Linux waits for the rest of a packet, in nanoseconds.
const TIMEOUT: u64 = 30_000_000_000;
/// Stands for the protocol of IPv6 fragments: the header after the fragment header need not be the same in all of them.
const IPV6_FRAGMENT: u8 = 44;

/// What is known of the packet that a later fragment belongs to.
#[derive(Clone, Copy)]
pub struct First {
    pub answer: Answer,
    pub dropped: bool,
    pub source_port: u16,
    pub destination_port: u16,
}

#[inline(never)]
pub fn find(packet: &Packet, scene: &Scene<'_>, found: &mut First) -> bool {
    let key = key(packet, scene);
    let mut good = false;
    let ask = || whole::pointer(maps::FRAGMENTS.get_ptr(&key));
    let whole = whole::read(ask(), ask, |first| {
        good = first.expires_at > scene.now;
        match (Verdict::try_from(first.verdict), KernelReason::try_from(first.reason)) {
            (Ok(verdict), Ok(reason)) => found.answer = Answer { verdict, reason, attribution: first.attribution },
            _ => good = false,
        }
        found.dropped = first.disposition == Disposition::Dropped as u8;
        found.source_port = first.source_port;
        found.destination_port = first.destination_port;
    });
    whole && good
}

/// A full map changes nothing else: the others are then judged without ports.
#[inline(never)]
pub fn remember(packet: &Packet, scene: &Scene<'_>, answer: &Answer, dropped: bool) -> Done {
    let disposition = if dropped { Disposition::Dropped } else { Disposition::Forwarded };
    let mut verdict = MaybeUninit::<FragmentVerdict>::uninit();
    // SAFETY: every field is a number.
    let verdict = unsafe {
        let verdict = &mut *verdict.as_mut_ptr();
        zero(verdict);
        verdict
    };
    verdict.expires_at = scene.now.saturating_add(TIMEOUT);
    verdict.attribution = answer.attribution;
    verdict.source_port = packet.source_port;
    verdict.destination_port = packet.destination_port;
    verdict.verdict = answer.verdict as u8;
    verdict.reason = answer.reason as u8;
    verdict.disposition = disposition as u8;
    let _ = maps::FRAGMENTS.insert(key(packet, scene), &*verdict, 0);
    done()
}

#[inline(always)]
fn key(packet: &Packet, scene: &Scene<'_>) -> FragmentKey {
    FragmentKey {
        ifindex: scene.ifindex,
        source: bytes(packet.source),
        destination: bytes(packet.destination),
        identification: packet.identification,
        protocol: if packet.family == 6 { IPV6_FRAGMENT } else { packet.protocol },
        direction: scene.direction as u8,
        reserved: [0; 2],
    }
}
