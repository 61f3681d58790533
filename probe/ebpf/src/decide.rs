//! The lookups: address → peer, (subject class, identity) → verdict or column, (column, port) → verdict. All are as of
//! one revision. The lookups know ids only, no policies.

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
    subprogram::{ScalarReturn, scalar_return, zero},
    validated_read,
};

const ADDRESS_BITS: u32 = 128;
/// Column, protocol and the whole port.
const RANGE_BITS: u32 = 32 + 8 + 16;

/// A lookup in the tables: one flow in one direction.
pub struct Question<'a> {
    pub classes: &'a EndpointClasses,
    pub peer: Peer,
    /// Direction of the flow that is judged, as the endpoint sees it.
    pub direction: Direction,
    pub protocol: u8,
    /// Destination port of the flow; `None` for a fragment whose port is not known.
    pub port: Option<u16>,
}

/// The verdict, and why.
#[derive(Clone, Copy)]
pub struct Answer {
    pub verdict: Verdict,
    pub reason: KernelReason,
    /// Attribution id; 0 unless the reason is [`KernelReason::ByPolicy`] or follows from it.
    pub attribution: u64,
}

impl Answer {
    /// A table entry that must exist is missing: denied where the node enforces, otherwise unknown.
    #[inline(always)]
    pub fn not_ready(enforces: bool) -> Self {
        let verdict = if enforces { Verdict::Denied } else { Verdict::Unknown };
        Self { verdict, reason: KernelReason::PolicyNotReady, attribution: 0 }
    }
}

/// An address outside every block that a policy names, without a known owner.
pub const WORLD: Peer = Peer { identity: identity::WORLD, owner: 0, flags: 0, reserved: 0 };

/// The peer at an address: its exact record, otherwise its longest matching block, otherwise [`WORLD`]. `flags`: those
/// that count.
#[inline(always)]
pub fn find_peer(address: &Words, revision: u64, flags: u32) -> Peer {
    let mut peer = MaybeUninit::<Peer>::uninit();
    // SAFETY: the call initialises all of it.
    unsafe {
        let found = &mut *peer.as_mut_ptr();
        write_peer(address, revision, found).consume();
        // Changed in place: the compiler would copy the value with a loop over bytes.
        found.flags &= flags;
        peer.assume_init()
    }
}

/// The peer at an address, as if the address had no owner.
#[inline(always)]
pub fn find_peer_without_owner(address: &Words, revision: u64) -> Peer {
    let mut peer = MaybeUninit::<Peer>::uninit();
    // SAFETY: the call initialises all of it.
    unsafe {
        write_peer_without_owner(address, revision, &mut *peer.as_mut_ptr()).consume();
        peer.assume_init()
    }
}

#[inline(never)]
fn write_peer(address: &Words, revision: u64, found: &mut Peer) -> ScalarReturn {
    let key = AddressKey { address: bytes(*address) };
    let look_up = || validated_read::pointer(maps::ADDRESSES.get_ptr(&key));
    if validated_read::read(look_up(), look_up, |versions| *found = *versions.as_of(revision))
        && found.flags & peer_flag::ABSENT == 0
    {
        return scalar_return();
    }
    write_block(key, revision, found);
    scalar_return()
}

#[inline(never)]
fn write_peer_without_owner(address: &Words, revision: u64, found: &mut Peer) -> ScalarReturn {
    write_block(AddressKey { address: bytes(*address) }, revision, found);
    scalar_return()
}

/// By the longest matching block, otherwise [`WORLD`].
#[inline(always)]
fn write_block(key: AddressKey, revision: u64, found: &mut Peer) {
    // No validation: the kernel frees a trie node only after an RCU grace period (`kernel/bpf/lpm_trie.c`).
    if let Some(versions) = maps::BLOCKS.get(Key::new(ADDRESS_BITS, key)) {
        let peer = versions.as_of(revision);
        if peer.flags & peer_flag::ABSENT == 0 {
            *found = *peer;
            return;
        }
    }
    const { assert!(WORLD.identity == 0) };
    // SAFETY: all-zero bytes are a `Peer`: [`WORLD`], as asserted for the identity.
    unsafe { zero(found) };
}

/// Judges one flow in one direction. Leaves `answer` unchanged if a table entry that must exist is missing. Not
/// inlined: it is called for a packet as it was sent, in reverse orientation, and for a re-evaluation.
#[inline(never)]
pub fn decide(question: &Question<'_>, answer: &mut Answer) -> ScalarReturn {
    let Question { classes, peer, direction, .. } = question;
    if *direction == Direction::Egress && peer.flags & peer_flag::SERVICE != 0 {
        *answer = Answer { verdict: Verdict::Unknown, reason: KernelReason::ServiceNotResolved, attribution: 0 };
        return scalar_return();
    }
    let (class, default) = match direction {
        Direction::Egress => (classes.egress_class, &classes.egress_default),
        Direction::Ingress => (classes.ingress_class, &classes.ingress_default),
    };
    let pair = PairKey { class, identity: peer.identity };
    // SAFETY: ids are never reused, so a pair is never replaced, and it is deleted only after every program that may
    // look it up has ended: an element that is found keeps its key.
    let entry = unsafe { maps::PAIRS.get(&pair) }.unwrap_or(default);
    let entry = if entry.column == 0 {
        entry
    } else {
        let Some(entry) = look_up_column(entry.column, question) else { return scalar_return() };
        entry
    };
    if let Ok(verdict) = Verdict::try_from(entry.verdict) {
        *answer = Answer { verdict, reason: KernelReason::ByPolicy, attribution: entry.attribution };
    }
    scalar_return()
}

#[inline(always)]
fn look_up_column(id: u32, question: &Question<'_>) -> Option<&'static PolicyEntry> {
    // SAFETY: as for pairs: column ids are never reused.
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
        // SAFETY: as for pairs.
        if let Some(entry) = unsafe { maps::COLUMN_PORTS.get(&key) } {
            return Some(entry);
        }
    }
    if column.flags & ranges != 0 {
        let key = ColumnRangeKey {
            column: id.to_be_bytes(),
            protocol: question.protocol,
            port: port.to_be_bytes(),
            reserved: 0,
        };
        if let Some(entry) = maps::COLUMN_RANGES.get(Key::new(RANGE_BITS, key)) {
            // SAFETY: aya's signature ties the borrow to the key, which is a temporary; the value lives in the map.
            return Some(unsafe { &*core::ptr::from_ref(entry) });
        }
    }
    Some(default)
}
