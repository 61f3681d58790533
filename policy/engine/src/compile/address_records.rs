//! All addresses of the cluster, the blocks and the names that rules read, and the attributes of each that rules can read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    address_record::{AddressRecord, AddressState, Claim, Claimant, EntryDetails, Holder, claims_of, distinct},
    blocks::{Block, Blocks},
    difference::Difference,
    hashing::QuickMap,
    identity::{AttributesId, AttributesTable, CidrFacts, CidrFactsId, CidrFactsTable, PeerAttributes, Signature},
    interning::Move,
    named_addresses::NamedAddresses,
    profiles::{ProfileId, Profiles},
    terms::{TermChange, Terms},
    view::PeerFacts,
};
use crate::{
    evaluate::selector,
    model::{ObjectKey, Peer, Pod, Snapshot},
    tables::{OwnerId, PeerEntry},
};

#[derive(Debug)]
pub(super) struct AddressRecords {
    /// The node whose pods are the subjects.
    node: String,
    records: QuickMap<IpAddr, AddressRecord>,
    profiles: Profiles,
    blocks: Blocks,
    nodes: BTreeMap<String, NodeRecord>,
    named: NamedAddresses,
    cidr_facts: CidrFactsTable,
    attributes: AttributesTable,
}

/// A node that has addresses.
#[derive(Debug)]
struct NodeRecord {
    addresses: BTreeSet<IpAddr>,
    attributes: AttributesId,
}

/// Addresses and blocks whose entries may have changed.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Sorted and without duplicates, when it is complete.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) blocks: BTreeSet<IpNet>,
}

impl AddressRecords {
    pub(super) fn new(node: String) -> Self {
        Self {
            node,
            records: QuickMap::default(),
            profiles: Profiles::default(),
            blocks: Blocks::default(),
            nodes: BTreeMap::new(),
            named: NamedAddresses::default(),
            cidr_facts: CidrFactsTable::new(1).with_permanent(CidrFacts::default(), CidrFactsId::NONE),
            attributes: AttributesTable::new(0),
        }
    }

    /// Brings everything up to date with a new snapshot and new terms. `entries`: of the addresses in the tables.
    pub(super) fn update(
        &mut self,
        old: &Snapshot,
        new: &Snapshot,
        difference: &Difference,
        terms: &Terms,
        change: &TermChange,
        entries: &BTreeMap<IpAddr, PeerEntry>,
    ) -> Dirty {
        let mut dirty = Dirty::default();
        self.update_attributes(new, difference, terms, change, &mut dirty);
        for key in &difference.pods {
            self.replace_pod(old.pods.get(key), new, new.pods.get(key), terms, &mut dirty);
        }
        for name in &difference.nodes {
            let addresses = |snapshot: &Snapshot| snapshot.nodes.get(name).map(|node| distinct(&node.addresses));
            self.remove_claims(&Claimant::Node(name.clone()), &addresses(old).unwrap_or_default(), &mut dirty);
            self.add_node_addresses(new, terms, name, &addresses(new).unwrap_or_default(), &mut dirty);
        }
        for key in &difference.services {
            let (old, new) = (old.services.get(key), new.services.get(key));
            self.replace_service(key, old.map(|s| &*s.addresses), new.map(|s| &*s.addresses), &mut dirty);
        }
        let ranges = difference.pod_ranges || !difference.nodes.is_empty();
        dirty.blocks = self.blocks.update(new, change, ranges, &mut self.cidr_facts);
        let mut done: Option<IpNet> = None;
        for block in &dirty.blocks {
            // A block comes before those inside it.
            if done.is_none_or(|done| !done.contains(block)) {
                let inside = entries.range(block.network()..=block.broadcast());
                dirty.addresses.extend(inside.map(|(address, _)| *address));
                done = Some(*block);
            }
        }
        let blocks = (&self.blocks, &dirty.blocks);
        let named = self.named.update(new, difference.names, terms, change, blocks, &mut self.cidr_facts);
        dirty.addresses.extend(named);
        dirty.addresses.sort_unstable();
        dirty.addresses.dedup();
        dirty
    }

    /// Drops attributes that no address has any more.
    pub(super) fn drop_unused(&mut self) {
        self.cidr_facts.drop_unused();
        self.attributes.drop_unused();
    }

    #[cfg(test)]
    pub(super) fn interned(&self) -> [usize; 2] {
        [self.cidr_facts.len(), self.attributes.len()]
    }

    /// The states of `addresses`, which are in order. `None` where an address has no owner any more, and no name that a
    /// rule reads is known for it.
    pub(super) fn states(&self, addresses: &[IpAddr]) -> impl Iterator<Item = Option<AddressState>> {
        let blocks = self.blocks.find_all(addresses);
        addresses.iter().zip(blocks).map(|(address, block)| self.state(*address, block))
    }

