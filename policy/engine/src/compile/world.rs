//! Who owns which address, and what live rules can read of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    blocks::Blocks,
    difference::Difference,
    identity::{Reading, Signature},
    profiles::{ProfileId, Profiles},
    terms::{TermChange, TermId, Terms},
};
use crate::{
    address,
    evaluate::{peer, selector},
    model::{NamePattern, Node, ObjectKey, Peer, Pod, Snapshot},
};

#[derive(Debug, Default)]
pub(super) struct World {
    /// The node whose pods are the subjects.
    node: String,
    places: HashMap<IpAddr, Place>,
    profiles: Profiles,
    blocks: Blocks,
    nodes: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Terms for names, by the addresses that the names have; sorted.
    named: BTreeMap<IpAddr, Vec<TermId>>,
}

/// An address that somebody has.
#[derive(Debug, Default)]
struct Place {
    /// In order.
    claims: Vec<Claim>,
    services: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Claim {
    who: Claimant,
    profile: Option<ProfileId>,
    /// A node's address may also be that of several pods on its network.
    times: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimant {
    Pod(ObjectKey),
    Node(String),
}

/// What to look at again.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) blocks: BTreeSet<IpNet>,
}

/// An address or a block as it is now.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) signature: Signature,
    /// Nobody where several claim the address, or none does.
    pub(super) owner: Option<Claimant>,
    /// Set where only a Service has the address.
    pub(super) service: Option<ObjectKey>,
}

impl World {
    pub(super) fn new(node: String) -> Self {
        Self { node, ..Self::default() }
    }

    /// Takes in a new snapshot and new terms.
    pub(super) fn update(
        &mut self,
        old: &Snapshot,
        new: &Snapshot,
        difference: &Difference,
        terms: &Terms,
        change: &TermChange,
    ) -> Dirty {
        let mut dirty = Dirty::default();
        for profile in self.profiles.update(new, terms, change, &difference.namespaces) {
            dirty.addresses.extend(self.profiles.addresses(profile));
        }
        for key in &difference.pods {
            self.replace_pod(old.pods.get(key), new, new.pods.get(key), terms, &mut dirty);
        }
        for name in &difference.nodes {
            self.replace_node(old.nodes.get(name), new.nodes.get(name), &mut dirty);
        }
        for key in &difference.services {
            let (old, new) = (old.services.get(key), new.services.get(key));
            self.replace_service(key, old.map(|s| &*s.addresses), new.map(|s| &*s.addresses), &mut dirty);
        }
        let node_terms = change.added.iter().map(|(_, peer)| &**peer).chain(change.removed.values().map(|peer| &**peer));
        if node_terms.clone().any(|peer| matches!(peer, Peer::Nodes(_))) {
            dirty.addresses.extend(self.nodes.values().flatten());
        }
        let name_terms = node_terms.clone().any(|peer| matches!(peer, Peer::Name(_)));
        if difference.names || name_terms {
            self.set_names(new, terms, &mut dirty);
        }
        let ranges = difference.pod_ranges || !difference.nodes.is_empty();
        dirty.blocks = self.blocks.update(new, change, ranges);
        if !dirty.blocks.is_empty() {
            let places = self.places.keys().chain(self.named.keys());
            let clean = places.filter(|address| !dirty.addresses.contains(*address));
            let inside = clean.filter(|address| dirty.blocks.iter().any(|block| block.contains(*address)));
            let inside: Vec<IpAddr> = inside.copied().collect();
            dirty.addresses.extend(inside);
        }
        dirty
    }

