//! The tables, and the writes to them since the last change was taken out.

use std::{collections::BTreeMap, mem, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

use super::hashing::QuickMap;
use crate::{
    model::ObjectKey,
    tables::{Change, ClassId, Column, ColumnId, Deleted, IdentityId, Outcome, PeerEntry, SubjectEntry, Tables},
};

#[derive(Debug, Default)]
pub(super) struct TrackedTables {
    tables: Tables,
    /// The addresses once more, for look-ups.
    hashed: QuickMap<IpAddr, PeerEntry>,
    addresses: Log<IpAddr, PeerEntry>,
    blocks: Log<IpNet, PeerEntry>,
    subjects: Log<ObjectKey, SubjectEntry>,
    pairs: Log<(ClassId, IdentityId), Outcome>,
    new_columns: Vec<ColumnId>,
    old_columns: Vec<ColumnId>,
    /// Set once a complete change was taken out: before that, no writes need to be logged.
    started: bool,
}

/// Writes since the last change, in order: the value before and after each.
#[derive(Debug)]
struct Log<K, V>(Vec<(K, Option<V>, Option<V>)>);

impl<K, V> Default for Log<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl TrackedTables {
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn address(&self, address: IpAddr) -> Option<PeerEntry> {
        self.hashed.get(&address).copied()
    }

    pub(super) fn set_address(&mut self, address: IpAddr, entry: Option<PeerEntry>) {
        // Most of the addresses that are evaluated again stay as they are.
        if self.address(address) == entry {
            return;
        }
        match entry {
            Some(entry) => self.hashed.insert(address, entry),
            None => self.hashed.remove(&address),
        };
        self.addresses.set(self.started, &mut self.tables.addresses, address, entry);
    }

    pub(super) fn set_block(&mut self, block: IpNet, entry: Option<PeerEntry>) {
        self.blocks.set(self.started, &mut self.tables.blocks, block, entry);
    }

    pub(super) fn set_subject(&mut self, subject: ObjectKey, entry: Option<SubjectEntry>) {
        self.subjects.set(self.started, &mut self.tables.subjects, subject, entry);
    }

    pub(super) fn set_pair(&mut self, class: ClassId, identity: IdentityId, outcome: Option<Outcome>) {
        self.pairs.set(self.started, &mut self.tables.pairs, (class, identity), outcome);
    }

    pub(super) fn remove_pairs(&mut self, class: ClassId) {
        for (pair, outcome) in self.tables.pairs.extract_if(of_class(class), |_, _| true) {
            if self.started {
                self.pairs.0.push((pair, Some(outcome), None));
            }
        }
    }

    pub(super) fn add_column(&mut self, id: ColumnId, column: Column) {
        self.tables.columns.insert(id, column);
        self.new_columns.push(id);
    }

    pub(super) fn remove_column(&mut self, id: ColumnId) {
        self.tables.columns.remove(&id);
        self.old_columns.push(id);
    }

    /// Changes since the last call; everything, the first time. The caller adds attributions and owners.
    pub(super) fn take_change(&mut self) -> Change {
        let (new_columns, old_columns) = (mem::take(&mut self.new_columns), mem::take(&mut self.old_columns));
        if !mem::replace(&mut self.started, true) {
            return Change { complete: true, put: self.tables.clone(), ..Change::default() };
        }
        let (mut put, mut delete) = (Tables::default(), Deleted::default());
        (put.addresses, delete.addresses) = self.addresses.drain();
        (put.blocks, delete.blocks) = self.blocks.drain();
        (put.subjects, delete.subjects) = self.subjects.drain();
        (put.pairs, delete.pairs) = self.pairs.drain();
        let columns = &self.tables.columns;
        put.columns = new_columns.into_iter().filter_map(|id| Some((id, columns.get(&id)?.clone()))).collect();
        delete.columns = old_columns;
        Change { put, delete, ..Change::default() }
    }
}

fn of_class(class: ClassId) -> RangeInclusive<(ClassId, IdentityId)> {
    (class, IdentityId(0))..=(class, IdentityId(u32::MAX))
}

impl<K: Ord + Clone, V: Clone + PartialEq> Log<K, V> {
    fn set(&mut self, log: bool, map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
        let after = value.clone();
        let before = match value {
            Some(value) => map.insert(key.clone(), value),
            None => map.remove(&key),
        };
        if log {
            self.0.push((key, before, after));
        }
    }

    /// Entries to put and keys to delete, in order.
    fn drain(&mut self) -> (BTreeMap<K, V>, Vec<K>) {
        let mut writes = mem::take(&mut self.0);
        // Stable: of several writes to a key, the first holds the earlier value and the last the present one.
        writes.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let (mut put, mut delete) = (Vec::new(), Vec::new());
        let mut writes = writes.into_iter().peekable();
        while let Some((key, before, mut after)) = writes.next() {
            while let Some((_, _, later)) = writes.next_if(|(next, ..)| *next == key) {
                after = later;
            }
            match (before, after) {
                (before, Some(now)) if before.as_ref() != Some(&now) => put.push((key, now)),
                (Some(_), None) => delete.push(key),
                _ => {}
            }
        }
        (put.into_iter().collect(), delete)
    }
}
