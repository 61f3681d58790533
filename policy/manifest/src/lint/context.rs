//! The input of every check: the snapshot, its pods, and the paths of fields in the objects.

use std::collections::BTreeMap;

use netverdict_policy::model::{Direction, Policy, PolicyKey, Rule, Snapshot};
use serde_json::Value;

use super::pod_index::PodIndex;
use crate::{
    finding::{ObjectRef, Report},
    kind::layout,
    object::Object,
    snapshot::Reading,
};

fn key_of(object: &Object) -> PolicyKey {
    PolicyKey { kind: object.kind.clone(), namespace: object.namespace.clone(), name: object.name.clone() }
}

/// The input of the checks.
pub(super) struct Lint<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) pods: PodIndex<'a>,
    objects: BTreeMap<PolicyKey, &'a Object>,
}

impl<'a> Lint<'a> {
    pub(super) fn of(reading: &'a Reading) -> Self {
        let objects = reading.objects.iter().map(|object| (key_of(object), object.as_ref())).collect();
        Self { snapshot: &reading.snapshot, pods: PodIndex::of(&reading.snapshot), objects }
    }

    pub(super) fn report(&self, policy: &PolicyKey) -> Report {
        match self.objects.get(policy) {
            Some(object) => object.report(),
            None => {
                let PolicyKey { kind, namespace, name } = policy.clone();
                Report::about(ObjectRef { api_version: String::new(), kind, namespace, name }, None)
            }
        }
    }

    /// Whether the policy is audited: itself, with its namespace, or with all policies.
    pub(super) fn is_audited(&self, policy: &Policy) -> bool {
        let namespace = self.snapshot.namespaces.get(&policy.key.namespace);
        policy.audit || self.snapshot.audit_all || namespace.is_some_and(|namespace| namespace.audit)
    }

    /// The rule as its object has it.
    fn written(&self, policy: &Policy, rule: &Rule) -> Option<&Value> {
        let spec = self.objects.get(&policy.key)?.value.get("spec")?;
        spec.get(rule.direction.as_str())?.get(usize::try_from(rule.index).ok()?)
    }

    /// Path of the peer at a position of [`Rule::peers`], in which a written peer may have several.
    pub(super) fn peer_path(&self, policy: &Policy, rule: &Rule, position: usize) -> String {
        let field = match rule.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let list = format!("{}.{field}", rule_path(rule.direction, rule.index));
        let written = self.written(policy, rule).and_then(|rule| rule.get(field)).and_then(Value::as_array);
        let Some(layout) = layout(&policy.key.kind) else { return list };
        let mut before = 0;
        for (index, peer) in written.into_iter().flatten().enumerate() {
            before += (layout.peers_of)(peer);
            if position < before {
                return format!("{list}[{index}]");
            }
        }
        list
    }

    /// Path of the entry at a position of [`Rule::ports`].
    pub(super) fn port_path(&self, policy: &Policy, rule: &Rule, position: usize) -> String {
        let field = layout(&policy.key.kind).map_or("ports", |layout| layout.ports);
        format!("{}.{field}[{position}]", rule_path(rule.direction, rule.index))
    }
}

pub(super) fn rule_path(direction: Direction, index: u32) -> String {
    format!("spec.{}[{index}]", direction.as_str())
}

/// Path of the subject.
pub(super) fn subject_path(policy: &Policy) -> &'static str {
    layout(&policy.key.kind).map_or("spec", |layout| layout.subject)
}