    /// `None` where nobody has the address any more, and no name is known for it that a rule reads.
    pub(super) fn address(&self, snapshot: &Snapshot, terms: &Terms, address: IpAddr) -> Option<Sight> {
        let nowhere = Place::default();
        let named = self.named.get(&address);
        let place = self.places.get(&address).or(named.map(|_| &nowhere))?;
        let block = self.blocks.find(address).map(|(_, block)| block);
        let mut held: Vec<TermId> = block.map(|block| block.terms.clone()).unwrap_or_default();
        held.extend(named.into_iter().flatten());
        held.sort_unstable();
        let claims = place.claims.iter().map(|claim| self.read(snapshot, terms, claim)).collect();
        let service = place.services.first().filter(|_| place.claims.is_empty()).cloned();
        let nobody = place.claims.is_empty() && service.is_none();
        let signature =
            Signature { address: held, claims, unknown_pod: nobody && block.is_some_and(|block| block.pod_range) };
        let owner = match place.claims.as_slice() {
            [only] => Some(only.who.clone()),
            _ => None,
        };
        Some(Sight { signature, owner, service })
    }

    /// `None` where it is no longer needed.
    pub(super) fn block(&self, block: &IpNet) -> Option<Sight> {
        let block = self.blocks.get(block)?;
        let signature = Signature { address: block.terms.clone(), claims: Vec::new(), unknown_pod: block.pod_range };
        Some(Sight { signature, owner: None, service: None })
    }

    /// The longest block that holds the address.
    pub(super) fn longest_block(&self, address: IpAddr) -> Option<IpNet> {
        self.blocks.find(address).map(|(block, _)| block)
    }

    fn read(&self, snapshot: &Snapshot, terms: &Terms, claim: &Claim) -> Arc<Reading> {
        match (&claim.who, claim.profile) {
            (Claimant::Pod(_), profile) => {
                profile.and_then(|profile| self.profiles.reading(profile)).cloned().unwrap_or_default()
            }
            (Claimant::Node(name), _) => {
                let node = snapshot.nodes.get(name);
                let holds = |peer: &Peer| match (peer, node) {
                    (Peer::Nodes(labels), Some(node)) => selector::matches(labels, &node.labels),
                    _ => false,
                };
                let terms = terms.nodes().filter(|(_, peer)| holds(peer)).map(|(id, _)| id).collect();
                Arc::new(Reading { terms, ports: Vec::new(), own_node: !name.is_empty() && *name == self.node })
            }
        }
    }

    fn replace_pod(
        &mut self,
        old: Option<&Arc<Pod>>,
        snapshot: &Snapshot,
        new: Option<&Arc<Pod>>,
        terms: &Terms,
        dirty: &mut Dirty,
    ) {
        // The new one first: a profile that both share stays.
        let profile = new.filter(|pod| pod.takes_part()).map(|pod| self.profiles.retain(snapshot, terms, pod));
        if let Some(pod) = old {
            let (who, addresses) = claims_of(pod);
            if let Some(id) = self.profiles.find(pod).filter(|_| pod.takes_part()) {
                self.profiles.release(id, &addresses);
            }
            if let Some(who) = who {
                self.unclaim(&who, &addresses, dirty);
            }
        }
        let Some((who, addresses)) = new.map(|pod| claims_of(pod)) else { return };
        if let Some(id) = profile {
            self.profiles.house(id, &addresses);
        }
        if let Some(who) = who {
            self.claim(&who, profile, &addresses, dirty);
        }
    }

    fn replace_node(&mut self, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>, dirty: &mut Dirty) {
        if let Some(node) = old {
            self.unclaim(&Claimant::Node(node.name.clone()), &distinct(&node.addresses), dirty);
        }
        if let Some(node) = new {
            self.claim(&Claimant::Node(node.name.clone()), None, &distinct(&node.addresses), dirty);
        }
        // Its labels are read at all of its addresses, those of pods on its network included.
        for node in old.into_iter().chain(new) {
            dirty.addresses.extend(self.nodes.get(&node.name).into_iter().flatten());
        }
    }

