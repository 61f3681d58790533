//! Fragments after the first have no ports, so they get the verdict of the first fragment (E-15).

use core::mem::MaybeUninit;

use netverdict_abi::{Disposition, FragmentKey, FragmentVerdict, KernelReason, Verdict};

use crate::{
    decide::Answer,
    maps,
    packet::{Packet, bytes},
    packet_context::PacketContext,
    subprogram::{ScalarReturn, scalar_return, zero},
    validated_read,
};

/// How long Linux waits for the other fragments of a packet (`net.ipv4.ipfrag_time`), in nanoseconds.
const TIMEOUT: u64 = 30_000_000_000;
/// Used as the protocol of IPv6 fragments: the header that follows the fragment header may differ between fragments.
const IPV6_FRAGMENT: u8 = 44;

/// The first fragment of a packet.
#[derive(Clone, Copy)]
pub struct First {
    pub answer: Answer,
    pub dropped: bool,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Finds the first fragment of a packet, by validated read; false if it is not known or has expired.
#[inline(never)]
pub fn find(packet: &Packet, context: &PacketContext<'_>, found: &mut First) -> bool {
    let key = key(packet, context);
    let mut good = false;
    let look_up = || validated_read::pointer(maps::FRAGMENTS.get_ptr(&key));
    let present = validated_read::read(look_up(), look_up, |first| {
        good = first.expires_at > context.now;
        match (Verdict::try_from(first.verdict), KernelReason::try_from(first.reason)) {
            (Ok(verdict), Ok(reason)) => found.answer = Answer { verdict, reason, attribution: first.attribution },
            _ => good = false,
        }
        found.dropped = first.disposition == Disposition::Dropped as u8;
        found.source_port = first.source_port;
        found.destination_port = first.destination_port;
    });
    present && good
}

/// Remembers the first fragment of a packet. If the map is full, its other fragments are judged without ports.
#[inline(never)]
pub fn remember(packet: &Packet, context: &PacketContext<'_>, answer: &Answer, dropped: bool) -> ScalarReturn {
    let disposition = if dropped { Disposition::Dropped } else { Disposition::Forwarded };
    let mut verdict = MaybeUninit::<FragmentVerdict>::uninit();
    // SAFETY: every field is a number.
    let verdict = unsafe {
        let verdict = &mut *verdict.as_mut_ptr();
        zero(verdict);
        verdict
    };
    verdict.expires_at = context.now.saturating_add(TIMEOUT);
    verdict.attribution = answer.attribution;
    verdict.source_port = packet.source_port;
    verdict.destination_port = packet.destination_port;
    verdict.verdict = answer.verdict as u8;
    verdict.reason = answer.reason as u8;
    verdict.disposition = disposition as u8;
    let _ = maps::FRAGMENTS.insert(key(packet, context), &*verdict, 0);
    scalar_return()
}

#[inline(always)]
fn key(packet: &Packet, context: &PacketContext<'_>) -> FragmentKey {
    FragmentKey {
        ifindex: context.ifindex,
        source: bytes(packet.source),
        destination: bytes(packet.destination),
        identification: packet.identification,
        protocol: if packet.family == 6 { IPV6_FRAGMENT } else { packet.protocol },
        direction: context.direction as u8,
        reserved: [0; 2],
    }
}
