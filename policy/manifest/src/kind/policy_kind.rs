//! One kind of policy: what the registry of kinds needs of it, and how its parts become a policy of the model.

use netverdict_policy::model::{Isolates, Policy, PolicyKey, Rule, Subject, Tier};
use serde_json::Value;

use super::mode::{MODE_ANNOTATION, is_audited};
use crate::{
    finding::{Invalid, Report, code},
    object::Object,
};

/// Whether objects of a kind live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Namespace,
}

/// Where a kind writes what the model holds.
#[derive(Debug)]
pub struct Layout {
    /// Path of the subject.
    pub subject: &'static str,
    /// The field of a rule that lists its ports.
    pub ports: &'static str,
    /// How many peers of the model a written one becomes.
    pub peers_of: fn(&Value) -> usize,
}

/// How one kind of policy object becomes a [`Policy`].
pub trait PolicyKind: Sync {
    /// As manifests spell it, for instance `NetworkPolicy`.
    fn kind(&self) -> &'static str;

    /// Those that are read, never none, the newest first; objects of another version are not enforced.
    fn api_versions(&self) -> &'static [&'static str];

    fn scope(&self) -> Scope;

    /// Where findings about the model point to in the object.
    fn layout(&self) -> &'static Layout;

    /// The policy, or `None` where it cannot be enforced at all, which the report must then say.
    fn read(&self, object: &Object, report: &mut Report) -> Option<Policy>;
}

/// What a kind read from its object, apart from what all kinds have in common.
pub(super) struct Parts {
    pub(super) tier: Tier,
    pub(super) priority: i32,
    pub(super) subject: Subject,
    pub(super) isolates: Isolates,
    pub(super) rules: Vec<Rule>,
}

pub(super) fn assemble(object: &Object, parts: Parts, report: &mut Report) -> Policy {
    let Parts { tier, priority, subject, isolates, rules } = parts;
    let audit = is_audited(object, report);
    if audit {
        report.info(Invalid::new(
            code::AUDITED,
            format!("metadata.annotations[{MODE_ANNOTATION:?}]"),
            "the policy is audited: it decides nothing, its verdict is recorded beside the real one",
            "remove the annotation to enforce the policy",
        ));
    }
    Policy {
        key: PolicyKey { kind: object.kind.clone(), namespace: object.namespace.clone(), name: object.name.clone() },
        uid: object.uid.clone(),
        generation: object.generation,
        content_hash: object.content_hash.clone(),
        tier,
        priority,
        audit,
        subject,
        isolates,
        rules,
    }
}
