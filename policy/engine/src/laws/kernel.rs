//! A model of the kernel: it applies every change, and evaluates packets from its tables alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv6Net};
use proptest::prelude::*;

use super::Probe;
use crate::{
    decision::{AttributionId, Verdict},
    evaluate,
    model::Direction,
    tables::{Change, Outcome, OwnerId, PeerEntry, Tables},
};

/// Writes a change as a whole.
pub(super) fn apply(held: &mut Tables, change: &Change) -> Result<(), TestCaseError> {
    if change.complete {
        *held = Tables::default();
    }
    write(&mut held.addresses, &change.put.addresses, &change.delete.addresses)?;
    write(&mut held.blocks, &change.put.blocks, &change.delete.blocks)?;
    write(&mut held.subjects, &change.put.subjects, &change.delete.subjects)?;
    write(&mut held.pairs, &change.put.pairs, &change.delete.pairs)?;
    write(&mut held.columns, &change.put.columns, &change.delete.columns)
}

/// Puts and deletes, each of which must have an effect.
fn write<K: Ord + Clone, V: Clone + PartialEq + std::fmt::Debug>(
    held: &mut BTreeMap<K, V>,
    put: &BTreeMap<K, V>,
    delete: &[K],
) -> Result<(), TestCaseError> {
    for key in delete {
        prop_assert!(held.remove(key).is_some(), "what is deleted was there");
    }
    for (key, value) in put {
        let before = held.insert(key.clone(), value.clone());
        prop_assert_ne!(before.as_ref(), Some(value), "what is put is new");
    }
    Ok(())
}

/// While a change is on its way, the kernel holds pairs and columns of both states, and its records are those of the one
/// or of the other. Neither may notice: a flow that both states deny is then never open.
pub(super) fn publishes_unnoticed(
    before: &Tables,
    change: &Change,
    after: &Tables,
    probes: &[Probe],
) -> Result<(), TestCaseError> {
    let mut during = Tables { pairs: before.pairs.clone(), columns: before.columns.clone(), ..Tables::default() };
    during.pairs.extend(&change.put.pairs);
    during.columns.extend(change.put.columns.clone());
    for probe in probes {
        let old = conclude(before, before, probe);
        prop_assert_eq!(conclude(before, &during, probe), old, "before the commit: {:?}", probe);
        let new = conclude(after, after, probe);
        prop_assert_eq!(conclude(after, &during, probe), new, "after the commit: {:?}", probe);
    }
    Ok(())
}

/// The kernel's verdict by these records, pairs and columns; `None` where it does not know the subject.
pub(super) fn conclude(records: &Tables, meanings: &Tables, probe: &Probe) -> Option<(Verdict, AttributionId)> {
    let subject = records.subjects.get(&probe.subject)?;
    let peer = peer(records, probe.peer);
    if peer.owner != OwnerId::NOBODY && peer.owner == subject.owner {
        return Some((Verdict::Allowed, AttributionId::of(&evaluate::self_traffic(), 0)));
    }
    let (class, default) = match probe.direction {
        Direction::Egress if peer.service => return Some((Verdict::Unknown, AttributionId::NONE)),
        Direction::Egress => (subject.egress_class, subject.egress_default),
        Direction::Ingress => (subject.ingress_class, subject.ingress_default),
    };
    let found = verdict(meanings, meanings.pairs.get(&(class, peer.identity)).copied().unwrap_or(default), probe)?;
    if found.0 != Verdict::Denied
        && probe.direction == Direction::Egress
        && peer.own_node
        && evaluate::is_tunnel(probe.protocol, probe.port.filter(|_| probe.protocol.has_ports()))
    {
        let anybody = block(records, probe.peer);
        let outcome = meanings.pairs.get(&(class, anybody.identity)).copied().unwrap_or(default);
        let stricter = verdict(meanings, outcome, probe)?;
        if stricter.0 == Verdict::Denied {
            return Some(stricter);
        }
    }
    Some(found)
}

