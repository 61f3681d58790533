//! Publishes tables: everything new is written beside what is in force, then one cell is set.
//!
//! Order: what ids mean (state file), columns, pairs, records with their value before and after, the cell. What the
//! commit made superfluous is deleted when no program can be using it. Until the cell is set everything can be taken back, and is
//! when a write fails. See *Publishing* in `ARCHITECTURE.md`.

mod blocks;
pub(crate) mod encode;
mod floor;
mod garbage;
mod grace;
mod journal;
mod resume;

use std::collections::{BTreeMap, HashMap, HashSet};

use netverdict_abi::{ColumnPortKey, ColumnRangeKey, Endpoint, EndpointClasses, Peer, PeerVersions, map::peer_flag};
use netverdict_policy::{
    ObjectKey,
    tables::{Change, IdFloor, Owner, OwnerId, SubjectEntry},
};

use self::{
    blocks::Blocks,
    encode::{ABSENT, BadId},
    floor::floor_above,
    garbage::{Deferred, Garbage},
    journal::Journal,
};
use crate::{
    endpoints::{Endpoints, Judged, Standing, ready},
    error::{ProbeError, PublishError},
    maps::{Maps, Prefix},
    state::{Line, StateFile, higher},
};

/// What is published, and what is left to do about it.
pub(crate) struct Publisher {
    revision: u64,
    floor: IdFloor,
    blocks: Blocks,
    /// Where the parts of each column are.
    columns: HashMap<u32, ColumnKeys>,
    /// Whether this process has published.
    published: bool,
    /// Local pods of the revision in force. Empty until this process has published.
    subjects: BTreeMap<ObjectKey, SubjectEntry>,
    /// Of owners that are pods.
    uids: HashMap<OwnerId, String>,
    deferred: Deferred,
    /// Writes that could not be taken back yet.
    unfinished: Journal,
}

#[derive(Clone, Debug, Default)]
struct ColumnKeys {
    ports: Vec<ColumnPortKey>,
    ranges: Vec<Prefix<ColumnRangeKey>>,
}

/// Why a publication stopped before its commit.
enum Stop {
    Probe(ProbeError),
    BadId(BadId),
}

impl From<ProbeError> for Stop {
    fn from(error: ProbeError) -> Self {
        Self::Probe(error)
    }
}

impl From<BadId> for Stop {
    fn from(error: BadId) -> Self {
        Self::BadId(error)
    }
}

impl Publisher {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn floor(&self) -> IdFloor {
        self.floor
    }

    /// How far the tables of a pod are.
    pub(crate) fn standing(&self, pod: &ObjectKey, pod_uid: &str) -> Standing {
        match self.judged(&self.subjects, pod, pod_uid) {
            Some(judged) => Standing::Complete(judged),
            None if self.published => Standing::Incomplete,
            None => Standing::NotYetPublished,
        }
    }

    /// See [`crate::Probe::publish`].
    pub(crate) fn publish(
        &mut self,
        maps: &mut Maps,
        state: &mut StateFile,
        endpoints: &Endpoints,
        snapshot: u64,
        change: &Change,
    ) -> Result<u64, PublishError> {
        let in_force = self.revision;
        let failed = |stop| match stop {
            Stop::Probe(ProbeError::MapFull { map, limit }) => PublishError::MapFull { map, limit, in_force },
            Stop::Probe(source) => PublishError::NotWritten { in_force, source },
            Stop::BadId(BadId { what, id, expected }) => PublishError::BadId { what, id, expected },
        };
        self.finish_last(maps).map_err(|error| failed(error.into()))?;
        self.explain(state, snapshot, change).map_err(|error| failed(error.into()))?;

        let revision = in_force + 1;
        let mut journal = Journal::default();
        let written = self.write(maps, &mut journal, endpoints, revision, change).and_then(|next| {
            maps.set_revision(revision)?;
            Ok(next)
        });
        match written {
            Ok(next) => {
                journal.keep();
                self.revision = revision;
                self.take_on(maps, endpoints, next, change);
                Ok(revision)
            }
            Err(stop) => {
                self.deferred.wait();
                if let Err(error) = journal.roll_back(maps) {
                    tracing::error!(error = %error, "publication cannot be taken back yet");
                }
                self.unfinished = journal;
                self.deferred.put(Garbage::default());
                Err(failed(stop))
            }
        }
    }

    /// A record was written outside a publication.
    pub(crate) fn note_write(&mut self) {
        self.deferred.note_write();
    }

    /// Deletes what the last commit made superfluous, if its grace period is over; `true` if nothing is left.
    pub(crate) fn collect_garbage(&mut self, maps: &mut Maps) -> Result<bool, ProbeError> {
        self.unfinished.roll_back(maps)?;
        self.deferred.try_finish(maps)
    }

    fn finish_last(&mut self, maps: &mut Maps) -> Result<(), ProbeError> {
        self.unfinished.roll_back(maps)?;
        self.deferred.finish(maps)
    }

