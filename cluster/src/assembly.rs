//! The objects of all sources, read into one snapshot and kept up to date: the cost of a change follows its size.
//!
//! The snapshot is that of [`netverdict_manifest::snapshot`] for all objects in the order of their origins; only
//! objects that changed are read again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ipnet::IpNet;
use netverdict_manifest::{Object, Reading, Severity, code, implied_namespace};
use netverdict_policy::{ObjectKey, Snapshot, model::PolicyKey};

use crate::{
    generations::Generations,
    identity::ObjectIdentity,
    kept::KeptObject,
    layers::Layers,
    source::{Change, Fault, Layer},
};

/// Policies as they were written.
pub type PolicyObjects = BTreeMap<PolicyKey, Arc<Object>>;

#[derive(Debug, Default)]
pub struct Assembly {
    layers: Layers,
    /// The objects that count, as they were read.
    read: HashMap<ObjectIdentity, ReadObject>,
    snapshot: Arc<Snapshot>,
    policies: Arc<PolicyObjects>,
    /// How many pods and policies are in a namespace, and how many nodes have a pod range: implied objects go with the
    /// last of them.
    namespaces: HashMap<String, usize>,
    ranges: HashMap<IpNet, usize>,
}

#[derive(Debug)]
struct ReadObject {
    object: Arc<KeptObject>,
    says: Says,
    policies: Vec<Arc<Object>>,
    /// Findings of severity error.
    errors: Vec<String>,
}

/// The snapshot of a single object. For a pod, of which there are many, it follows from its identity and the whole snapshot.
#[derive(Debug)]
enum Says {
    Pod,
    Other(Box<Snapshot>),
}

impl Says {
    fn of(says: Snapshot) -> Self {
        let is_pod = says.pods.len() == 1;
        let only_pods = Snapshot { pods: BTreeMap::new(), ..says.clone() } == Snapshot::default();
        if is_pod && only_pods { Self::Pod } else { Self::Other(Box::new(says)) }
    }

    fn into_snapshot(self, identity: &ObjectIdentity, whole: &Snapshot) -> Snapshot {
        match self {
            Self::Other(says) => *says,
            Self::Pod => {
                let key = ObjectKey::new(&identity.namespace, &identity.name);
                let pod = whole.pods.get(&key).cloned();
                Snapshot { pods: pod.map(|pod| (key, pod)).into_iter().collect(), ..Snapshot::default() }
            }
        }
    }

    fn defines(&self, namespace: &str) -> bool {
        match self {
            Self::Pod => false,
            Self::Other(says) => says.namespaces.contains_key(namespace),
        }
    }
}