/// By port, where the outcome depends on it.
fn verdict(meanings: &Tables, outcome: Outcome, probe: &Probe) -> Option<(Verdict, AttributionId)> {
    let outcome = match outcome {
        Outcome::Column(column) => {
            let column = meanings.columns.get(&column)?;
            column.port_space(probe.protocol).map_or(column.other, |space| match probe.port {
                None => space.fragment,
                Some(port) => {
                    let holds = |first: u16, length: u8| u32::from(port ^ first) >> (16 - length) == 0;
                    let range = || space.prefixes.iter().find(|((first, length), _)| holds(*first, *length));
                    let exact = space.ports.get(&port);
                    *exact.or_else(|| range().map(|(_, outcome)| outcome)).unwrap_or(&space.default)
                }
            })
        }
        known @ Outcome::Final { .. } => known,
    };
    match outcome {
        Outcome::Final { verdict, attribution } => Some((verdict, attribution)),
        Outcome::Column(_) => None,
    }
}

/// Exact, else by the longest block.
fn peer(records: &Tables, address: IpAddr) -> PeerEntry {
    if let Some(entry) = records.addresses.get(&crate::address::canonical(address)) {
        return *entry;
    }
    block(records, address)
}

/// By the longest prefix in a trie in which IPv4 is a part of IPv6.
fn block(records: &Tables, address: IpAddr) -> PeerEntry {
    let mapped = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let holding = records.blocks.iter().filter_map(|(block, entry)| {
        let length = block.prefix_len() + if block.addr().is_ipv4() { 96 } else { 0 };
        let prefix = Ipv6Net::new(mapped(block.addr()), length).ok()?;
        let address: Ipv6Addr = mapped(address);
        prefix.contains(&address).then_some((length, entry))
    });
    holding.max_by_key(|(length, _)| *length).map(|(_, entry)| *entry).unwrap_or_default()
}

/// Every entry is one that a packet could ask for.
pub(super) fn is_lean(tables: &Tables) -> Result<(), TestCaseError> {
    let defaults = tables.subjects.values().flat_map(|subject| [subject.egress_default, subject.ingress_default]);
    let used: BTreeSet<Outcome> = tables.pairs.values().copied().chain(defaults).collect();
    for id in tables.columns.keys() {
        prop_assert!(used.contains(&Outcome::Column(*id)), "{id:?} is used");
    }
    let classes: BTreeSet<_> =
        tables.subjects.values().flat_map(|subject| [subject.egress_class, subject.ingress_class]).collect();
    let peers = tables.addresses.values().chain(tables.blocks.values());
    let identities: BTreeSet<_> = peers.map(|peer| peer.identity).collect();
    for (class, identity) in tables.pairs.keys() {
        prop_assert!(classes.contains(class) && identities.contains(identity), "{class:?} {identity:?} is used");
    }
    Ok(())
}

/// Ids keep their meaning from one state to the next.
pub(super) fn keeps_meanings(before: &Tables, after: &Tables) -> Result<(), TestCaseError> {
    for (pair, outcome) in &before.pairs {
        let kept = after.pairs.get(pair);
        prop_assert!(kept.is_none_or(|kept| kept == outcome), "a pair never changes its meaning");
    }
    for (id, column) in &before.columns {
        let kept = after.columns.get(id);
        prop_assert!(kept.is_none_or(|kept| kept == column), "a column never changes its meaning");
    }
    Ok(())
}

/// The form of a block that the type of the trie's keys asks for.
#[test]
fn an_ipv4_block_is_found_among_ipv6_ones() {
    let entry = |identity| PeerEntry { identity: crate::tables::IdentityId(identity), ..PeerEntry::default() };
    let blocks = [("::/0", 1), ("10.0.0.0/8", 2), ("10.0.0.0/30", 3)];
    let blocks: BTreeMap<IpNet, PeerEntry> =
        blocks.into_iter().map(|(block, identity)| (crate::build::block(block), entry(identity))).collect();
    let records = Tables { blocks, ..Tables::default() };
    let found = |address: &str| peer(&records, crate::build::address(address)).identity.0;
    assert_eq!(["10.0.0.1", "10.1.0.0", "192.168.0.1", "fd00::1"].map(found), [3, 2, 1, 1]);
}
