//! Findings that take more than one object: what is enforced as written and seldom what was meant.
//!
//! Nothing here changes a verdict. What a single object gets wrong is found where it is read.

mod addresses;
mod dns;
mod hosts;
mod order;
mod population;
mod ports;
mod selection;

use std::collections::BTreeMap;

use netverdict_policy::model::{Direction, Policy, PolicyKey, Rule, Snapshot, Tier};
use serde_json::Value;

use self::population::Population;
use crate::{
    finding::{Finding, Invalid, ObjectRef, Report},
    object::Object,
    snapshot::Reading,
};

/// Checks the objects of a reading against each other. The findings of single objects are in [`Reading::findings`].
///
/// Where a reading has no pods (or nodes), nothing is said about what selects none of them.
pub fn lint(reading: &Reading) -> Vec<Finding> {
    let objects = reading.objects.iter().map(|object| (key_of(object), object.as_ref())).collect();
    let lint = Lint { snapshot: &reading.snapshot, population: Population::of(&reading.snapshot), objects };
    let dns = dns::Names::of(&lint);
    let mut order = order::check(&lint);
    let mut findings = Vec::new();
    for policy in reading.snapshot.policies.values() {
        let mut report = lint.report(&policy.key);
        selection::check(&lint, policy, &mut report);
        hosts::check(&lint, policy, &mut report);
        ports::check(&lint, policy, &mut report);
        addresses::check(&lint, policy, &mut report);
        dns.check(policy, &mut report);
        for remark in order.remove(&policy.key).unwrap_or_default() {
            match remark {
                order::Remark::Unreachable(invalid) => report.warning(invalid),
                order::Remark::SamePriority(invalid) => report.info(invalid),
            }
        }
        findings.extend(report.finish());
    }
    findings.extend(addresses::duplicates(&lint));
    findings
}

fn key_of(object: &Object) -> PolicyKey {
    PolicyKey { kind: object.kind.clone(), namespace: object.namespace.clone(), name: object.name.clone() }
}

/// What the checks look at.
struct Lint<'a> {
    snapshot: &'a Snapshot,
    population: Population<'a>,
    objects: BTreeMap<PolicyKey, &'a Object>,
}

impl Lint<'_> {
    fn report(&self, policy: &PolicyKey) -> Report {
        match self.objects.get(policy) {
            Some(object) => object.report(),
            None => {
                let PolicyKey { kind, namespace, name } = policy.clone();
                Report::about(ObjectRef { api_version: String::new(), kind, namespace, name }, None)
            }
        }
    }

    /// Whether the policy decides nothing: itself, its namespace or everything is audited.
    fn is_audited(&self, policy: &Policy) -> bool {
        let namespace = self.snapshot.namespaces.get(&policy.key.namespace);
        policy.audit || self.snapshot.audit_all || namespace.is_some_and(|namespace| namespace.audit)
    }

    /// As its object wrote it.
    fn written(&self, policy: &Policy, rule: &Rule) -> Option<&Value> {
        let spec = self.objects.get(&policy.key)?.value.get("spec")?;
        spec.get(rule.direction.as_str())?.get(usize::try_from(rule.index).ok()?)
    }

    /// Path of the peer at a position of [`Rule::peers`], which has one for every network of a written peer.
    fn peer_path(&self, policy: &Policy, rule: &Rule, position: usize) -> String {
        let field = match rule.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let list = format!("{}.{field}", rule_path(rule.direction, rule.index));
        let written = self.written(policy, rule).and_then(|rule| rule.get(field)).and_then(Value::as_array);
        let mut before = 0;
        for (index, peer) in written.into_iter().flatten().enumerate() {
            before += peers_of(peer);
            if position < before {
                return format!("{list}[{index}]");
            }
        }
        list
    }

    /// Path of the entry at a position of [`Rule::ports`].
    fn port_path(&self, policy: &Policy, rule: &Rule, position: usize) -> String {
        let field = self
            .written(policy, rule)
            .and_then(|rule| ["ports", "protocols"].into_iter().find(|f| rule.get(f).is_some()));
        format!("{}.{}[{position}]", rule_path(rule.direction, rule.index), field.unwrap_or("ports"))
    }
}

/// How many peers of the model a written one becomes.
fn peers_of(peer: &Value) -> usize {
    let has = |name: &str| peer.get(name).is_some_and(|value| !value.is_null());
    for list in ["networks", "domainNames"] {
        if let Some(items) = peer.get(list).and_then(Value::as_array) {
            return items.len();
        }
    }
    let selects = has("podSelector") || has("namespaceSelector");
    let other = ["namespaces", "pods", "nodes"].into_iter().any(has);
    usize::from(other || selects != has("ipBlock"))
}

fn rule_path(direction: Direction, index: u32) -> String {
    format!("spec.{}[{index}]", direction.as_str())
}

/// Path of the subject.
fn subject_path(policy: &Policy) -> &'static str {
    match policy.tier {
        Tier::NetworkPolicy => "spec.podSelector",
        Tier::Admin | Tier::Baseline => "spec.subject",
    }
}

fn remark(code: &'static str, field: impl Into<String>, message: impl Into<String>, remedy: &str) -> Invalid {
    Invalid::new(code, field, message, remedy)
}

#[cfg(test)]
mod tests;
