//! Pods that no selector can tell apart share a profile, so that a selector is evaluated once for all of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use super::{
    counter::Counter,
    hashing::QuickMap,
    identity::{AttributesId, AttributesTable, PeerAttributes},
    interning::Move,
    terms::{TermChange, TermId, Terms},
};
use crate::{
    evaluate::selector,
    model::{ContainerPort, Peer, Pod, Snapshot},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ProfileId(u32);

#[derive(Debug)]
pub(super) struct Profiles {
    ids: HashMap<ProfileKey, ProfileId>,
    profiles: QuickMap<ProfileId, Profile>,
    scopes: BTreeMap<String, Scope>,
    next: Counter,
}

#[derive(Debug)]
struct Profile {
    key: ProfileKey,
    pods: usize,
    /// With the number of pods that have each.
    addresses: BTreeMap<IpAddr, usize>,
    attributes: AttributesId,
}

/// A namespace that has pods.
#[derive(Debug, Default)]
struct Scope {
    /// Terms for pods whose namespaces include this one; sorted.
    terms: Vec<TermId>,
    profiles: BTreeSet<ProfileId>,
}

/// A pod, compared by the fields that selectors and named ports read.
#[derive(Clone, Debug)]
struct ProfileKey(Arc<Pod>);

impl PartialEq for ProfileKey {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.namespace == b.namespace && a.labels == b.labels && a.container_ports == b.container_ports
    }
}

impl Eq for ProfileKey {}

impl Hash for ProfileKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Pod { namespace, labels, container_ports, .. } = &*self.0;
        (namespace, labels, container_ports).hash(state);
    }
}

impl Default for Profiles {
    fn default() -> Self {
        Self { ids: HashMap::new(), profiles: QuickMap::default(), scopes: BTreeMap::new(), next: Counter::from(0) }
    }
}

impl Profiles {
    pub(super) fn attributes(&self, id: ProfileId) -> Option<AttributesId> {
        self.profiles.get(&id).map(|profile| profile.attributes)
    }

    pub(super) fn addresses(&self, id: ProfileId) -> impl Iterator<Item = IpAddr> {
        self.profiles.get(&id).into_iter().flat_map(|profile| profile.addresses.keys().copied())
    }

    pub(super) fn find(&self, pod: &Arc<Pod>) -> Option<ProfileId> {
        self.ids.get(&ProfileKey(Arc::clone(pod))).copied()
    }

