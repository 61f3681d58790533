//! Who owns which address, and what live rules can read of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    blocks::{Block, Blocks},
    difference::Difference,
    hashing::QuickMap,
    identity::{Ground, GroundId, Grounds, Reading, ReadingId, Readings, Signature},
    profiles::{ProfileId, Profiles},
    sharing::Move,
    terms::{TermChange, TermId, Terms},
    view::Look,
};
use crate::{
    address,
    evaluate::{peer, selector},
    model::{NamePattern, ObjectKey, Peer, Pod, Snapshot},
    tables::{IdentityId, OwnerId, PeerEntry},
};

#[derive(Debug)]
pub(super) struct World {
    /// The node whose pods are the subjects.
    node: String,
    places: QuickMap<IpAddr, Place>,
    profiles: Profiles,
    blocks: Blocks,
    nodes: BTreeMap<String, NodePlaces>,
    /// Terms for names, by the addresses that the names have; sorted.
    named: BTreeMap<IpAddr, Vec<TermId>>,
    /// What holds at the addresses that have names: the names and the blocks together.
    named_grounds: BTreeMap<IpAddr, GroundId>,
    grounds: Grounds,
    readings: Readings,
}

/// A node that has addresses.
#[derive(Debug)]
struct NodePlaces {
    addresses: BTreeSet<IpAddr>,
    reading: ReadingId,
}

/// An address that somebody has.
#[derive(Debug, Default)]
struct Place {
    /// In order.
    claims: Vec<Claim>,
    services: BTreeSet<ObjectKey>,
    /// Who owns it, once that was looked up.
    owner: Option<OwnerId>,
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
    /// In order and once each, when it is complete.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) blocks: BTreeSet<IpNet>,
}

/// An address or a block as it is now.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) signature: Signature,
    pub(super) found: Found,
}

/// What an entry says besides the identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// `None` where it is to be looked up.
    pub(super) owner: Option<OwnerId>,
    /// Only a Service has the address.
    service: bool,
    unknown_pod: bool,
}

impl Found {
    pub(super) fn entry(self, identity: IdentityId, owner: OwnerId) -> PeerEntry {
        let Self { owner: _, service, unknown_pod } = self;
        PeerEntry { identity, owner, service, unknown_pod }
    }
}

/// Who has an address.
#[derive(Debug)]
pub(super) enum Holder {
    Pod(ObjectKey),
    Node(String),
    Service(ObjectKey),
    /// Several claim the address, or none does.
    Nobody,
}

impl World {
    pub(super) fn new(node: String) -> Self {
        Self {
            node,
            places: QuickMap::default(),
            profiles: Profiles::default(),
            blocks: Blocks::default(),
            nodes: BTreeMap::new(),
            named: BTreeMap::new(),
            named_grounds: BTreeMap::new(),
            grounds: Grounds::new(1).with(Ground::default(), GroundId::BARE),
            readings: Readings::new(0),
        }
    }

    /// Takes in a new snapshot and new terms.
    pub(super) fn update(
        &mut self,
        old: &Snapshot,
        new: &Snapshot,
        difference: &Difference,
        terms: &Terms,
        change: &TermChange,
        addresses: &BTreeMap<IpAddr, PeerEntry>,
    ) -> Dirty {
        let mut dirty = Dirty::default();
        self.read_again(new, difference, terms, change, &mut dirty);
        for key in &difference.pods {
            self.replace_pod(old.pods.get(key), new, new.pods.get(key), terms, &mut dirty);
        }
        for name in &difference.nodes {
            let addresses = |snapshot: &Snapshot| snapshot.nodes.get(name).map(|node| distinct(&node.addresses));
            self.unclaim(&Claimant::Node(name.clone()), &addresses(old).unwrap_or_default(), &mut dirty);
            self.house_node(new, terms, name, &addresses(new).unwrap_or_default(), &mut dirty);
        }
        for key in &difference.services {
            let (old, new) = (old.services.get(key), new.services.get(key));
            self.replace_service(key, old.map(|s| &*s.addresses), new.map(|s| &*s.addresses), &mut dirty);
        }
        let ranges = difference.pod_ranges || !difference.nodes.is_empty();
        dirty.blocks = self.blocks.update(new, change, ranges, &mut self.grounds);
        let mut done: Option<IpNet> = None;
        for block in &dirty.blocks {
            // A block comes before those inside it.
            if done.is_none_or(|done| !done.contains(block)) {
                let inside = addresses.range(block.network()..=block.broadcast());
                dirty.addresses.extend(inside.map(|(address, _)| *address));
                done = Some(*block);
            }
        }
        self.name_again(new, difference, terms, change, &mut dirty);
        dirty.addresses.sort_unstable();
        dirty.addresses.dedup();
        dirty
    }