    /// `block`: the longest that holds the address.
    fn state(&self, address: IpAddr, block: Option<&Block>) -> Option<AddressState> {
        let named = self.named.facts(address);
        let record = self.records.get(&address);
        if record.is_none() && named.is_none() {
            return None;
        }
        let cidr_facts = named.or(block.map(Block::cidr_facts)).unwrap_or(CidrFactsId::NONE);
        let claims: Vec<&Claim> = record.into_iter().flat_map(AddressRecord::counting).collect();
        let service = record.is_some_and(AddressRecord::is_service);
        let mut attributes = claims.iter().filter_map(|claim| self.attributes_of(claim));
        let signature = Signature {
            cidr_facts,
            claim: attributes.next(),
            rivals: attributes.collect(),
            unknown_pod: claims.is_empty() && !service && block.is_some_and(|block| block.pod_range),
        };
        let owner = record.map_or(Some(OwnerId::NOBODY), |record| record.owner);
        let is_own = |claim: &&Claim| matches!(&claim.claimant, Claimant::Node(name) if *name == self.node);
        let own_node = claims.iter().any(is_own);
        let details = EntryDetails { owner, service, unknown_pod: signature.unknown_pod, own_node };
        Some(AddressState { signature, details })
    }

    /// The state of a block; `None` where it is no longer needed.
    pub(super) fn block_state(&self, block: &IpNet) -> Option<AddressState> {
        let block = self.blocks.get(block)?;
        let (cidr_facts, unknown_pod) = (block.cidr_facts(), block.pod_range);
        let signature = Signature { cidr_facts, unknown_pod, ..Signature::default() };
        let details = EntryDetails { owner: Some(OwnerId::NOBODY), service: false, unknown_pod, own_node: false };
        Some(AddressState { signature, details })
    }

    pub(super) fn holder(&self, address: IpAddr) -> Holder {
        self.records.get(&address).map_or(Holder::Nobody, AddressRecord::holder)
    }

    /// Keeps the owner's id of an address, so that it is looked up again only after a change.
    pub(super) fn set_owner(&mut self, address: IpAddr, owner: OwnerId) {
        if let Some(record) = self.records.get_mut(&address) {
            record.owner = Some(owner);
        }
    }

