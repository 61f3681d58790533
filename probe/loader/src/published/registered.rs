//! Operations common to all published maps: writing a plan with an undo journal, rolling it back, deleting superfluous
//! entries, adopting the entries of an earlier process, and occupancy.

use std::path::Path;

use netverdict_policy::tables::{Change, IdFloor};

use super::map::{Before, Key, Plan, PlanError, PublishedMap, Update, Value, Write};
use crate::{
    error::ProbeError,
    maps::{occupancy::MapOccupancy, table::Table},
};

/// A published map with its table in the kernel and the state of the publication that is under way.
pub(crate) struct Registered<M: PublishedMap> {
    pub(crate) table: Table<M::Store>,
    map: M,
    /// Of the publication that is under way.
    plan: Plan<M::Store>,
    /// The entries that the publication under way replaced, oldest first; `None` where there was none.
    journal: Vec<(Key<M>, Option<Value<M>>)>,
    /// Keys that the last commit made superfluous.
    garbage: Vec<Key<M>>,
}

impl<M: PublishedMap> Registered<M> {
    /// Opens the map that is pinned in `folder`.
    pub(super) fn open(folder: &Path) -> Result<Self, ProbeError> {
        Ok(Self {
            table: Table::open(folder, M::NAME)?,
            map: M::default(),
            plan: Plan::default(),
            journal: Vec::new(),
            garbage: Vec::new(),
        })
    }
}

/// The steps of a publication, for any map. The publisher decides their order.
pub(crate) trait Steps {
    fn occupancy(&self) -> MapOccupancy;

    /// Reads every entry that an earlier process left, and raises `floor` above their ids.
    fn adopt(&mut self, in_force: u64, floor: &mut IdFloor) -> Result<(), ProbeError>;

    /// Decides the writes, and raises `floor` above the ids in them. Replaces an earlier plan.
    fn plan(&mut self, update: &Update<'_>, floor: &mut IdFloor) -> Result<(), PlanError>;

    /// Writes the plan; each write is journaled.
    fn write(&mut self) -> Result<(), ProbeError>;

    /// The revision cell was written: forgets the journal, and keeps the superfluous keys for [`Self::collect`].
    fn commit(&mut self, change: &Change);

    /// Restores the entries that [`Self::write`] replaced, newest first. Failed ones stay in the journal for another attempt.
    fn roll_back(&mut self) -> Result<(), ProbeError>;

    fn has_garbage(&self) -> bool;

    /// Deletes the superfluous entries. Failed deletions stay for another attempt.
    fn collect(&mut self) -> Result<(), ProbeError>;
}

impl<M: PublishedMap> Steps for Registered<M> {
    fn occupancy(&self) -> MapOccupancy {
        self.table.occupancy()
    }

    fn adopt(&mut self, in_force: u64, floor: &mut IdFloor) -> Result<(), ProbeError> {
        for key in self.table.keys()? {
            if let Some(value) = self.table.get(&key)? {
                M::raise_floor(floor, &key, &value);
                self.map.adopt(key, value, in_force);
            }
        }
        Ok(())
    }

    fn plan(&mut self, update: &Update<'_>, floor: &mut IdFloor) -> Result<(), PlanError> {
        self.plan = self.map.plan(&self.table, update)?;
        for Write { key, value, .. } in &self.plan.writes {
            M::raise_floor(floor, key, value);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), ProbeError> {
        for Write { key, before, value } in std::mem::take(&mut self.plan.writes) {
            let before = match before {
                Before::NotRead => self.table.add(key, value)?,
                Before::Read(before) => self.table.replace(key, before, value).map(|()| before)?,
            };
            self.journal.push((key, before));
        }
        Ok(())
    }

    fn commit(&mut self, change: &Change) {
        self.journal = Vec::new();
        self.garbage = std::mem::take(&mut self.plan.superfluous);
        self.map.commit(change);
    }

    fn roll_back(&mut self) -> Result<(), ProbeError> {
        while let Some(&(key, before)) = self.journal.last() {
            match before {
                Some(value) => self.table.replace(key, Some(value), value)?,
                None => self.table.remove(&key).map(drop)?,
            }
            self.journal.pop();
        }
        Ok(())
    }

    fn has_garbage(&self) -> bool {
        !self.garbage.is_empty()
    }

    fn collect(&mut self) -> Result<(), ProbeError> {
        while let Some(key) = self.garbage.last() {
            self.table.remove(key)?;
            self.garbage.pop();
        }
        Ok(())
    }
}
