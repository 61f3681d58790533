//! A local pod as its endpoint record has it.

use netverdict_abi::{Endpoint, EndpointClasses};
use netverdict_policy::tables::{IdFloor, SubjectEntry};

use super::{
    encode::{self, BadId},
    floor::{raise, raise_for_classes},
};

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

    /// A ready record with equal values before and after any publication.
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
