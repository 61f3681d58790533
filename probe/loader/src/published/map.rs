//! The interface of a map that publications fill. An implementation states the map's name, key, value and limit, the
//! ids that its entries use, and the entries that a change adds and removes. Everything else (writing, undo, garbage
//! collection, adoption, occupancy) is the same for every map and is in [`super::registered`].

use std::collections::{BTreeMap, HashSet};

use netverdict_policy::tables::{Change, IdFloor};

use super::{encode::BadId, subject_record::SubjectRecord};
use crate::{
    error::ProbeError,
    maps::table::{Store, Table},
    options::ProbeOptions,
};

pub(crate) type Key<M> = <<M as PublishedMap>::Store as Store>::Key;
pub(crate) type Value<M> = <<M as PublishedMap>::Store as Store>::Value;

/// A map that publications fill. The implementing type holds the map's own state between publications.
pub(crate) trait PublishedMap: Default {
    /// Hash or trie, with the key and value types of `netverdict-abi`.
    type Store: Store;

    /// From `netverdict_abi::map::name`.
    const NAME: &'static str;

    /// The most entries that the map can hold, when it is created.
    fn limit(options: &ProbeOptions) -> u32;

    /// Raises `floor` above every id in an entry, so that no compiler gives out an id that is in the kernel.
    fn raise_floor(floor: &mut IdFloor, key: &Key<Self>, value: &Value<Self>);

    /// Called once for each entry that an earlier process left in the map. `in_force` is the revision in force.
    fn adopt(&mut self, _key: Key<Self>, _value: Value<Self>, _in_force: u64) {}

    /// The entries that `update` adds, replaces and makes superfluous. Encodes them, and writes nothing.
    ///
    /// # Errors
    /// An id has no encoding, or `table` cannot be read.
    fn plan(&mut self, table: &Table<Self::Store>, update: &Update<'_>) -> Result<Plan<Self::Store>, PlanError>;

    /// Called after the commit of the planned entries. Not called if the publication failed; the next plan then starts
    /// from the same state.
    fn commit(&mut self, _change: &Change) {}
}

/// Changes of a publication.
pub(crate) struct Update<'a> {
    /// The revision in force while the maps are written.
    pub(crate) in_force: u64,
    /// The revision that the commit puts in force.
    pub(crate) revision: u64,
    pub(crate) change: &'a Change,
    /// By interface: how each bound endpoint is judged from `revision` on. Endpoints without complete tables are missing.
    pub(crate) subjects: &'a BTreeMap<u32, SubjectRecord>,
}

/// The entries to write before the commit, and the keys to delete after it.
pub(crate) struct Plan<S: Store> {
    pub(super) writes: Vec<Write<S>>,
    pub(super) superfluous: Vec<S::Key>,
}

pub(super) struct Write<S: Store> {
    pub(super) key: S::Key,
    pub(super) before: Before<S::Value>,
    pub(super) value: S::Value,
}

/// The plan's knowledge of the entry that a write replaces.
#[derive(Clone, Copy)]
pub(super) enum Before<V> {
    /// The key should be absent, and the map was not asked.
    NotRead,
    Read(Option<V>),
}

impl<S: Store> Default for Plan<S> {
    fn default() -> Self {
        Self { writes: Vec::new(), superfluous: Vec::new() }
    }
}

impl<S: Store> Plan<S> {
    /// Writes an entry whose key should be absent.
    pub(super) fn add(&mut self, key: S::Key, value: S::Value) {
        self.writes.push(Write { key, before: Before::NotRead, value });
    }

    /// Writes an entry in place of `before`, which was read from the map.
    pub(super) fn replace(&mut self, key: S::Key, before: Option<S::Value>, value: S::Value) {
        self.writes.push(Write { key, before: Before::Read(before), value });
    }

    /// Deletes an entry after the commit, once no program can be using it.
    pub(super) fn remove_after_commit(&mut self, key: S::Key) {
        self.superfluous.push(key);
    }

    /// A plan for entries that are added and deleted but never replaced, because their ids are never reused. A complete
    /// change makes every other key superfluous, an incremental one those of `deleted`.
    pub(super) fn of_immutable_entries(
        table: &Table<S>,
        complete: bool,
        entries: impl Iterator<Item = Result<(S::Key, S::Value), BadId>>,
        deleted: impl Iterator<Item = Result<S::Key, BadId>>,
    ) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        for entry in entries {
            let (key, value) = entry?;
            plan.add(key, value);
        }
        plan.superfluous = if complete {
            let kept: HashSet<_> = plan.writes.iter().map(|write| write.key).collect();
            table.keys()?.into_iter().filter(|key| !kept.contains(key)).collect()
        } else {
            deleted.collect::<Result<_, _>>()?
        };
        Ok(plan)
    }
}

/// Why a publication stopped before the first write.
#[derive(Debug)]
pub(crate) enum PlanError {
    Probe(ProbeError),
    BadId(BadId),
}

impl From<ProbeError> for PlanError {
    fn from(error: ProbeError) -> Self {
        Self::Probe(error)
    }
}

impl From<BadId> for PlanError {
    fn from(error: BadId) -> Self {
        Self::BadId(error)
    }
}