    /// Adds a pod, without its addresses.
    pub(super) fn retain(
        &mut self,
        snapshot: &Snapshot,
        terms: &Terms,
        attributes_table: &mut AttributesTable,
        pod: &Arc<Pod>,
    ) -> ProfileId {
        let key = ProfileKey(Arc::clone(pod));
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                let id = ProfileId(self.next.take());
                let scope = self.scopes.entry(pod.namespace.clone()).or_insert_with(|| Scope {
                    terms: terms_in_scope(snapshot, terms, &pod.namespace),
                    profiles: BTreeSet::new(),
                });
                scope.profiles.insert(id);
                let attributes = attributes_table.add_member(read(pod, &scope.terms, terms));
                self.ids.insert(key.clone(), id);
                self.profiles.insert(id, Profile { key, pods: 0, addresses: BTreeMap::new(), attributes });
                id
            }
        };
        if let Some(profile) = self.profiles.get_mut(&id) {
            profile.pods += 1;
        }
        id
    }

    /// Adds addresses of a pod that has been added.
    pub(super) fn add_addresses(&mut self, id: ProfileId, addresses: &[IpAddr]) {
        if let Some(profile) = self.profiles.get_mut(&id) {
            for address in addresses {
                *profile.addresses.entry(*address).or_default() += 1;
            }
        }
    }

    /// Removes a pod.
    pub(super) fn release(&mut self, id: ProfileId, addresses: &[IpAddr], attributes_table: &mut AttributesTable) {
        let Some(profile) = self.profiles.get_mut(&id) else { return };
        profile.pods -= 1;
        for address in addresses {
            if let Some(pods) = profile.addresses.get_mut(address) {
                *pods -= 1;
                if *pods == 0 {
                    profile.addresses.remove(address);
                }
            }
        }
        if profile.pods == 0 {
            attributes_table.remove_member(profile.attributes);
            let namespace = &profile.key.0.namespace;
            if let Some(scope) = self.scopes.get_mut(namespace) {
                scope.profiles.remove(&id);
                if scope.profiles.is_empty() {
                    self.scopes.remove(namespace);
                }
            }
            self.ids.remove(&profile.key);
            self.profiles.remove(&id);
        }
    }

    /// Evaluates profiles again where terms or labels of namespaces changed. Returns profiles whose attributes changed.
    pub(super) fn update(
        &mut self,
        snapshot: &Snapshot,
        terms: &Terms,
        change: &TermChange,
        namespaces: &BTreeSet<String>,
        attributes_table: &AttributesTable,
    ) -> Vec<(ProfileId, Move<PeerAttributes, AttributesId>)> {
        let mut moves = Vec::new();
        let added: Vec<&(TermId, Arc<Peer>)> =
            change.added.iter().filter(|(_, peer)| matches!(**peer, Peer::Pods { .. })).collect();
        let removes = change.removed.values().any(|peer| matches!(**peer, Peer::Pods { .. }));
        let idle = added.is_empty() && !removes && change.names.is_empty();
        for (namespace, scope) in &mut self.scopes {
            let relabelled = namespaces.contains(namespace);
            if idle && !relabelled {
                continue;
            }
            let before = scope.terms.len();
            let mut new_terms = Vec::new();
            if relabelled {
                scope.terms = terms_in_scope(snapshot, terms, namespace);
            } else {
                scope.terms.retain(|term| !change.removed.contains_key(term));
                new_terms
                    .extend(added.iter().filter(|(_, peer)| in_scope(snapshot, peer, namespace)).map(|(id, _)| *id));
                if scope.terms.len() == before && new_terms.is_empty() && change.names.is_empty() {
                    continue;
                }
                // Ids ascend, so the list stays sorted.
                scope.terms.extend(&new_terms);
            }
            for id in &scope.profiles {
                let Some(profile) = self.profiles.get(id) else { continue };
                let Some(old) = attributes_table.get(profile.attributes) else { continue };
                let pod = &profile.key.0;
                let attributes = if relabelled {
                    read(pod, &scope.terms, terms)
                } else {
                    update(old, pod, &new_terms, terms, change)
                };
                if attributes != *old {
                    moves.push((*id, Move { from: Some(profile.attributes), to: Some(attributes), members: 1 }));
                }
            }
        }
        moves
    }

    /// Sets the attributes of a profile. Returns whether they are others than before.
    pub(super) fn set_attributes(&mut self, id: ProfileId, attributes: AttributesId) -> bool {
        let Some(profile) = self.profiles.get_mut(&id) else { return false };
        std::mem::replace(&mut profile.attributes, attributes) != attributes
    }
}

fn terms_in_scope(snapshot: &Snapshot, terms: &Terms, namespace: &str) -> Vec<TermId> {
    terms.iter().filter(|(_, peer)| in_scope(snapshot, peer, namespace)).map(|(id, _)| id).collect()
}

fn in_scope(snapshot: &Snapshot, peer: &Peer, namespace: &str) -> bool {
    matches!(peer, Peer::Pods { namespaces, .. } if selector::in_scope(snapshot, namespaces, namespace))
}

fn read(pod: &Pod, in_scope: &[TermId], terms: &Terms) -> PeerAttributes {
    let fulfilled = in_scope.iter().copied().filter(|term| selects(terms, *term, pod)).collect();
    PeerAttributes { terms: fulfilled, ports: ports_read(pod, terms), own_node: false }
}

/// [`read`], where only terms and names changed. `new_terms`: those in scope.
fn update(old: &PeerAttributes, pod: &Pod, new_terms: &[TermId], terms: &Terms, change: &TermChange) -> PeerAttributes {
    let kept = old.terms.iter().filter(|term| !change.removed.contains_key(term));
    let fulfilled = kept.chain(new_terms.iter().filter(|term| selects(terms, **term, pod))).copied().collect();
    let ports = if change.names.is_empty() { old.ports.clone() } else { ports_read(pod, terms) };
    PeerAttributes { terms: fulfilled, ports, own_node: false }
}

fn selects(terms: &Terms, term: TermId, pod: &Pod) -> bool {
    matches!(terms.get(term), Some(Peer::Pods { pods, .. }) if selector::matches(pods, &pod.labels))
}

fn ports_read(pod: &Pod, terms: &Terms) -> Vec<ContainerPort> {
    let mut ports: Vec<_> = pod.container_ports.iter().filter(|port| terms.has_name(&port.name)).cloned().collect();
    ports.sort();
    ports.dedup();
    ports
}
