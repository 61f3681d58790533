//! The lookups: address → peer, (class, peer) → decision or column, column and port → decision. All of them as of one
//! revision; none of them knows what a policy is.

use core::mem::MaybeUninit;

use aya_ebpf::maps::lpm_trie::Key;
use netverdict_abi::{
    AddressKey, ColumnPortKey, ColumnRangeKey, Direction, EndpointClasses, KernelReason, PairKey, Peer, PolicyEntry,
    Verdict,
    map::{column_flag, identity, peer_flag},
};

use crate::{
    maps,
    packet::{Words, bytes, protocol},
    subprogram::{Done, done, zero},
    whole,
};

const ADDRESS_BITS: u32 = 128;
/// All of column, protocol and port.
const RANGE_BITS: u32 = 32 + 8 + 16;

/// What is asked of the tables.
pub struct Question<'a> {
    pub classes: &'a EndpointClasses,
    pub peer: Peer,
    /// As the endpoint sees the flow that is judged.
    pub direction: Direction,
    pub protocol: u8,
    /// Destination port of the flow; None where a fragment does not show it.
    pub port: Option<u16>,
}

/// What they say.
#[derive(Clone, Copy)]
pub struct Answer {
    pub verdict: Verdict,
    pub reason: KernelReason,
    /// 0 where the reason says it all.
    pub attribution: u64,
}

impl Answer {
    /// Something that must be in the tables is not: denied where the node enforces, else not known.
    #[inline(always)]
    pub fn not_ready(enforces: bool) -> Self {
        let verdict = if enforces { Verdict::Denied } else { Verdict::Unknown };
        Self { verdict, reason: KernelReason::PolicyNotReady, attribution: 0 }
    }
}

/// The world, and nobody in particular.
pub const NOBODY: Peer = Peer { identity: identity::WORLD, owner: 0, flags: 0, reserved: 0 };

/// Who is at an address: the exact record, else the longest block, else the world.
#[inline(always)]
pub fn find_peer(address: &Words, revision: u64) -> Peer {
    let mut peer = MaybeUninit::<Peer>::uninit();
    // SAFETY: the call writes all of it.
    unsafe {
        write_peer(address, revision, &mut *peer.as_mut_ptr()).noted();
        peer.assume_init()
    }
}

#[inline(never)]
fn write_peer(address: &Words, revision: u64, found: &mut Peer) -> Done {
    let key = AddressKey { address: bytes(*address) };
    let ask = || whole::pointer(maps::ADDRESSES.get_ptr(&key));
    if whole::read(ask(), ask, |versions| *found = *versions.as_of(revision)) && found.flags & peer_flag::ABSENT == 0 {
        return done();
    }
    // A trie's nodes are not reused before all programs that look at them are through.
    if let Some(versions) = maps::BLOCKS.get(Key::new(ADDRESS_BITS, key)) {
        let peer = versions.as_of(revision);
        if peer.flags & peer_flag::ABSENT == 0 {
            *found = *peer;
            return done();
        }
    }
    const { assert!(NOBODY.identity == 0) };
    // SAFETY: `NOBODY`.
    unsafe { zero(found) };
    done()
}

/// Judges; leaves `answer` as it is if a record that must exist does not. A function of its own: it is called for a packet as
/// it was sent, in reverse, and again under a newer revision.
#[inline(never)]
pub fn decide(question: &Question<'_>, answer: &mut Answer) -> Done {
    let Question { classes, peer, direction, .. } = question;
    if *direction == Direction::Egress && peer.flags & peer_flag::SERVICE != 0 {
        *answer = Answer { verdict: Verdict::Unknown, reason: KernelReason::ServiceNotResolved, attribution: 0 };
        return done();
    }
    let (class, default) = match direction {
        Direction::Egress => (classes.egress_class, &classes.egress_default),
        Direction::Ingress => (classes.ingress_class, &classes.ingress_default),
    };
    let pair = PairKey { class, identity: peer.identity };
    // SAFETY: ids are never reused, so a decision is never replaced, and is not deleted before every program that may ask for
    // it is through: an element that is found stays this key's.
    let decision = unsafe { maps::PAIRS.get(&pair) }.unwrap_or(default);
    let decision = if decision.column == 0 {
        decision
    } else {
        let Some(decision) = ask_column(decision.column, question) else { return done() };
        decision
    };
    if let Ok(verdict) = Verdict::try_from(decision.verdict) {
        *answer = Answer { verdict, reason: KernelReason::ByPolicy, attribution: decision.attribution };
    }
    done()
}

#[inline(always)]
fn ask_column(id: u32, question: &Question<'_>) -> Option<&'static PolicyEntry> {
    // SAFETY: as above; neither are column ids.
    let column = unsafe { maps::COLUMNS.get(id) }?;
    let (default, fragment, ports, ranges) = match question.protocol {
        protocol::TCP => (&column.tcp, &column.tcp_fragment, column_flag::TCP_PORTS, column_flag::TCP_RANGES),
        protocol::UDP => (&column.udp, &column.udp_fragment, column_flag::UDP_PORTS, column_flag::UDP_RANGES),
        protocol::SCTP => (&column.sctp, &column.sctp_fragment, column_flag::SCTP_PORTS, column_flag::SCTP_RANGES),
        _ => return Some(&column.other),
    };
    let Some(port) = question.port else { return Some(fragment) };
    if column.flags & ports != 0 {
        let key = ColumnPortKey { column: id, port, protocol: question.protocol, reserved: 0 };
        // SAFETY: as above.
        if let Some(decision) = unsafe { maps::COLUMN_PORTS.get(&key) } {
            return Some(decision);
        }
    }
    if column.flags & ranges != 0 {
        let key = ColumnRangeKey {
            column: id.to_be_bytes(),
            protocol: question.protocol,
            port: port.to_be_bytes(),
            reserved: 0,
        };
        if let Some(decision) = maps::COLUMN_RANGES.get(Key::new(RANGE_BITS, key)) {
            // SAFETY: the borrow ends with the key's temporary in aya's signature; the value lives in the map.
            return Some(unsafe { &*core::ptr::from_ref(decision) });
        }
    }
    Some(default)
}