    /// Appends what the new ids mean, before any map holds one.
    fn explain(&mut self, state: &mut StateFile, snapshot: u64, change: &Change) -> Result<(), ProbeError> {
        let floor = higher(self.floor, floor_above(&change.put, &change.owners));
        let mut lines = Vec::with_capacity(change.attributions.len() + change.owners.len() + 2);
        if floor != self.floor {
            lines.push(Line::Floor(floor));
        }
        lines.extend(change.owners.iter().map(|(id, owner)| Line::Owner(*id, owner.clone())));
        lines.extend(change.attributions.iter().map(|(id, decision)| Line::Attribution(*id, decision.clone())));
        lines.push(Line::Revision { revision: self.revision + 1, snapshot });
        state.append(&lines)?;
        self.floor = floor;
        self.uids.extend(change.owners.iter().filter_map(|(id, owner)| Some((*id, uid(owner)?.to_owned()))));
        Ok(())
    }

    /// Writes everything but the cell.
    fn write(
        &self,
        maps: &mut Maps,
        journal: &mut Journal,
        endpoints: &Endpoints,
        revision: u64,
        change: &Change,
    ) -> Result<Next, Stop> {
        let mut garbage = Garbage::default();
        let columns = self.write_columns(maps, journal, change, &mut garbage)?;
        write_pairs(maps, journal, change, &mut garbage)?;
        self.write_addresses(maps, journal, revision, change, &mut garbage)?;
        let blocks = self.write_blocks(maps, journal, revision, change, &mut garbage)?;
        let subjects = self.next_subjects(change);
        self.write_endpoints(maps, journal, endpoints, revision, &subjects)?;
        Ok(Next { columns, blocks, subjects, garbage })
    }

    fn write_columns(
        &self,
        maps: &mut Maps,
        journal: &mut Journal,
        change: &Change,
        garbage: &mut Garbage,
    ) -> Result<HashMap<u32, ColumnKeys>, Stop> {
        let mut written = HashMap::new();
        for (&id, column) in &change.put.columns {
            let parts = encode::column(id, column)?;
            let mut keys = ColumnKeys::default();
            for (key, decision) in parts.ports {
                journal.put_port(maps, key, decision)?;
                keys.ports.push(key);
            }
            for (key, decision) in parts.ranges {
                journal.put_range(maps, key, decision)?;
                keys.ranges.push(key);
            }
            // Last: it leads to the others.
            journal.put_column(maps, parts.id, parts.column)?;
            written.insert(parts.id, keys);
        }
        let superfluous: Vec<u32> = if change.complete {
            self.columns.keys().copied().filter(|id| !written.contains_key(id)).collect()
        } else {
            change.delete.columns.iter().map(|id| id.0).collect()
        };
        for id in superfluous {
            if let Some(keys) = self.columns.get(&id) {
                garbage.ports.extend(&keys.ports);
                garbage.ranges.extend(&keys.ranges);
                garbage.columns.push(id);
            }
        }
        Ok(written)
    }

    fn write_addresses(
        &self,
        maps: &mut Maps,
        journal: &mut Journal,
        revision: u64,
        change: &Change,
        garbage: &mut Garbage,
    ) -> Result<(), Stop> {
        let mut kept = HashSet::new();
        for (&address, entry) in &change.put.addresses {
            let key = encode::address(address);
            let known = maps.addresses.get(&key)?;
            let before = self.in_force(known);
            let after = encode::peer(entry);
            if before != after {
                journal.put_address(maps, key, known, PeerVersions { since: revision, before, after })?;
            }
            if change.complete {
                kept.insert(key);
            }
        }
        let superfluous: Vec<_> = if change.complete {
            maps.addresses.keys()?.into_iter().filter(|key| !kept.contains(key)).collect()
        } else {
            change.delete.addresses.iter().map(|address| encode::address(*address)).collect()
        };
        for key in superfluous {
            let Some(known) = maps.addresses.get(&key)? else { continue };
            let before = self.in_force(Some(known));
            if before.flags & peer_flag::ABSENT == 0 {
                journal.put_address(maps, key, Some(known), PeerVersions { since: revision, before, after: ABSENT })?;
            }
            garbage.addresses.push(key);
        }
        Ok(())
    }

    fn write_blocks(
        &self,
        maps: &mut Maps,
        journal: &mut Journal,
        revision: u64,
        change: &Change,
        garbage: &mut Garbage,
    ) -> Result<Blocks, Stop> {
        let mut next = if change.complete { Blocks::default() } else { self.blocks.clone() };
        for block in &change.delete.blocks {
            next.remove(&encode::block(block));
        }
        for (block, entry) in &change.put.blocks {
            next.insert(encode::block(block), encode::peer(entry));
        }
        let held = maps.blocks.keys()?.into_iter().collect();
        let writes = self.blocks.writes_to(&next, &held, revision);
        for (block, versions) in writes.puts {
            journal.put_block(maps, block, versions)?;
        }
        garbage.blocks = writes.garbage;
        Ok(next)
    }

