//! The policies in the form in which they stand, each version under a number of its own, and whom they select.

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

/// A policy as it stands until it, or whether it is audited, changes. Versions are equal if they are the same.
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
    /// Those that look into one namespace only, by its name.
    of_namespace: BTreeMap<String, BTreeMap<PolicyKey, Arc<Version>>>,
    everywhere: BTreeMap<PolicyKey, Arc<Version>>,
    next: Counter,
}

/// Versions that came and went.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) came: Vec<Arc<Version>>,
    pub(super) went: Vec<Arc<Version>>,
}

impl Touched {
    pub(super) fn selects(&self, snapshot: &Snapshot, pod: &Pod) -> bool {
        self.came.iter().chain(&self.went).any(|version| version.selects(snapshot, pod))
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
    /// Takes in the policies that changed.
    pub(super) fn update(&mut self, snapshot: &Snapshot, changed: &BTreeSet<PolicyKey>) -> Touched {
        let mut touched = Touched::default();
        for key in changed {
            if let Some(version) = self.versions.remove(key) {
                self.scope(&version.policy).remove(key);
                touched.went.push(version);
            }
            if let Some(policy) = snapshot.policies.get(key) {
                let (policy, audited) = (Arc::clone(policy), audited(snapshot, policy));
                let version = Arc::new(Version { number: self.next.take(), policy, audited });
                self.scope(&version.policy).insert(key.clone(), Arc::clone(&version));
                self.versions.insert(key.clone(), Arc::clone(&version));
                touched.came.push(version);
            }
        }
        self.of_namespace.retain(|_, keys| !keys.is_empty());
        touched
    }

    /// Of all that stand.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.values().map(|version| &**version)
    }

    /// Those that select a pod, in order of evaluation.
    pub(super) fn selecting(&self, snapshot: &Snapshot, pod: &Pod) -> Vec<Arc<Version>> {
        let scopes = self.of_namespace.get(&pod.namespace).into_iter().chain([&self.everywhere]);
        let versions = scopes.flat_map(BTreeMap::values);
        let mut selecting: Vec<_> = versions.filter(|version| version.selects(snapshot, pod)).cloned().collect();
        selecting.sort_by(|a, b| tiers::order(&a.policy, &b.policy));
        selecting
    }

    /// The same, where only policies changed since the answer was `before`.
    pub(super) fn selecting_again(
        before: &[Arc<Version>],
        touched: &Touched,
        snapshot: &Snapshot,
        pod: &Pod,
    ) -> Vec<Arc<Version>> {
        let mut selecting: Vec<Arc<Version>> =
            before.iter().filter(|version| !touched.went.contains(version)).cloned().collect();
        for version in touched.came.iter().filter(|version| version.selects(snapshot, pod)) {
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
