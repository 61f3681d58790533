//! The interface of a policy kind, and the parts that every kind reads alike.

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

/// Where a kind has the fields that findings about the model name.
#[derive(Debug)]
pub struct Layout {
    /// Path of the subject.
    pub subject: &'static str,
    /// The field of a rule that lists its ports.
    pub ports: &'static str,
    /// How many peers of the model a written one becomes.
    pub peers_of: fn(&Value) -> usize,
}

/// Converts one kind of policy object to a [`Policy`].
pub trait PolicyKind: Sync {
    /// The kind, for instance `NetworkPolicy`.
    fn kind(&self) -> &'static str;

    /// The versions that are read: at least one, the newest first, all of one group. Objects of other versions are not enforced.
    fn api_versions(&self) -> &'static [&'static str];

    fn scope(&self) -> Scope;

    /// For findings about the model, which name the field of the object.
    fn layout(&self) -> &'static Layout;

    /// The policy, or `None` where it cannot be enforced; the report then has an error that says why.
    fn read(&self, object: &Object, report: &mut Report) -> Option<Policy>;
}

/// The parts of a policy that depend on its kind.
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