    fn replace_service(&mut self, key: &ObjectKey, old: Option<&[IpAddr]>, new: Option<&[IpAddr]>, dirty: &mut Dirty) {
        for address in distinct(old.unwrap_or_default()) {
            if let Some(place) = self.places.get_mut(&address) {
                place.services.remove(key);
            }
            self.sweep(address);
            dirty.addresses.insert(address);
        }
        for address in distinct(new.unwrap_or_default()) {
            self.places.entry(address).or_default().services.insert(key.clone());
            dirty.addresses.insert(address);
        }
    }

    fn claim(&mut self, who: &Claimant, profile: Option<ProfileId>, addresses: &[IpAddr], dirty: &mut Dirty) {
        for address in addresses {
            let claims = &mut self.places.entry(*address).or_default().claims;
            match claims.binary_search_by(|claim| claim.who.cmp(who)) {
                Ok(position) => claims[position].times += 1,
                Err(position) => claims.insert(position, Claim { who: who.clone(), profile, times: 1 }),
            }
            if let Claimant::Node(name) = who {
                self.nodes.entry(name.clone()).or_default().insert(*address);
            }
            dirty.addresses.insert(*address);
        }
    }

    fn unclaim(&mut self, who: &Claimant, addresses: &[IpAddr], dirty: &mut Dirty) {
        for address in addresses {
            dirty.addresses.insert(*address);
            let Some(place) = self.places.get_mut(address) else { continue };
            let Ok(position) = place.claims.binary_search_by(|claim| claim.who.cmp(who)) else { continue };
            place.claims[position].times -= 1;
            if place.claims[position].times > 0 {
                continue;
            }
            place.claims.remove(position);
            if let Claimant::Node(name) = who
                && let Some(of_node) = self.nodes.get_mut(name)
            {
                of_node.remove(address);
                if of_node.is_empty() {
                    self.nodes.remove(name);
                }
            }
            self.sweep(*address);
        }
    }

    fn sweep(&mut self, address: IpAddr) {
        if self.places.get(&address).is_some_and(|place| place.claims.is_empty() && place.services.is_empty()) {
            self.places.remove(&address);
        }
    }

    fn set_names(&mut self, snapshot: &Snapshot, terms: &Terms, dirty: &mut Dirty) {
        let patterns: Vec<(TermId, &NamePattern)> = terms
            .iter()
            .filter_map(|(id, peer)| match peer {
                Peer::Name(pattern) => Some((id, pattern)),
                Peer::Pods { .. } | Peer::Block { .. } | Peer::Nodes(_) => None,
            })
            .collect();
        let mut named: BTreeMap<IpAddr, Vec<TermId>> = BTreeMap::new();
        if !patterns.is_empty() {
            for (name, addresses) in &snapshot.names {
                for (id, _) in patterns.iter().filter(|(_, pattern)| peer::name_matches(pattern, name)) {
                    for address in addresses {
                        named.entry(address::canonical(*address)).or_default().push(*id);
                    }
                }
            }
        }
        for held in named.values_mut() {
            held.sort_unstable();
            held.dedup();
        }
        let changed = |a: &BTreeMap<IpAddr, Vec<TermId>>, b: &BTreeMap<IpAddr, Vec<TermId>>| {
            a.iter().filter(|(address, held)| b.get(*address) != Some(*held)).map(|(a, _)| *a).collect::<Vec<_>>()
        };
        dirty.addresses.extend(changed(&named, &self.named));
        dirty.addresses.extend(changed(&self.named, &named));
        self.named = named;
    }
}

/// As whom a pod has its addresses, if as anybody.
fn claims_of(pod: &Pod) -> (Option<Claimant>, Vec<IpAddr>) {
    let who = if pod.takes_part() {
        Some(Claimant::Pod(pod.key()))
    } else if pod.host_network && !pod.finished() {
        Some(Claimant::Node(pod.node.clone()))
    } else {
        None
    };
    (who, distinct(&pod.addresses))
}

fn distinct(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let distinct: BTreeSet<IpAddr> = addresses.iter().map(|address| address::canonical(*address)).collect();
    distinct.into_iter().collect()
}
