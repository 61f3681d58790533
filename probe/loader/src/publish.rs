//! Publishes tables: writes all new entries beside those in force, then sets one cell.
//!
//! The order is: plan every map, append the meanings of new ids to the state file, write the maps, set the revision cell.
//! This file knows that order and the commit cell; the maps themselves are up to [`crate::published`]. Until the cell is
//! set everything can be undone, and is when a write fails. Superfluous entries are deleted after the commit, when no program
//! can be using it any more. See *Publishing* in `ARCHITECTURE.md` and
//! `docs/adr/0008-published-maps-are-a-registry.md`.

mod grace;
mod subjects;

use std::{collections::BTreeMap, time::Duration};

use netverdict_abi::Endpoint;
use netverdict_policy::{
    ObjectKey,
    tables::{Change, IdFloor, Owner, OwnerId},
};

use self::{
    grace::GracePeriod,
    subjects::{Records, Subjects},
};
use crate::{
    endpoints::{Endpoints, Standing},
    error::{ProbeError, PublishError},
    maps::Maps,
    published::{
        PublishedMaps,
        encode::BadId,
        endpoint_records::EndpointTable,
        floor::raise,
        map::{PlanError, Update},
        subject_record::SubjectRecord,
    },
    state::{Line, StateFile, higher},
};

/// The revision in force, and the remaining work of the last publication.
pub(crate) struct Publisher {
    revision: u64,
    floor: IdFloor,
    subjects: Subjects,
    grace: GracePeriod,
}