    /// Records of endpoints that are ready and are judged otherwise from now on. The others wait for the commit. The
    /// owner has no version: a new id means the same pod, for the one behind an interface never changes.
    fn write_endpoints(
        &self,
        maps: &mut Maps,
        journal: &mut Journal,
        endpoints: &Endpoints,
        revision: u64,
        subjects: &BTreeMap<ObjectKey, SubjectEntry>,
    ) -> Result<(), Stop> {
        for subject in subjects.values() {
            // Also of pods that are not bound: bad ids are found before anything depends on them.
            encode::classes(subject)?;
        }
        for endpoint in endpoints.all() {
            let Some(judged) = self.judged(subjects, &endpoint.pod, &endpoint.pod_uid) else { continue };
            let Some(known) = maps.endpoints.get(&endpoint.ifindex)? else { continue };
            if known.ready == 0 {
                continue;
            }
            let before = if self.revision >= known.since { known.after } else { known.before };
            if before == judged.classes && known.owner == judged.owner {
                continue;
            }
            let record = Endpoint { since: revision, before, after: judged.classes, owner: judged.owner, ..known };
            journal.put_endpoint(maps, endpoint.ifindex, known, record)?;
        }
        Ok(())
    }

    /// After the commit: keeps what was written in mind, and makes endpoints ready or not ready.
    fn take_on(&mut self, maps: &mut Maps, endpoints: &Endpoints, next: Next, change: &Change) {
        let Next { columns, blocks, subjects, garbage } = next;
        if change.complete {
            self.columns.clear();
        } else {
            for id in &change.delete.columns {
                self.columns.remove(&id.0);
            }
        }
        self.columns.extend(columns);
        self.blocks = blocks;
        self.subjects = subjects;
        self.published = true;
        if let Err(error) = self.settle_endpoints(maps, endpoints) {
            // They stay as they are: an endpoint that is not ready is denied, never let through.
            tracing::error!(error = %error, "endpoints cannot be made ready");
        }
        self.deferred.put(garbage);
    }

    /// Makes endpoints whose tables are complete ready, and those without a subject not ready, bound or not: what
    /// they were judged by is about to be deleted.
    fn settle_endpoints(&self, maps: &mut Maps, endpoints: &Endpoints) -> Result<(), ProbeError> {
        for ifindex in maps.endpoints.keys()? {
            let Some(known) = maps.endpoints.get(&ifindex)? else { continue };
            let judged =
                endpoints.get(ifindex).and_then(|bound| self.judged(&self.subjects, &bound.pod, &bound.pod_uid));
            match judged {
                Some(judged) if known.ready == 0 => {
                    maps.endpoints.put_after(ifindex, Some(known), ready(ifindex, known.attached_at, judged))?;
                }
                None if known.ready != 0 => {
                    maps.endpoints.put_after(ifindex, Some(known), Endpoint { ready: 0, ..known })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn next_subjects(&self, change: &Change) -> BTreeMap<ObjectKey, SubjectEntry> {
        let mut subjects = if change.complete { BTreeMap::new() } else { self.subjects.clone() };
        for pod in &change.delete.subjects {
            subjects.remove(pod);
        }
        subjects.extend(change.put.subjects.iter().map(|(pod, subject)| (pod.clone(), *subject)));
        subjects
    }

    /// How a pod is judged; `None` while its tables are not complete or its uid is another's.
    fn judged(&self, subjects: &BTreeMap<ObjectKey, SubjectEntry>, pod: &ObjectKey, pod_uid: &str) -> Option<Judged> {
        let subject = subjects.get(pod)?;
        // A pod of the same name may have been made anew; its interface is another.
        if self.uids.get(&subject.owner)? != pod_uid {
            return None;
        }
        let classes: EndpointClasses = encode::classes(subject).ok()?;
        Some(Judged { owner: subject.owner.0, classes })
    }

    /// What a packet of the revision in force takes.
    fn in_force(&self, known: Option<PeerVersions>) -> Peer {
        match known {
            Some(versions) if self.revision >= versions.since => versions.after,
            Some(versions) => versions.before,
            None => ABSENT,
        }
    }
}

/// What holds after the commit.
struct Next {
    columns: HashMap<u32, ColumnKeys>,
    blocks: Blocks,
    subjects: BTreeMap<ObjectKey, SubjectEntry>,
    garbage: Garbage,
}

fn write_pairs(maps: &mut Maps, journal: &mut Journal, change: &Change, garbage: &mut Garbage) -> Result<(), Stop> {
    let mut kept = HashSet::new();
    for (&(class, identity), &outcome) in &change.put.pairs {
        let key = encode::pair(class, identity)?;
        journal.put_pair(maps, key, encode::decision(outcome)?)?;
        if change.complete {
            kept.insert(key);
        }
    }
    garbage.pairs = if change.complete {
        maps.pairs.keys()?.into_iter().filter(|key| !kept.contains(key)).collect()
    } else {
        change.delete.pairs.iter().map(|&(class, identity)| encode::pair(class, identity)).collect::<Result<_, _>>()?
    };
    Ok(())
}

fn uid(owner: &Owner) -> Option<&str> {
    match owner {
        Owner::Pod { uid, .. } => Some(uid),
        Owner::Node { .. } | Owner::Service { .. } => None,
    }
}
