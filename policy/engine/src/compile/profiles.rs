//! Pods that no selector can tell apart share a profile, so that a selector is asked once for all of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use super::{
    counter::Counter,
    hashing::QuickMap,
    identity::{Reading, ReadingId, Readings},
    sharing::Move,
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
    ids: HashMap<Likeness, ProfileId>,
    profiles: QuickMap<ProfileId, Profile>,
    scopes: BTreeMap<String, Scope>,
    next: Counter,
}

#[derive(Debug)]
struct Profile {
    like: Likeness,
    pods: usize,
    /// With how many of the pods have each.
    addresses: BTreeMap<IpAddr, usize>,
    reading: ReadingId,
}

/// A namespace that has pods.
#[derive(Debug, Default)]
struct Scope {
    /// Terms for pods whose namespaces include this one; sorted.
    terms: Vec<TermId>,
    profiles: BTreeSet<ProfileId>,
}

/// A pod as selectors and named ports see it.
#[derive(Clone, Debug)]
struct Likeness(Arc<Pod>);

impl PartialEq for Likeness {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.namespace == b.namespace && a.labels == b.labels && a.container_ports == b.container_ports
    }
}

impl Eq for Likeness {}

impl Hash for Likeness {
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
    pub(super) fn reading(&self, id: ProfileId) -> Option<ReadingId> {
        self.profiles.get(&id).map(|profile| profile.reading)
    }

    pub(super) fn addresses(&self, id: ProfileId) -> impl Iterator<Item = IpAddr> {
        self.profiles.get(&id).into_iter().flat_map(|profile| profile.addresses.keys().copied())
    }

    pub(super) fn find(&self, pod: &Arc<Pod>) -> Option<ProfileId> {
        self.ids.get(&Likeness(Arc::clone(pod))).copied()
    }

    /// Counts a pod in, without its addresses.
    pub(super) fn retain(
        &mut self,
        snapshot: &Snapshot,
        terms: &Terms,
        readings: &mut Readings,
        pod: &Arc<Pod>,
    ) -> ProfileId {
        let like = Likeness(Arc::clone(pod));
        let id = match self.ids.get(&like) {
            Some(id) => *id,
            None => {
                let id = ProfileId(self.next.take());
                let scope = self.scopes.entry(pod.namespace.clone()).or_insert_with(|| Scope {
                    terms: terms_in_scope(snapshot, terms, &pod.namespace),
                    profiles: BTreeSet::new(),
                });
                scope.profiles.insert(id);
                let reading = readings.enter(read(pod, &scope.terms, terms));
                self.ids.insert(like.clone(), id);
                self.profiles.insert(id, Profile { like, pods: 0, addresses: BTreeMap::new(), reading });
                id
            }
        };
        if let Some(profile) = self.profiles.get_mut(&id) {
            profile.pods += 1;
        }
        id
    }

    /// Adds addresses of a pod that has been counted in.
    pub(super) fn house(&mut self, id: ProfileId, addresses: &[IpAddr]) {
        if let Some(profile) = self.profiles.get_mut(&id) {
            for address in addresses {
                *profile.addresses.entry(*address).or_default() += 1;
            }
        }
    }

    /// Counts a pod out.
    pub(super) fn release(&mut self, id: ProfileId, addresses: &[IpAddr], readings: &mut Readings) {
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
            readings.leave(profile.reading);
            let namespace = &profile.like.0.namespace;
            if let Some(scope) = self.scopes.get_mut(namespace) {
                scope.profiles.remove(&id);
                if scope.profiles.is_empty() {
                    self.scopes.remove(namespace);
                }
            }
            self.ids.remove(&profile.like);
            self.profiles.remove(&id);
        }
    }

    /// Reads the profiles again as far as terms or labels of namespaces changed. Returns those that read otherwise.
    pub(super) fn update(
        &mut self,
        snapshot: &Snapshot,
        terms: &Terms,
        change: &TermChange,
        namespaces: &BTreeSet<String>,
        readings: &Readings,
    ) -> Vec<(ProfileId, Move<Reading, ReadingId>)> {
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
            let mut news = Vec::new();
            if relabelled {
                scope.terms = terms_in_scope(snapshot, terms, namespace);
            } else {
                scope.terms.retain(|term| !change.removed.contains_key(term));
                news.extend(added.iter().filter(|(_, peer)| in_scope(snapshot, peer, namespace)).map(|(id, _)| *id));
                if scope.terms.len() == before && news.is_empty() && change.names.is_empty() {
                    continue;
                }
                // Ids ascend, so the list stays sorted.
                scope.terms.extend(&news);
            }
            for id in &scope.profiles {
                let Some(profile) = self.profiles.get(id) else { continue };
                let Some(old) = readings.get(profile.reading) else { continue };
                let pod = &profile.like.0;
                let reading = if relabelled {
                    read(pod, &scope.terms, terms)
                } else {
                    read_again(old, pod, &news, terms, change)
                };
                if reading != *old {
                    moves.push((*id, Move { from: Some(profile.reading), to: Some(reading), members: 1 }));
                }
            }
        }
        moves
    }

    /// Notes where a profile's reading is now. Whether that is another place.
    pub(super) fn settle(&mut self, id: ProfileId, reading: ReadingId) -> bool {
        let Some(profile) = self.profiles.get_mut(&id) else { return false };
        std::mem::replace(&mut profile.reading, reading) != reading
    }
}

fn terms_in_scope(snapshot: &Snapshot, terms: &Terms, namespace: &str) -> Vec<TermId> {
    terms.iter().filter(|(_, peer)| in_scope(snapshot, peer, namespace)).map(|(id, _)| id).collect()
}

fn in_scope(snapshot: &Snapshot, peer: &Peer, namespace: &str) -> bool {
    matches!(peer, Peer::Pods { namespaces, .. } if selector::in_scope(snapshot, namespaces, namespace))
}

fn read(pod: &Pod, in_scope: &[TermId], terms: &Terms) -> Reading {
    let terms_held = in_scope.iter().copied().filter(|term| selects(terms, *term, pod)).collect();
    Reading { terms: terms_held, ports: ports_read(pod, terms), own_node: false }
}

/// As [`read`], where only terms and names changed. `news`: new terms in scope.
fn read_again(old: &Reading, pod: &Pod, news: &[TermId], terms: &Terms, change: &TermChange) -> Reading {
    let kept = old.terms.iter().filter(|term| !change.removed.contains_key(term));
    let terms_held = kept.chain(news.iter().filter(|term| selects(terms, **term, pod))).copied().collect();
    let ports = if change.names.is_empty() { old.ports.clone() } else { ports_read(pod, terms) };
    Reading { terms: terms_held, ports, own_node: false }
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