impl Assembly {
    /// Applies changes of the source that is `layer`, all together.
    pub fn apply(&mut self, layer: Layer, changes: Vec<Change>, generations: &mut Generations) {
        for identity in self.layers.apply(layer, changes) {
            self.update(identity, generations);
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// The policies of the snapshot as they were written.
    pub fn policies(&self) -> Arc<PolicyObjects> {
        self.policies.clone()
    }

    /// Findings of severity error: objects and fields that may be missing in the snapshot.
    pub fn errors(&self) -> impl Iterator<Item = &String> {
        self.read.values().flat_map(|read| &read.errors)
    }

    /// Parts that the sources could not read.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.layers.faults()
    }

    /// Reads an object again if another one counts now.
    fn update(&mut self, identity: ObjectIdentity, generations: &mut Generations) {
        let Some(object) = self.layers.get(&identity).cloned() else {
            if let Some(read) = self.read.remove(&identity) {
                let says = read.says.into_snapshot(&identity, &self.snapshot);
                self.replace(says, read.policies, Reading::default());
            }
            return;
        };
        if self.read.get(&identity).is_some_and(|read| Arc::ptr_eq(&read.object, &object)) {
            return;
        }
        let mut counted = object.whole();
        generations.count(&mut counted);
        let reading = netverdict_manifest::snapshot(std::slice::from_ref(&counted));
        let errors = reading.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let errors = errors.map(ToString::to_string).collect();
        let before = self.read.remove(&identity);
        let before = before.map(|read| (read.says.into_snapshot(&identity, &self.snapshot), read.policies));
        let before = before.unwrap_or_default();
        let (says, policies) = self.replace(before.0, before.1, reading);
        self.read.insert(identity, ReadObject { object, says: Says::of(says), policies, errors });
    }

    /// Replaces the earlier content of an object by its present one.
    fn replace(
        &mut self,
        before: Snapshot,
        old_policies: Vec<Arc<Object>>,
        reading: Reading,
    ) -> (Snapshot, Vec<Arc<Object>>) {
        let Reading { snapshot: mut now, findings, objects } = reading;
        if findings.iter().any(|finding| finding.code == code::IMPLIED_NAMESPACE) {
            // Others may define it.
            now.namespaces.clear();
        }
        let snapshot = Arc::make_mut(&mut self.snapshot);
        replace_entries(&mut snapshot.pods, &before.pods, &now.pods);
        replace_entries(&mut snapshot.nodes, &before.nodes, &now.nodes);
        replace_entries(&mut snapshot.services, &before.services, &now.services);
        replace_entries(&mut snapshot.policies, &before.policies, &now.policies);
        replace_entries(&mut snapshot.namespaces, &before.namespaces, &now.namespaces);
        if !old_policies.is_empty() || !objects.is_empty() {
            let policies = Arc::make_mut(&mut self.policies);
            old_policies.iter().for_each(|object| _ = policies.remove(&key_of(object)));
            policies.extend(objects.iter().map(|object| (key_of(object), object.clone())));
        }
        self.imply(&before, &now);
        (now, objects)
    }

    /// Namespaces without a definition, and the ranges of nodes.
    fn imply(&mut self, before: &Snapshot, now: &Snapshot) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        for range in &now.pod_ranges {
            *self.ranges.entry(*range).or_default() += 1;
            snapshot.pod_ranges.insert(*range);
        }
        for range in &before.pod_ranges {
            if is_last(&mut self.ranges, range) {
                snapshot.pod_ranges.remove(range);
            }
        }
        for name in namespaced(now) {
            *self.namespaces.entry(name.clone()).or_default() += 1;
        }
        let of_before: Vec<&String> = namespaced(before).collect();
        for name in &of_before {
            is_last(&mut self.namespaces, *name);
        }
        for name in of_before.into_iter().chain(namespaced(now)).chain(before.namespaces.keys()) {
            let identity = ObjectIdentity::of_namespace(name);
            let is_defined = now.namespaces.contains_key(name)
                || self.read.get(&identity).is_some_and(|read| read.says.defines(name));
            match (is_defined, self.namespaces.contains_key(name)) {
                (true, _) => {}
                (false, true) if snapshot.namespaces.contains_key(name) => {}
                (false, true) => {
                    snapshot.namespaces.insert(name.clone(), Arc::new(implied_namespace(name)));
                }
                (false, false) => _ = snapshot.namespaces.remove(name),
            }
        }
    }
}

fn key_of(object: &Object) -> PolicyKey {
    PolicyKey { kind: object.kind.clone(), namespace: object.namespace.clone(), name: object.name.clone() }
}

fn namespaced(snapshot: &Snapshot) -> impl Iterator<Item = &String> {
    let pods = snapshot.pods.keys().map(|key| &key.namespace);
    pods.chain(snapshot.policies.keys().map(|key| &key.namespace)).filter(|name| !name.is_empty())
}

/// Removes the entries that an object had before and no longer has; each object has few.
fn replace_entries<K: Ord + Clone, V>(
    map: &mut BTreeMap<K, Arc<V>>,
    before: &BTreeMap<K, Arc<V>>,
    now: &BTreeMap<K, Arc<V>>,
) {
    before.keys().filter(|key| !now.contains_key(*key)).for_each(|key| _ = map.remove(key));
    map.extend(now.iter().map(|(key, value)| (key.clone(), value.clone())));
}

/// Decrements a counter. Returns whether it reached zero.
fn is_last<K: std::hash::Hash + Eq + ?Sized, Q: std::hash::Hash + Eq + std::borrow::Borrow<K>>(
    counts: &mut HashMap<Q, usize>,
    key: &K,
) -> bool {
    let Some(count) = counts.get_mut(key) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(key);
    }
    last
}

#[cfg(test)]
mod tests;
