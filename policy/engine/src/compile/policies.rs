//! The policies in force, each version under a number of its own, and the pods that they select.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::counter::Counter;
use crate::{
    evaluate::{audited, selector, tiers},
    model::{NamespaceScope, Pod, Policy, PolicyKey, Snapshot},
};

/// A policy until it, or whether it is audited, changes. Versions are compared by number.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) number: u32,
    pub(super) policy: Arc<Policy>,
    pub(super) audited: bool,
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl Version {
    pub(super) fn selects(&self, snapshot: &Snapshot, pod: &Pod) -> bool {
        let subject = &self.policy.subject;
        selector::selects(snapshot, &subject.namespaces, &subject.pods, pod)
    }
}

#[derive(Debug)]
pub(super) struct Policies {
    versions: BTreeMap<PolicyKey, Arc<Version>>,
    /// Policies that select pods of one namespace only, by its name.
    of_namespace: BTreeMap<String, BTreeMap<PolicyKey, Arc<Version>>>,
    everywhere: BTreeMap<PolicyKey, Arc<Version>>,
    next: Counter,
}

/// Versions that are new, and versions that are removed.
#[derive(Debug, Default)]
pub(super) struct VersionChange {
    pub(super) added: Vec<Arc<Version>>,
    pub(super) removed: Vec<Arc<Version>>,
}

impl VersionChange {
    pub(super) fn selects(&self, snapshot: &Snapshot, pod: &Pod) -> bool {
        self.added.iter().chain(&self.removed).any(|version| version.selects(snapshot, pod))
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            versions: BTreeMap::new(),
            of_namespace: BTreeMap::new(),
            everywhere: BTreeMap::new(),
            next: Counter::from(0),
        }
    }
}

impl Policies {
    /// Brings the versions up to date with the policies that changed.
    pub(super) fn update(&mut self, snapshot: &Snapshot, changed: &BTreeSet<PolicyKey>) -> VersionChange {
        let mut change = VersionChange::default();
        for key in changed {
            if let Some(version) = self.versions.remove(key) {
                self.scope(&version.policy).remove(key);
                change.removed.push(version);
            }
            if let Some(policy) = snapshot.policies.get(key) {
                let (policy, audited) = (Arc::clone(policy), audited(snapshot, policy));
                let version = Arc::new(Version { number: self.next.take(), policy, audited });
                self.scope(&version.policy).insert(key.clone(), Arc::clone(&version));
                self.versions.insert(key.clone(), Arc::clone(&version));
                change.added.push(version);
            }
        }
        self.of_namespace.retain(|_, keys| !keys.is_empty());
        change
    }

    /// Of all policies in force.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.values().map(|version| &**version)
    }

    /// The policies that select a pod, in order of evaluation.
    pub(super) fn selecting(&self, snapshot: &Snapshot, pod: &Pod) -> Vec<Arc<Version>> {
        let scopes = self.of_namespace.get(&pod.namespace).into_iter().chain([&self.everywhere]);
        let versions = scopes.flat_map(BTreeMap::values);
        let mut selecting: Vec<_> = versions.filter(|version| version.selects(snapshot, pod)).cloned().collect();
        selecting.sort_by(|a, b| tiers::order(&a.policy, &b.policy));
        selecting
    }

    /// [`Policies::selecting`], where only policies changed since it returned `before`.
    pub(super) fn update_selecting(
        before: &[Arc<Version>],
        change: &VersionChange,
        snapshot: &Snapshot,
        pod: &Pod,
    ) -> Vec<Arc<Version>> {
        let mut selecting: Vec<Arc<Version>> =
            before.iter().filter(|version| !change.removed.contains(version)).cloned().collect();
        for version in change.added.iter().filter(|version| version.selects(snapshot, pod)) {
            let before = |other: &Arc<Version>| tiers::order(&other.policy, &version.policy).is_le();
            selecting.insert(selecting.partition_point(before), Arc::clone(version));
        }
        selecting
    }

    fn scope(&mut self, policy: &Policy) -> &mut BTreeMap<PolicyKey, Arc<Version>> {
        match &policy.subject.namespaces {
            NamespaceScope::Named(name) => self.of_namespace.entry(name.clone()).or_default(),
            NamespaceScope::Selected(_) => &mut self.everywhere,
        }
    }
}