impl Publisher {
    /// Adopts the entries that an earlier process left in the maps. `floor` and `owners` come from the state file.
    pub(crate) fn adopt(
        maps: &Maps,
        published: &mut PublishedMaps,
        mut floor: IdFloor,
        owners: &BTreeMap<OwnerId, Owner>,
        grace: Duration,
    ) -> Result<Self, ProbeError> {
        let revision = maps.revision()?;
        for map in published.in_order() {
            // Ids in a map are in use, whether or not the state file knows them.
            map.adopt(revision, &mut floor)?;
        }
        Ok(Self { revision, floor, subjects: Subjects::new(owners), grace: GracePeriod::new(grace) })
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn floor(&self) -> IdFloor {
        self.floor
    }

    /// Whether the tables of a pod are complete.
    pub(crate) fn standing(&self, pod: &ObjectKey, pod_uid: &str) -> Standing {
        self.subjects.standing(pod, pod_uid)
    }

    /// See [`crate::Probe::publish`].
    pub(crate) fn publish(
        &mut self,
        maps: &mut Maps,
        published: &mut PublishedMaps,
        state: &mut StateFile,
        endpoints: &Endpoints,
        snapshot: u64,
        change: &Change,
    ) -> Result<u64, PublishError> {
        let in_force = self.revision;
        self.finish_last(published).map_err(|error| not_written(in_force, error))?;
        let Planned { records, floor } = self.plan(published, endpoints, change).map_err(|error| match error {
            PlanError::Probe(error) => not_written(in_force, error),
            PlanError::BadId(BadId { what, id, expected }) => PublishError::BadId { what, id, expected },
        })?;
        self.explain(state, snapshot, change, floor).map_err(|error| not_written(in_force, error))?;
        let revision = in_force + 1;
        let written = write_all(published).and_then(|()| maps.set_revision(revision));
        if let Err(error) = written {
            self.undo(published);
            return Err(not_written(in_force, error));
        }
        self.revision = revision;
        for map in published.in_order() {
            map.commit(change);
        }
        let by_interface = self.subjects.by_interface(&records, endpoints);
        self.subjects.commit(records);
        if let Err(error) = settle_endpoints(&mut published.endpoints.table, &by_interface) {
            // They stay as they are: an endpoint that is not ready is denied in enforce mode, never let through.
            tracing::error!(error = %error, "endpoints cannot be made ready");
        }
        self.grace.restart();
        Ok(revision)
    }

    /// A record was written outside a publication.
    pub(crate) fn note_write(&mut self) {
        self.grace.restart();
    }

    /// Deletes the entries that the last commit made superfluous, once its grace period has passed; `true` if nothing is left.
    pub(crate) fn collect_garbage(&mut self, published: &mut PublishedMaps) -> Result<bool, ProbeError> {
        roll_back(published)?;
        if !self.grace.has_passed() {
            return Ok(!published.in_order().any(|map| map.has_garbage()));
        }
        self.finish_last(published).map(|()| true)
    }

    /// Completes the last publication: a new one may begin.
    fn finish_last(&mut self, published: &mut PublishedMaps) -> Result<(), ProbeError> {
        roll_back(published)?;
        self.grace.wait();
        published.in_order().rev().try_for_each(|map| map.collect())
    }

    /// Decides the writes, without writing anything.
    fn plan(
        &mut self,
        published: &mut PublishedMaps,
        endpoints: &Endpoints,
        change: &Change,
    ) -> Result<Planned, PlanError> {
        self.subjects.learn(change.owners.iter().map(|(id, owner)| (id, owner)));
        let records = self.subjects.after(change)?;
        let subjects = self.subjects.by_interface(&records, endpoints);
        let update = Update { in_force: self.revision, revision: self.revision + 1, change, subjects: &subjects };
        let mut floor = self.floor;
        records.raise_floor(&mut floor);
        for (owner, _) in &change.owners {
            raise(&mut floor.owner, owner.0);
        }
        for map in published.in_order() {
            map.plan(&update, &mut floor)?;
        }
        Ok(Planned { records, floor })
    }

    /// Appends the meanings of the new ids to the state file, before any map holds one.
    fn explain(
        &mut self,
        state: &mut StateFile,
        snapshot: u64,
        change: &Change,
        floor: IdFloor,
    ) -> Result<(), ProbeError> {
        let floor = higher(self.floor, floor);
        let mut lines = Vec::with_capacity(change.attributions.len() + change.owners.len() + 2);
        if floor != self.floor {
            lines.push(Line::Floor(floor));
        }
        lines.extend(change.owners.iter().map(|(id, owner)| Line::Owner(*id, owner.clone())));
        lines.extend(change.attributions.iter().map(|(id, decision)| Line::Attribution(*id, decision.clone())));
        lines.push(Line::Revision { revision: self.revision + 1, snapshot });
        state.append(&lines)?;
        self.floor = floor;
        Ok(())
    }

    /// Rolls back the writes of a failed publication. A write that cannot be rolled back is tried again before the next one.
    fn undo(&mut self, published: &mut PublishedMaps) {
        // A program that runs may have found a key being written once already; undoing writes it a second time.
        self.grace.restart();
        self.grace.wait();
        if let Err(error) = roll_back(published) {
            tracing::error!(error = %error, "publication cannot be undone yet");
        }
        self.grace.restart();
    }
}

/// A publication before its first write.
struct Planned {
    records: Records,
    floor: IdFloor,
}

fn write_all(published: &mut PublishedMaps) -> Result<(), ProbeError> {
    published.in_order().try_for_each(|map| map.write())
}

/// Takes back the writes since the last commit.
fn roll_back(published: &mut PublishedMaps) -> Result<(), ProbeError> {
    published.in_order().rev().try_for_each(|map| map.roll_back())
}

/// Makes endpoints whose tables are complete ready, and all others not ready, bound or not: the entries that they were
/// judged by are about to be deleted.
fn settle_endpoints(table: &mut EndpointTable, complete: &BTreeMap<u32, SubjectRecord>) -> Result<(), ProbeError> {
    for ifindex in table.keys()? {
        let Some(known) = table.get(&ifindex)? else { continue };
        match complete.get(&ifindex) {
            Some(subject) if known.ready == 0 => {
                table.replace(ifindex, Some(known), subject.into_ready(ifindex, known.attached_at))?;
            }
            None if known.ready != 0 => table.replace(ifindex, Some(known), Endpoint { ready: 0, ..known })?,
            _ => {}
        }
    }
    Ok(())
}

fn not_written(in_force: u64, error: ProbeError) -> PublishError {
    match error {
        ProbeError::MapFull { map, limit } => PublishError::MapFull { map, limit, in_force },
        source => PublishError::NotWritten { in_force, source },
    }
}