    /// Forgets what is read nowhere any more.
    pub(super) fn settle(&mut self) {
        self.grounds.settle();
        self.readings.settle();
    }

    #[cfg(test)]
    pub(super) fn remembers(&self) -> [usize; 2] {
        [self.grounds.len(), self.readings.len()]
    }

    /// Addresses in order. `None` where nobody has one any more, and no name is known for it that a rule reads.
    pub(super) fn addresses(&self, addresses: &[IpAddr]) -> impl Iterator<Item = Option<Sight>> {
        let blocks = self.blocks.find_all(addresses);
        addresses.iter().zip(blocks).map(|(address, block)| self.address(*address, block))
    }

    fn address(&self, address: IpAddr, block: Option<&Block>) -> Option<Sight> {
        let named = self.named_grounds.get(&address);
        let place = self.places.get(&address);
        if place.is_none() && named.is_none() {
            return None;
        }
        let ground = named.copied().or(block.map(Block::ground)).unwrap_or(GroundId::BARE);
        let (claims, service) = match place {
            Some(place) => (place.claims.as_slice(), place.claims.is_empty() && !place.services.is_empty()),
            None => (&[][..], false),
        };
        let mut readings = claims.iter().filter_map(|claim| self.reading(claim));
        let signature = Signature {
            ground,
            claim: readings.next(),
            rivals: readings.collect(),
            unknown_pod: claims.is_empty() && !service && block.is_some_and(|block| block.pod_range),
        };
        let owner = place.map_or(Some(OwnerId::NOBODY), |place| place.owner);
        let found = Found { owner, service, unknown_pod: signature.unknown_pod };
        Some(Sight { signature, found })
    }

    pub(super) fn holder(&self, address: IpAddr) -> Holder {
        let Some(place) = self.places.get(&address) else { return Holder::Nobody };
        match (place.claims.as_slice(), place.services.first()) {
            ([], Some(service)) => Holder::Service(service.clone()),
            ([only], _) => match &only.who {
                Claimant::Pod(key) => Holder::Pod(key.clone()),
                Claimant::Node(name) => Holder::Node(name.clone()),
            },
            _ => Holder::Nobody,
        }
    }

    /// Notes who owns an address, so that it is not looked up again until that changes.
    pub(super) fn note_owner(&mut self, address: IpAddr, owner: OwnerId) {
        if let Some(place) = self.places.get_mut(&address) {
            place.owner = Some(owner);
        }
    }

    /// `None` where it is no longer needed.
    pub(super) fn block(&self, block: &IpNet) -> Option<Sight> {
        let block = self.blocks.get(block)?;
        let signature = Signature { ground: block.ground(), unknown_pod: block.pod_range, ..Signature::default() };
        let found = Found { owner: Some(OwnerId::NOBODY), service: false, unknown_pod: block.pod_range };
        Some(Sight { signature, found })
    }

