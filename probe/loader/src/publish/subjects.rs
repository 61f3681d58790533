//! The local pods of the revision in force, as their endpoint records have them.

use std::collections::{BTreeMap, HashMap};

use netverdict_policy::{
    ObjectKey,
    tables::{Change, IdFloor, Owner, OwnerId},
};

use crate::{
    endpoints::{Endpoints, Standing},
    published::{encode::BadId, subject_record::SubjectRecord},
};

pub(super) struct Subjects {
    /// `None` until this process has published: then the records of an earlier process still hold.
    in_force: Option<Records>,
    /// Pod uids by owner id. Other owners have none.
    uids: HashMap<OwnerId, String>,
}

/// Every local pod of one revision.
#[derive(Clone, Default)]
pub(super) struct Records(BTreeMap<ObjectKey, SubjectRecord>);

impl Subjects {
    pub(super) fn new(owners: &BTreeMap<OwnerId, Owner>) -> Self {
        let mut subjects = Self { in_force: None, uids: HashMap::new() };
        subjects.learn(owners.iter());
        subjects
    }

    /// Remembers the pod uids of owners.
    pub(super) fn learn<'a>(&mut self, owners: impl Iterator<Item = (&'a OwnerId, &'a Owner)>) {
        self.uids.extend(owners.filter_map(|(id, owner)| Some((*id, uid(owner)?.to_owned()))));
    }

    /// The pods after a change. Encodes all new ones, bound or not, so that an id without an encoding stops the
    /// publication before a map depends on it.
    pub(super) fn after(&self, change: &Change) -> Result<Records, BadId> {
        let mut next = match &self.in_force {
            Some(in_force) if !change.complete => in_force.clone(),
            _ => Records::default(),
        };
        for pod in &change.delete.subjects {
            next.0.remove(pod);
        }
        for (pod, subject) in &change.put.subjects {
            next.0.insert(pod.clone(), SubjectRecord::encode(subject)?);
        }
        Ok(next)
    }

    /// Puts the pods of a committed revision in force.
    pub(super) fn commit(&mut self, next: Records) {
        self.in_force = Some(next);
    }

    /// Whether the tables in force are complete for a pod.
    pub(super) fn standing(&self, pod: &ObjectKey, pod_uid: &str) -> Standing {
        match &self.in_force {
            None => Standing::NotYetPublished,
            Some(records) => self.find(records, pod, pod_uid).map_or(Standing::Incomplete, Standing::Complete),
        }
    }

    /// The records of all bound endpoints whose tables are complete in `records`, by interface.
    pub(super) fn by_interface(&self, records: &Records, endpoints: &Endpoints) -> BTreeMap<u32, SubjectRecord> {
        let record = |endpoint: &crate::endpoint::BoundEndpoint| {
            Some((endpoint.ifindex, self.find(records, &endpoint.pod, &endpoint.pod_uid)?))
        };
        endpoints.all().filter_map(record).collect()
    }

    fn find(&self, records: &Records, pod: &ObjectKey, pod_uid: &str) -> Option<SubjectRecord> {
        let record = records.0.get(pod)?;
        // Another uid is an earlier or a later pod of the same name, which is behind another interface.
        (self.uids.get(&OwnerId(record.owner))? == pod_uid).then_some(*record)
    }
}

impl Records {
    pub(super) fn raise_floor(&self, floor: &mut IdFloor) {
        for record in self.0.values() {
            record.raise_floor(floor);
        }
    }
}

fn uid(owner: &Owner) -> Option<&str> {
    match owner {
        Owner::Pod { uid, .. } => Some(uid),
        Owner::Node { .. } | Owner::Service { .. } => None,
    }
}
