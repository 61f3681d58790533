//! `ENDPOINTS`: host interface → how the pod behind it is judged, before and after a revision.
//!
//! A publication rewrites only the records of endpoints that are ready already. A record that becomes ready, or stops being
//! ready, is written after the commit (see [`crate::publish`]), and binding an interface writes its record too (see
//! [`crate::endpoints`]).

use netverdict_abi::{Endpoint, map::name};
use netverdict_policy::tables::IdFloor;

use super::{
    floor::{raise, raise_for_classes},
    map::{Plan, PlanError, PublishedMap, Update},
    subject_record::SubjectRecord,
};
use crate::{
    maps::table::{Hash, Table},
    options::ProbeOptions,
};

pub(crate) type EndpointTable = Table<Hash<u32, Endpoint>>;

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
            let before = *known.as_of(update.in_force);
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
