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
    of_namespace: BTreeMap<String, BTreeSet<PolicyKey>>,
    everywhere: BTreeSet<PolicyKey>,
    next: Counter,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            versions: BTreeMap::new(),
            of_namespace: BTreeMap::new(),
            everywhere: BTreeSet::new(),
            next: Counter::from(0),
        }
    }
}

impl Policies {
    /// Returns the versions that came or went.
    pub(super) fn update(&mut self, snapshot: &Snapshot, changed: &BTreeSet<PolicyKey>) -> Vec<Arc<Version>> {
        let mut touched = Vec::new();
        for key in changed {
            if let Some(version) = self.versions.remove(key) {
                self.scope(&version.policy).remove(key);
                touched.push(version);
            }
            if let Some(policy) = snapshot.policies.get(key) {
                self.scope(policy).insert(key.clone());
                let (policy, audited) = (Arc::clone(policy), audited(snapshot, policy));
                let version = Arc::new(Version { number: self.next.take(), policy, audited });
                self.versions.insert(key.clone(), Arc::clone(&version));
                touched.push(version);
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
        let keys = self.of_namespace.get(&pod.namespace).into_iter().flatten().chain(&self.everywhere);
        let versions = keys.filter_map(|key| self.versions.get(key));
        let mut selecting: Vec<_> = versions.filter(|version| version.selects(snapshot, pod)).cloned().collect();
        selecting.sort_by(|a, b| tiers::order(&a.policy, &b.policy));
        selecting
    }

    fn scope(&mut self, policy: &Policy) -> &mut BTreeSet<PolicyKey> {
        match &policy.subject.namespaces {
            NamespaceScope::Named(name) => self.of_namespace.entry(name.clone()).or_default(),
            NamespaceScope::Selected(_) => &mut self.everywhere,
        }
    }
}
