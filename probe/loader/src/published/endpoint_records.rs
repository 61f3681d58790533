//! `ENDPOINTS`: host interface → how the pod behind it is judged, before and after a revision.
//!
//! A publication rewrites only the records of endpoints that are ready already. A record that becomes ready, or stops being
//! ready, is written after the commit (see [`crate::publish`]), and binding an interface writes its record too (see
//! [`crate::endpoints`]).

use netverdict_abi::{Endpoint, EndpointClasses, map::name};
use netverdict_policy::tables::{IdFloor, SubjectEntry};

use super::{
    encode::{self, BadId},
    floor::raise,
    map::{Plan, PlanError, PublishedMap, Update},
};
use crate::{
    maps::table::{Hash, Table},
    options::ProbeOptions,
};

pub(crate) type EndpointTable = Table<Hash<u32, Endpoint>>;

/// How an endpoint is judged once its tables are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubjectRecord {
    pub(crate) owner: u32,
    pub(crate) classes: EndpointClasses,
}

impl SubjectRecord {
    /// # Errors
    /// An id has no encoding.
    pub(crate) fn encode(subject: &SubjectEntry) -> Result<Self, BadId> {
        let SubjectEntry { owner, egress_class, ingress_class, egress_default, ingress_default } = *subject;
        let classes = EndpointClasses {
            egress_class: encode::class_number(egress_class)?,
            ingress_class: encode::class_number(ingress_class)?,
            egress_default: encode::policy_entry(egress_default)?,
            ingress_default: encode::policy_entry(ingress_default)?,
        };
        Ok(Self { owner: owner.0, classes })
    }

    pub(crate) fn raise_floor(&self, floor: &mut IdFloor) {
        raise(&mut floor.owner, self.owner);
        raise_for_classes(floor, &self.classes);
    }

    /// A ready record that says the same before and after any publication.
    pub(crate) fn into_ready(self, ifindex: u32, attached_at: u64) -> Endpoint {
        let Self { owner, classes } = self;
        Endpoint {
            since: 0,
            before: classes,
            after: classes,
            attached_at,
            ifindex,
            owner,
            ready: 1,
            reserved: [0; 7],
            reserved_tail: 0,
        }
    }
}

#[derive(Default)]
pub(crate) struct EndpointRecords;

impl PublishedMap for EndpointRecords {
    type Store = Hash<u32, Endpoint>;

    const NAME: &'static str = name::ENDPOINTS;

    fn limit(options: &ProbeOptions) -> u32 {
        options.max_endpoints
    }

    fn raise_floor(floor: &mut IdFloor, _ifindex: &u32, record: &Endpoint) {
        raise(&mut floor.owner, record.owner);
        raise_for_classes(floor, &record.before);
        raise_for_classes(floor, &record.after);
    }

    fn plan(&mut self, table: &Table<Self::Store>, update: &Update<'_>) -> Result<Plan<Self::Store>, PlanError> {
        let mut plan = Plan::default();
        for (&ifindex, subject) in update.subjects {
            let Some(known) = table.get(&ifindex)?.filter(|known| known.ready != 0) else { continue };
            let before = known.as_of(update.in_force);
            if before == subject.classes && known.owner == subject.owner {
                continue;
            }
            // The owner has no second side: the pod behind an interface never changes, so a new owner id means the same pod.
            let SubjectRecord { owner, classes: after } = *subject;
            plan.replace(ifindex, Some(known), Endpoint { since: update.revision, before, after, owner, ..known });
        }
        Ok(plan)
    }
}

fn raise_for_classes(floor: &mut IdFloor, classes: &EndpointClasses) {
    raise(&mut floor.class, classes.egress_class);
    raise(&mut floor.class, classes.ingress_class);
}
