//! Objects of many texts → one snapshot, kept as they come and go: what an edit costs is what it edits.
//!
//! It says what [`netverdict_manifest::snapshot`] would say of all objects in the order of their places, and reads only
//! those anew that another one takes the place of.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;
use netverdict_manifest::{Object, Reading, Severity, code, implied_namespace};
use netverdict_policy::{Snapshot, model::PolicyKey};

use crate::{
    cluster::generations::Generations,
    layered::{Edit, edits},
};

/// Policies as they were written.
pub type Texts = BTreeMap<PolicyKey, Arc<Object>>;

#[derive(Debug, Default)]
pub struct Assembly {
    texts: HashMap<Arc<Path>, Vec<Arc<Object>>>,
    /// Who says what an object is, in order: the last one counts.
    said: HashMap<Identity, BTreeMap<Place, Arc<Object>>>,
    /// What counts now, as it was read.
    read: HashMap<Identity, Read>,
    snapshot: Arc<Snapshot>,
    policies: Arc<Texts>,
    /// Pods and policies by namespace, and nodes by pod range: what they imply goes with the last of them.
    namespaces: HashMap<String, usize>,
    ranges: HashMap<IpNet, usize>,
}

type Place = (Arc<Path>, usize);

/// What [`Object::identity`] says, to keep.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Debug)]
struct Read {
    object: Arc<Object>,
    /// What it alone says.
    said: Snapshot,
    policies: Vec<Arc<Object>>,
    /// Findings of severity error.
    faults: Vec<String>,
}

impl Assembly {
    /// Replaces all objects of a text.
    pub fn replace(&mut self, text: &Path, objects: Vec<Object>, generations: &mut Generations) {
        let path: Arc<Path> = self.texts.get_key_value(text).map_or_else(|| text.into(), |(path, _)| path.clone());
        let before = self.texts.remove(text).unwrap_or_default();
        let mut known: HashMap<Identity, Arc<Object>> = HashMap::new();
        let mut touched = HashSet::new();
        for (index, object) in before.into_iter().enumerate() {
            let identity = Identity::of(&object);
            if let Some(said) = self.said.get_mut(&identity) {
                said.remove(&(path.clone(), index));
            }
            touched.insert(identity.clone());
            known.insert(identity, object);
        }
        let mut now = Vec::with_capacity(objects.len());
        for (index, object) in objects.into_iter().enumerate() {
            let identity = Identity::of(&object);
            // What says the same need not be read again.
            let object = match known.get(&identity) {
                Some(known) if says_the_same(known, &object) => known.clone(),
                _ => Arc::new(object),
            };
            self.said.entry(identity.clone()).or_default().insert((path.clone(), index), object.clone());
            touched.insert(identity);
            now.push(object);
        }
        if !now.is_empty() {
            self.texts.insert(path, now);
        }
        for identity in touched {
            self.settle(identity, generations);
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// The policies of the snapshot as they were written.
    pub fn policies(&self) -> Arc<Texts> {
        self.policies.clone()
    }

    /// Findings of severity error: what may be missing in the snapshot.
    pub fn faults(&self) -> impl Iterator<Item = &String> {
        self.read.values().flat_map(|read| &read.faults)
    }

    /// Reads an object again if another text has the last word on it.
    fn settle(&mut self, identity: Identity, generations: &mut Generations) {
        let last = self.said.get(&identity).and_then(|said| said.last_key_value()).map(|(_, object)| object.clone());
        let Some(object) = last else {
            self.said.remove(&identity);
            if let Some(read) = self.read.remove(&identity) {
                self.turn(read.said, read.policies, Reading::default());
            }
            return;
        };
        if self.read.get(&identity).is_some_and(|read| Arc::ptr_eq(&read.object, &object)) {
            return;
        }
        let mut counted = (*object).clone();
        generations.count(&mut counted);
        let reading = netverdict_manifest::snapshot(std::slice::from_ref(&counted));
        let errors = reading.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let faults = errors.map(ToString::to_string).collect();
        let before = self.read.remove(&identity).map(|read| (read.said, read.policies)).unwrap_or_default();
        let (said, policies) = self.turn(before.0, before.1, reading);
        self.read.insert(identity, Read { object, said, policies, faults });
    }

    /// Puts what an object says now in the place of what it said before.
    fn turn(
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
        take(&mut snapshot.pods, edits(before.pods.iter(), now.pods.iter(), Arc::ptr_eq));
        take(&mut snapshot.nodes, edits(before.nodes.iter(), now.nodes.iter(), Arc::ptr_eq));
        take(&mut snapshot.services, edits(before.services.iter(), now.services.iter(), Arc::ptr_eq));
        take(&mut snapshot.policies, edits(before.policies.iter(), now.policies.iter(), Arc::ptr_eq));
        take(&mut snapshot.namespaces, edits(before.namespaces.iter(), now.namespaces.iter(), Arc::ptr_eq));
        if !old_policies.is_empty() || !objects.is_empty() {
            let policies = Arc::make_mut(&mut self.policies);
            old_policies.iter().for_each(|object| _ = policies.remove(&key_of(object)));
            policies.extend(objects.iter().map(|object| (key_of(object), object.clone())));
        }
        self.imply(&before, &now);
        (now, objects)
    }

    /// Namespaces that nobody defines, and the ranges of nodes.
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
            let identity = Identity::of_namespace(name);
            let is_defined = now.namespaces.contains_key(name)
                || self.read.get(&identity).is_some_and(|read| read.said.namespaces.contains_key(name));
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

impl Identity {
    fn of(object: &Object) -> Self {
        let (group, kind, namespace, name) = object.identity();
        Self { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    fn of_namespace(name: &str) -> Self {
        Self { group: String::new(), kind: "Namespace".into(), namespace: String::new(), name: name.to_owned() }
    }
}

/// Where it stands is said in findings and beside policies, so it counts.
fn says_the_same(a: &Object, b: &Object) -> bool {
    a.origin == b.origin && a.value == b.value
}

fn key_of(object: &Object) -> PolicyKey {
    PolicyKey { kind: object.kind.clone(), namespace: object.namespace.clone(), name: object.name.clone() }
}

fn namespaced(snapshot: &Snapshot) -> impl Iterator<Item = &String> {
    let pods = snapshot.pods.keys().map(|key| &key.namespace);
    pods.chain(snapshot.policies.keys().map(|key| &key.namespace)).filter(|name| !name.is_empty())
}

fn take<K: Ord, V>(map: &mut BTreeMap<K, V>, edits: Vec<Edit<K, V>>) {
    for (key, value) in edits {
        match value {
            Some(value) => _ = map.insert(key, value),
            None => _ = map.remove(&key),
        }
    }
}

/// Counts one less, and says whether none is left.
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
