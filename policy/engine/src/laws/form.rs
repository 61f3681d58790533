//! Tables without the numbers that a compiler happened to give out: the same for two compilers of one snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    compile::Compiler,
    model::{Direction, ObjectKey},
    tables::{ClassId, Column, Outcome, Owner, PeerEntry, Tables},
};

/// An identity is called by the first peer that has it, a class by its first member, a column by its content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form<'a> {
    peers: BTreeMap<Peer<'a>, (Peer<'a>, Option<&'a Owner>, bool, bool)>,
    subjects: BTreeMap<&'a ObjectKey, (Option<&'a Owner>, [Side<'a>; 2])>,
    pairs: BTreeMap<(Option<Class<'a>>, Option<Peer<'a>>), Said<'a>>,
    columns: BTreeSet<&'a Column>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer<'a> {
    Address(&'a IpAddr),
    Block(&'a IpNet),
}

type Class<'a> = (Direction, &'a ObjectKey);

/// One direction of a subject: its class and the default.
type Side<'a> = (Class<'a>, Said<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said<'a> {
    Final(Outcome),
    Column(Option<&'a Column>),
}

impl<'a> Form<'a> {
    pub(super) fn of(compiler: &'a Compiler) -> Self {
        let tables = compiler.tables();
        let addresses = tables.addresses.iter().map(|(address, entry)| (Peer::Address(address), entry));
        let blocks = tables.blocks.iter().map(|(block, entry)| (Peer::Block(block), entry));
        let entries: Vec<(Peer<'a>, &PeerEntry)> = addresses.chain(blocks).collect();
        let identities = firsts(entries.iter().map(|(peer, entry)| (entry.identity, *peer)));
        let members: Vec<(ClassId, Class<'a>)> = (tables.subjects.iter())
            .flat_map(|(key, entry)| {
                [(entry.egress_class, (Direction::Egress, key)), (entry.ingress_class, (Direction::Ingress, key))]
            })
            .collect();
        let classes = firsts(members.into_iter());
        let peer = |(peer, entry): (Peer<'a>, &PeerEntry)| {
            let owner = compiler.owner(entry.owner);
            (peer, (identities[&entry.identity], owner, entry.service, entry.unknown_pod))
        };
        let subjects = tables.subjects.iter().map(|(key, entry)| {
            let sides = [
                (classes[&entry.egress_class], said(tables, entry.egress_default)),
                (classes[&entry.ingress_class], said(tables, entry.ingress_default)),
            ];
            (key, (compiler.owner(entry.owner), sides))
        });
        let pairs = tables.pairs.iter().map(|((class, identity), outcome)| {
            let pair = (classes.get(class).copied(), identities.get(identity).copied());
            (pair, said(tables, *outcome))
        });
        Self {
            subjects: subjects.collect(),
            pairs: pairs.collect(),
            peers: entries.into_iter().map(peer).collect(),
            columns: tables.columns.values().collect(),
        }
    }
}

/// By each id the first that comes with it.
fn firsts<K: Eq + Hash, V>(members: impl Iterator<Item = (K, V)>) -> HashMap<K, V> {
    let mut firsts = HashMap::new();
    members.for_each(|(id, member)| {
        firsts.entry(id).or_insert(member);
    });
    firsts
}

fn said(tables: &Tables, outcome: Outcome) -> Said<'_> {
    match outcome {
        Outcome::Final { .. } => Said::Final(outcome),
        Outcome::Column(id) => Said::Column(tables.columns.get(&id)),
    }
}
