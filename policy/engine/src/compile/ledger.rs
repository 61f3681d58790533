//! The tables, and what was written to them since the last change was taken out.

use std::{collections::BTreeMap, mem, net::IpAddr};

use ipnet::IpNet;

use super::index::{Index, set};
use crate::{
    model::ObjectKey,
    tables::{Change, ClassId, Column, ColumnId, Deleted, IdentityId, Outcome, PeerEntry, SubjectEntry, Tables},
};

#[derive(Debug, Default)]
pub(super) struct Ledger {
    tables: Tables,
    index: Index,
    addresses: Log<IpAddr, PeerEntry>,
    blocks: Log<IpNet, PeerEntry>,
    subjects: Log<ObjectKey, SubjectEntry>,
    pairs: Log<(ClassId, IdentityId), Outcome>,
    columns: Log<ColumnId, Column>,
    /// Set once a complete change was taken out: before, nothing needs to be remembered.
    started: bool,
}

/// Values before the first write since the last change.
#[derive(Debug)]
struct Log<K, V>(BTreeMap<K, Option<V>>);

impl<K, V> Default for Log<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl Ledger {
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn set_address(&mut self, address: IpAddr, entry: Option<PeerEntry>) {
        set(&mut self.index.addresses, address, entry);
        self.addresses.set(self.started, &mut self.tables.addresses, address, entry);
    }

    pub(super) fn set_block(&mut self, block: IpNet, entry: Option<PeerEntry>) {
        self.blocks.set(self.started, &mut self.tables.blocks, block, entry);
    }

    pub(super) fn set_subject(&mut self, subject: ObjectKey, entry: Option<SubjectEntry>) {
        set(&mut self.index.subjects, subject.clone(), entry);
        self.subjects.set(self.started, &mut self.tables.subjects, subject, entry);
    }

    pub(super) fn set_pair(&mut self, class: ClassId, identity: IdentityId, outcome: Option<Outcome>) {
        set(&mut self.index.pairs, (class, identity), outcome);
        self.pairs.set(self.started, &mut self.tables.pairs, (class, identity), outcome);
    }

    pub(super) fn remove_pairs(&mut self, class: ClassId) {
        let of_class = (class, IdentityId(0))..=(class, IdentityId(u32::MAX));
        let identities: Vec<IdentityId> =
            self.tables.pairs.range(of_class).map(|((_, identity), _)| *identity).collect();
        for identity in identities {
            self.set_pair(class, identity, None);
        }
    }

    pub(super) fn set_column(&mut self, id: ColumnId, column: Option<Column>) {
        self.columns.set(self.started, &mut self.tables.columns, id, column);
    }

    /// What changed since the last call: everything, the first time. Attributions and owners are for the caller to add.
    pub(super) fn take_change(&mut self) -> Change {
        if !mem::replace(&mut self.started, true) {
            return Change { complete: true, put: self.tables.clone(), ..Change::default() };
        }
        let Self { tables, index: _, addresses, blocks, subjects, pairs, columns, started: _ } = self;
        let (mut put, mut delete) = (Tables::default(), Deleted::default());
        addresses.drain(&tables.addresses, &mut put.addresses, &mut delete.addresses);
        blocks.drain(&tables.blocks, &mut put.blocks, &mut delete.blocks);
        subjects.drain(&tables.subjects, &mut put.subjects, &mut delete.subjects);
        pairs.drain(&tables.pairs, &mut put.pairs, &mut delete.pairs);
        columns.drain(&tables.columns, &mut put.columns, &mut delete.columns);
        Change { put, delete, ..Change::default() }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Log<K, V> {
    fn set(&mut self, remember: bool, map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
        let before = match value {
            Some(value) => map.insert(key.clone(), value),
            None => map.remove(&key),
        };
        if remember {
            self.0.entry(key).or_insert(before);
        }
    }

    fn drain(&mut self, map: &BTreeMap<K, V>, put: &mut BTreeMap<K, V>, delete: &mut Vec<K>) {
        for (key, before) in mem::take(&mut self.0) {
            match (before, map.get(&key)) {
                (before, Some(now)) if before.as_ref() != Some(now) => {
                    put.insert(key, now.clone());
                }
                (Some(_), None) => delete.push(key),
                _ => {}
            }
        }
    }
}
