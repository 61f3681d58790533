//! Change logs, folded: the latest row of every object. Rows may come in any order, and more than once.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    row::{ChangeKind, Row},
};
use netverdict_policy::{ObjectKey, Snapshot};

use super::objects::Object;

/// Table, kind, and name.
type Key = (Table, String, ObjectKey);

/// Within one snapshot, an object was deleted before its successor came.
type Order = (u64, DateTime<Utc>, bool);

/// Bytes of an object besides its texts: keys, pointers, nodes of trees.
const OVERHEAD: usize = 512;
/// A policy's model beside its text.
const MODEL: usize = 4;

/// The latest row of every object among some rows.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<Key, Row>);

/// The latest of every object, ready for the engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Fold {
    latest: BTreeMap<Arc<Key>, Latest>,
    deletions: usize,
    /// Deletions up to this snapshot may be forgotten: a row of an object that is not here may be older than one.
    forgotten: u64,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Latest {
    order: Order,
    bytes: usize,
    /// `None`: it was deleted.
    object: Option<Object>,
}

/// A row is older than deletions that are no longer known: whether it counts cannot be told.
#[derive(Debug)]
pub(super) struct Forgotten;

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, row: Row) {
        let Some(key) = key(&row) else { return };
        match self.0.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(row);
            }
            Entry::Occupied(mut entry) => {
                if order(&row) >= order(entry.get()) {
                    entry.insert(row);
                }
            }
        }
    }
}

impl Fold {
    /// # Errors
    /// When it cannot be told whether a change is the latest. The fold is then of no use.
    pub(super) fn apply(&mut self, changes: Changes) -> Result<(), Forgotten> {
        for (key, row) in changes.0 {
            let Some(order) = order(&row) else { continue };
            match self.latest.get(&key) {
                Some(known) if order < known.order => continue,
                None if order.0 <= self.forgotten => return Err(Forgotten),
                _ => {}
            }
            let put = row.head().is_some_and(|head| head.change == ChangeKind::Put);
            let bytes = OVERHEAD + if put { length(&row) } else { 0 };
            let object = if put { Object::of(row) } else { None };
            self.bytes += bytes;
            self.deletions += usize::from(object.is_none());
            if let Some(old) = self.latest.insert(Arc::new(key), Latest { order, bytes, object }) {
                self.bytes -= old.bytes;
                self.deletions -= usize::from(old.object.is_none());
            }
        }
        Ok(())
    }

    /// Forgets the oldest deletions, so that at most so many are left. A forgotten deletion matters only if a row that is
    /// older than it turns up.
    pub(super) fn forget_deletions(&mut self, most: usize) {
        let Some(many) = self.deletions.checked_sub(most).filter(|many| *many > 0) else { return };
        let gone = self.latest.values().filter(|latest| latest.object.is_none());
        let mut snapshots: Vec<u64> = gone.map(|latest| latest.order.0).collect();
        let (_, last, _) = snapshots.select_nth_unstable(many - 1);
        self.forgotten = self.forgotten.max(*last);
        let forgotten = self.forgotten;
        self.latest.retain(|_, latest| latest.object.is_some() || latest.order.0 > forgotten);
        self.deletions = self.latest.values().filter(|latest| latest.object.is_none()).count();
        self.bytes = self.latest.values().map(|latest| latest.bytes).sum();
    }

    /// The snapshot in which an object was deleted, and when, if that is the latest of it and not forgotten.
    pub(super) fn deleted(&self, table: Table, kind: &str, name: &ObjectKey) -> Option<(u64, DateTime<Utc>)> {
        let latest = self.latest.get(&(table, kind.to_owned(), name.clone()))?;
        latest.object.is_none().then_some((latest.order.0, latest.order.1))
    }

    /// Why the latest row of an object cannot be judged by; `None` where it can, or where there is none.
    pub(super) fn problem(&self, table: Table, kind: &str, name: &ObjectKey) -> Option<&Arc<str>> {
        self.latest.get(&(table, kind.to_owned(), name.clone()))?.object.as_ref()?.problem()
    }

    /// The same of all objects.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Arc<str>> {
        self.latest.values().filter_map(|latest| latest.object.as_ref()?.problem())
    }

    pub(super) fn deletions(&self) -> usize {
        self.deletions
    }

    /// About so much memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All objects of the fold, without those that every cluster has.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.latest
            .values()
            .filter_map(|latest| latest.object.as_ref())
            .for_each(|object| object.add_to(&mut snapshot));
        snapshot
    }
}

/// The object that a row changes.
fn key(row: &Row) -> Option<Key> {
    let table = Table::of(row);
    Some(match row {
        Row::Policy(row) => (table, row.kind.clone(), ObjectKey::new(&row.namespace, &row.name)),
        Row::Endpoint(row) => (table, row.kind.as_str().into(), ObjectKey::new(&row.namespace, &row.name)),
        Row::Namespace(row) => (table, String::new(), ObjectKey::new("", &row.name)),
        Row::Service(row) => (table, String::new(), ObjectKey::new(&row.namespace, &row.name)),
        Row::Flow(_) | Row::Attribution(_) | Row::Snapshot(_) | Row::Gap(_) | Row::Collector(_) | Row::Setting(_) => {
            return None;
        }
    })
}

fn order(row: &Row) -> Option<Order> {
    row.head().map(|head| (head.snapshot, head.time, head.change == ChangeKind::Put))
}

/// About the bytes of the fields that differ in length.
fn length(row: &Row) -> usize {
    let labels = |labels: &BTreeMap<String, String>| -> usize {
        labels.iter().map(|(name, value)| name.len() + value.len() + 2 * size_of::<String>()).sum()
    };
    match row {
        Row::Policy(row) => row.text.len() * MODEL,
        Row::Endpoint(row) => labels(&row.labels) + row.container_ports.len() * MODEL + 16 * row.addresses.len(),
        Row::Namespace(row) => labels(&row.labels),
        Row::Service(row) => labels(&row.selector) + row.ports.len() * MODEL + 16 * row.addresses.len(),
        Row::Flow(_) | Row::Attribution(_) | Row::Snapshot(_) | Row::Gap(_) | Row::Collector(_) | Row::Setting(_) => 0,
    }
}