    /// Attributes of an identity that rules can read.
    pub(super) fn facts_of(&self, signature: &Signature) -> PeerFacts<'_> {
        PeerFacts {
            cidr_facts: self.cidr_facts.get(signature.cidr_facts).map(|facts| &*facts.0).unwrap_or_default(),
            claims: signature.claims().filter_map(|attributes| self.attributes.get(attributes)).collect(),
            unknown_pod: signature.unknown_pod,
        }
    }

    /// Whether two signatures are equal, apart from terms and port names that are only now used, or no longer.
    pub(super) fn equals_before(&self, one: &Signature, other: &Signature, change: &TermChange) -> bool {
        let same_attributes = |a: AttributesId, b: AttributesId| {
            let values = self.attributes.get(a).zip(self.attributes.get(b));
            a == b || values.is_some_and(|(a, b)| a.equals_before(b, change))
        };
        let same_cidr_facts = |a: CidrFactsId, b: CidrFactsId| {
            let values = self.cidr_facts.get(a).zip(self.cidr_facts.get(b));
            a == b || values.is_some_and(|(a, b)| a.equals_before(b, change))
        };
        one.unknown_pod == other.unknown_pod
            && same_cidr_facts(one.cidr_facts, other.cidr_facts)
            && one.claims().count() == other.claims().count()
            && one.claims().zip(other.claims()).all(|(a, b)| same_attributes(a, b))
    }

    /// The longest block that holds the address.
    pub(super) fn longest_block(&self, address: IpAddr) -> Option<IpNet> {
        self.blocks.find(address).map(|(block, _)| block)
    }

    fn attributes_of(&self, claim: &Claim) -> Option<AttributesId> {
        match (&claim.claimant, claim.profile) {
            (Claimant::Pod(_), profile) => self.profiles.attributes(profile?),
            (Claimant::Node(name), _) => self.nodes.get(name).map(|node| node.attributes),
        }
    }

    /// Updates the attributes of pods and nodes where terms or labels changed.
    fn update_attributes(
        &mut self,
        snapshot: &Snapshot,
        difference: &Difference,
        terms: &Terms,
        change: &TermChange,
        dirty: &mut Dirty,
    ) {
        let (profiles, mut moves): (Vec<_>, Vec<_>) =
            self.profiles.update(snapshot, terms, change, &difference.namespaces, &self.attributes).into_iter().unzip();
        let all = change.touches_any(|peer| matches!(peer, Peer::Nodes(_)));
        let relabelled = |name: &String| all || difference.nodes.contains(name);
        let nodes: Vec<String> = self.nodes.keys().filter(|name| relabelled(name)).cloned().collect();
        moves.extend(nodes.iter().map(|name| Move {
            from: self.nodes.get(name).map(|node| node.attributes),
            to: Some(self.read_node(snapshot, terms, name)),
            members: 1,
        }));
        let assigned = self.attributes.assign(moves, |old, new| old.equals_before(new, change));
        let mut assigned = assigned.into_iter().flatten();
        for (profile, attributes) in profiles.into_iter().zip(&mut assigned) {
            if self.profiles.set_attributes(profile, attributes) {
                dirty.addresses.extend(self.profiles.addresses(profile));
            }
        }
        for (name, attributes) in nodes.into_iter().zip(assigned) {
            if let Some(node) = self.nodes.get_mut(&name)
                && std::mem::replace(&mut node.attributes, attributes) != attributes
            {
                dirty.addresses.extend(&node.addresses);
            }
        }
    }

    fn read_node(&self, snapshot: &Snapshot, terms: &Terms, name: &str) -> PeerAttributes {
        let labels = snapshot.nodes.get(name).map(|node| &node.labels);
        let fulfils = |peer: &Peer| match (peer, labels) {
            (Peer::Nodes(wanted), Some(labels)) => selector::matches(wanted, labels),
            _ => false,
        };
        let terms = terms.nodes().filter(|(_, peer)| fulfils(peer)).map(|(id, _)| id).collect();
        PeerAttributes { terms, ports: Vec::new(), own_node: !name.is_empty() && name == self.node }
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
            .map(|pod| self.profiles.retain(snapshot, terms, &mut self.attributes, pod));
        if let Some(pod) = old {
            let (claimant, addresses) = claims_of(pod);
            if let Some(id) = self.profiles.find(pod).filter(|_| pod.takes_part()) {
                self.profiles.release(id, &addresses, &mut self.attributes);
            }
            if let Some(claimant) = claimant {
                self.remove_claims(&claimant, &addresses, dirty);
            }
        }
        let Some((claimant, addresses)) = new.map(|pod| claims_of(pod)) else { return };
        if let Some(id) = profile {
            self.profiles.add_addresses(id, &addresses);
        }
        match claimant {
            Some(Claimant::Node(name)) => self.add_node_addresses(snapshot, terms, &name, &addresses, dirty),
            Some(claimant @ Claimant::Pod(_)) => {
                let leaving = new.is_some_and(|pod| pod.terminating);
                self.add_claims(&claimant, profile, leaving, &addresses, dirty);
            }
            None => {}
        }
    }

    /// Adds addresses of a node: its own, or those of a pod on its network.
    fn add_node_addresses(
        &mut self,
        snapshot: &Snapshot,
        terms: &Terms,
        name: &str,
        addresses: &[IpAddr],
        dirty: &mut Dirty,
    ) {
        if addresses.is_empty() {
            return;
        }
        if !self.nodes.contains_key(name) {
            let attributes = self.attributes.add_member(self.read_node(snapshot, terms, name));
            self.nodes.insert(name.to_owned(), NodeRecord { addresses: BTreeSet::new(), attributes });
        }
        if let Some(node) = self.nodes.get_mut(name) {
            node.addresses.extend(addresses);
        }
        self.add_claims(&Claimant::Node(name.to_owned()), None, false, addresses, dirty);
    }

    fn replace_service(&mut self, key: &ObjectKey, old: Option<&[IpAddr]>, new: Option<&[IpAddr]>, dirty: &mut Dirty) {
        for address in distinct(old.unwrap_or_default()) {
            if let Some(record) = self.records.get_mut(&address) {
                record.services.remove(key);
                record.owner = None;
            }
            self.remove_if_unused(address);
            dirty.addresses.push(address);
        }
        for address in distinct(new.unwrap_or_default()) {
            let record = self.records.entry(address).or_default();
            record.services.insert(key.clone());
            record.owner = None;
            dirty.addresses.push(address);
        }
    }

    fn add_claims(
        &mut self,
        claimant: &Claimant,
        profile: Option<ProfileId>,
        leaving: bool,
        addresses: &[IpAddr],
        dirty: &mut Dirty,
    ) {
        for address in addresses {
            self.records.entry(*address).or_default().add_claim(claimant, profile, leaving);
            dirty.addresses.push(*address);
        }
    }

    fn remove_claims(&mut self, claimant: &Claimant, addresses: &[IpAddr], dirty: &mut Dirty) {
        for address in addresses {
            dirty.addresses.push(*address);
            let Some(record) = self.records.get_mut(address) else { continue };
            if !record.remove_claim(claimant) {
                continue;
            }
            if let Claimant::Node(name) = claimant
                && let Some(node) = self.nodes.get_mut(name)
            {
                node.addresses.remove(address);
                if node.addresses.is_empty() {
                    self.attributes.remove_member(node.attributes);
                    self.nodes.remove(name);
                }
            }
            self.remove_if_unused(*address);
        }
    }

    fn remove_if_unused(&mut self, address: IpAddr) {
        if self.records.get(&address).is_some_and(AddressRecord::is_unused) {
            self.records.remove(&address);
        }
    }
}