    /// What rules can read of an identity.
    pub(super) fn look(&self, signature: &Signature) -> Look<'_> {
        Look {
            ground: self.grounds.get(signature.ground).map(|ground| &*ground.0).unwrap_or_default(),
            claims: signature.claims().filter_map(|reading| self.readings.get(reading)).collect(),
            unknown_pod: signature.unknown_pod,
        }
    }

    /// Whether two signatures are one, apart from terms that only now are read, or not any more.
    pub(super) fn means(&self, one: &Signature, other: &Signature, change: &TermChange) -> bool {
        let readings = |a: ReadingId, b: ReadingId| {
            a == b || self.readings.get(a).zip(self.readings.get(b)).is_some_and(|(a, b)| a.means(b, change))
        };
        let grounds = |a: GroundId, b: GroundId| {
            a == b || self.grounds.get(a).zip(self.grounds.get(b)).is_some_and(|(a, b)| a.means(b, change))
        };
        one.unknown_pod == other.unknown_pod
            && grounds(one.ground, other.ground)
            && one.claims().count() == other.claims().count()
            && one.claims().zip(other.claims()).all(|(a, b)| readings(a, b))
    }

    /// The longest block that holds the address.
    pub(super) fn longest_block(&self, address: IpAddr) -> Option<IpNet> {
        self.blocks.find(address).map(|(block, _)| block)
    }

    fn reading(&self, claim: &Claim) -> Option<ReadingId> {
        match (&claim.who, claim.profile) {
            (Claimant::Pod(_), profile) => self.profiles.reading(profile?),
            (Claimant::Node(name), _) => self.nodes.get(name).map(|node| node.reading),
        }
    }

    /// Reads pods and nodes again as far as terms or labels changed.
    fn read_again(
        &mut self,
        snapshot: &Snapshot,
        difference: &Difference,
        terms: &Terms,
        change: &TermChange,
        dirty: &mut Dirty,
    ) {
        let (profiles, mut moves): (Vec<_>, Vec<_>) =
            self.profiles.update(snapshot, terms, change, &difference.namespaces, &self.readings).into_iter().unzip();
        let all = change.touches_any(|peer| matches!(peer, Peer::Nodes(_)));
        let relabelled = |name: &String| all || difference.nodes.contains(name);
        let nodes: Vec<String> = self.nodes.keys().filter(|name| relabelled(name)).cloned().collect();
        moves.extend(nodes.iter().map(|name| Move {
            from: self.nodes.get(name).map(|node| node.reading),
            to: Some(self.read_node(snapshot, terms, name)),
            members: 1,
        }));
        let mut places = self.readings.assign(moves, |old, new| old.means(new, change)).into_iter().flatten();
        for (profile, reading) in profiles.into_iter().zip(&mut places) {
            if self.profiles.settle(profile, reading) {
                dirty.addresses.extend(self.profiles.addresses(profile));
            }
        }
        for (name, reading) in nodes.into_iter().zip(places) {
            if let Some(node) = self.nodes.get_mut(&name)
                && std::mem::replace(&mut node.reading, reading) != reading
            {
                dirty.addresses.extend(&node.addresses);
            }
        }
    }

    fn read_node(&self, snapshot: &Snapshot, terms: &Terms, name: &str) -> Reading {
        let labels = snapshot.nodes.get(name).map(|node| &node.labels);
        let holds = |peer: &Peer| match (peer, labels) {
            (Peer::Nodes(wanted), Some(labels)) => selector::matches(wanted, labels),
            _ => false,
        };
        let terms = terms.nodes().filter(|(_, peer)| holds(peer)).map(|(id, _)| id).collect();
        Reading { terms, ports: Vec::new(), own_node: !name.is_empty() && name == self.node }
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
        let profile = new
            .filter(|pod| pod.takes_part())
            .map(|pod| self.profiles.retain(snapshot, terms, &mut self.readings, pod));
        if let Some(pod) = old {
            let (who, addresses) = claims_of(pod);
            if let Some(id) = self.profiles.find(pod).filter(|_| pod.takes_part()) {
                self.profiles.release(id, &addresses, &mut self.readings);
            }
            if let Some(who) = who {
                self.unclaim(&who, &addresses, dirty);
            }
        }
        let Some((who, addresses)) = new.map(|pod| claims_of(pod)) else { return };
        if let Some(id) = profile {
            self.profiles.house(id, &addresses);
        }
        match who {
            Some(Claimant::Node(name)) => self.house_node(snapshot, terms, &name, &addresses, dirty),
            Some(who @ Claimant::Pod(_)) => self.claim(&who, profile, &addresses, dirty),
            None => {}
        }
    }

    /// A node gets addresses, its own or those of a pod on its network.
    fn house_node(&mut self, snapshot: &Snapshot, terms: &Terms, name: &str, addresses: &[IpAddr], dirty: &mut Dirty) {
        if addresses.is_empty() {
            return;
        }
        if !self.nodes.contains_key(name) {
            let reading = self.readings.enter(self.read_node(snapshot, terms, name));
            self.nodes.insert(name.to_owned(), NodePlaces { addresses: BTreeSet::new(), reading });
        }
        if let Some(node) = self.nodes.get_mut(name) {
            node.addresses.extend(addresses);
        }
        self.claim(&Claimant::Node(name.to_owned()), None, addresses, dirty);
    }

    fn replace_service(&mut self, key: &ObjectKey, old: Option<&[IpAddr]>, new: Option<&[IpAddr]>, dirty: &mut Dirty) {
        for address in distinct(old.unwrap_or_default()) {
            if let Some(place) = self.places.get_mut(&address) {
                place.services.remove(key);
                place.owner = None;
            }
            self.sweep(address);
            dirty.addresses.push(address);
        }
        for address in distinct(new.unwrap_or_default()) {
            let place = self.places.entry(address).or_default();
            place.services.insert(key.clone());
            place.owner = None;
            dirty.addresses.push(address);
        }
    }

    fn claim(&mut self, who: &Claimant, profile: Option<ProfileId>, addresses: &[IpAddr], dirty: &mut Dirty) {
        for address in addresses {
            let place = self.places.entry(*address).or_default();
            place.owner = None;
            let claims = &mut place.claims;
            match claims.binary_search_by(|claim| claim.who.cmp(who)) {
                Ok(position) => claims[position].times += 1,
                Err(position) => claims.insert(position, Claim { who: who.clone(), profile, times: 1 }),
            }
            dirty.addresses.push(*address);
        }
    }

    fn unclaim(&mut self, who: &Claimant, addresses: &[IpAddr], dirty: &mut Dirty) {
        for address in addresses {
            dirty.addresses.push(*address);
            let Some(place) = self.places.get_mut(address) else { continue };
            place.owner = None;
            let Ok(position) = place.claims.binary_search_by(|claim| claim.who.cmp(who)) else { continue };
            place.claims[position].times -= 1;
            if place.claims[position].times > 0 {
                continue;
            }
            place.claims.remove(position);
            if let Claimant::Node(name) = who
                && let Some(of_node) = self.nodes.get_mut(name)
            {
                of_node.addresses.remove(address);
                if of_node.addresses.is_empty() {
                    self.readings.leave(of_node.reading);
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

    /// Looks up again which addresses have names that rules read, as far as names, terms or blocks changed.
    fn name_again(
        &mut self,
        snapshot: &Snapshot,
        difference: &Difference,
        terms: &Terms,
        change: &TermChange,
        dirty: &mut Dirty,
    ) {
        if difference.names || change.touches_any(|peer| matches!(peer, Peer::Name(_))) {
            self.named = names_read(snapshot, terms);
        } else if dirty.blocks.is_empty() && !change.touches_any(|peer| matches!(peer, Peer::Block { .. })) {
            return;
        }
        let addresses: BTreeSet<IpAddr> = self.named.keys().chain(self.named_grounds.keys()).copied().collect();
        let moves = addresses.iter().map(|address| Move {
            from: self.named_grounds.get(address).copied(),
            to: self.named.get(address).map(|named| self.named_ground(*address, named)),
            members: 1,
        });
        let places = self.grounds.assign(moves.collect(), |old, new| old.means(new, change));
        for (address, ground) in addresses.into_iter().zip(places) {
            let before = match ground {
                Some(ground) => self.named_grounds.insert(address, ground),
                None => self.named_grounds.remove(&address),
            };
            if before != ground || dirty.blocks.iter().any(|block| block.contains(&address)) {
                dirty.addresses.push(address);
            }
        }
    }

    fn named_ground(&self, address: IpAddr, named: &[TermId]) -> Ground {
        let block = self.blocks.find(address).map(|(_, block)| block.terms()).unwrap_or_default();
        let mut terms = [block, named].concat();
        terms.sort_unstable();
        Ground(terms)
    }
}

/// The terms for names that hold at each address.
fn names_read(snapshot: &Snapshot, terms: &Terms) -> BTreeMap<IpAddr, Vec<TermId>> {
    let patterns: Vec<(TermId, &NamePattern)> = terms
        .iter()
        .filter_map(|(id, peer)| match peer {
            Peer::Name(pattern) => Some((id, pattern)),
            Peer::Pods { .. } | Peer::Block { .. } | Peer::Nodes(_) => None,
        })
        .collect();
    let mut named: BTreeMap<IpAddr, Vec<TermId>> = BTreeMap::new();
    if patterns.is_empty() {
        return named;
    }
    for (name, addresses) in &snapshot.names {
        for (id, _) in patterns.iter().filter(|(_, pattern)| peer::name_matches(pattern, name)) {
            for address in addresses {
                named.entry(address::canonical(*address)).or_default().push(*id);
            }
        }
    }
    for held in named.values_mut() {
        held.sort_unstable();
        held.dedup();
    }
    named
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
