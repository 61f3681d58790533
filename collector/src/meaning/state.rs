//! A snapshot with the compiler's table of its addresses, as it is kept until the events that it decided are read.
//!
//! Hundreds of states are kept at once, and each differs little from the one before: equal parts are shared.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Weak},
};

use ipnet::IpNet;
use netverdict_policy::{
    Compiler, ObjectKey, Pod, Policy, Snapshot,
    model::{Namespace, Node, PolicyKey, Service},
    tables::{Owner, OwnerId, PeerEntry},
};
use serde::{Deserialize, Serialize};

use crate::persistent_map::{Edit, PersistentMap};

/// The facts that enriching and attributing an event of its revision needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "WholeState", into = "WholeState")]
pub struct SnapshotState {
    /// Counts up over restarts and boots.
    pub number: u64,
    pub boot_id: Arc<str>,
    /// The kernel's revision that it became; 0 until it is published.
    pub revision: u64,
    /// When the collector saw this state of the cluster source, in nanoseconds since 1970.
    pub seen_ns: i64,
    content: Content,
    /// The snapshot that it was made of, for as long as others keep it.
    whole: Weak<Snapshot>,
}

/// A state with everything in it, as recorded files have it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WholeState {
    pub number: u64,
    pub boot_id: Arc<str>,
    pub revision: u64,
    pub seen_ns: i64,
    pub snapshot: Arc<Snapshot>,
    pub addresses: BTreeMap<IpAddr, PeerEntry>,
    pub blocks: BTreeMap<IpNet, PeerEntry>,
    /// The owners of `addresses`.
    pub owners: BTreeMap<OwnerId, Arc<Owner>>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    namespaces: PersistentMap<String, Arc<Namespace>>,
    pods: PersistentMap<ObjectKey, Arc<Pod>>,
    nodes: PersistentMap<String, Arc<Node>>,
    services: PersistentMap<ObjectKey, Arc<Service>>,
    policies: PersistentMap<PolicyKey, Arc<Policy>>,
    names: Arc<BTreeMap<String, BTreeSet<IpAddr>>>,
    pod_ranges: Arc<BTreeSet<IpNet>>,
    audit_all: bool,
    addresses: PersistentMap<IpAddr, PeerEntry>,
    blocks: PersistentMap<IpNet, PeerEntry>,
    owners: PersistentMap<OwnerId, Arc<Owner>>,
}

/// Edits that lead from one state's content to another's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    namespaces: Vec<Edit<String, Arc<Namespace>>>,
    pods: Vec<Edit<ObjectKey, Arc<Pod>>>,
    nodes: Vec<Edit<String, Arc<Node>>>,
    services: Vec<Edit<ObjectKey, Arc<Service>>>,
    policies: Vec<Edit<PolicyKey, Arc<Policy>>>,
    /// `None` where they are the same.
    names: Option<Arc<BTreeMap<String, BTreeSet<IpAddr>>>>,
    pod_ranges: Option<Arc<BTreeSet<IpNet>>>,
    audit_all: bool,
    addresses: Vec<Edit<IpAddr, PeerEntry>>,
    blocks: Vec<Edit<IpNet, PeerEntry>>,
    owners: Vec<Edit<OwnerId, Arc<Owner>>>,
}

impl SnapshotState {
    /// The state after this one, of a snapshot and of its compiled addresses; and the difference that leads there. `anew`:
    /// another compiler made this one, and the ids of both may not mean the same.
    pub fn next(&self, number: u64, snapshot: &Arc<Snapshot>, compiler: &Compiler, anew: bool) -> (Self, Difference) {
        let difference = self.content.difference_to(snapshot, compiler, anew);
        let mut next = self.apply(number, &difference);
        next.whole = Arc::downgrade(snapshot);
        (next, difference)
    }

    /// The state before the first.
    pub fn nothing() -> Self {
        WholeState::default().into()
    }

    /// The state that a difference leads to; everything but the content and the number is this one's.
    #[must_use]
    pub fn apply(&self, number: u64, difference: &Difference) -> Self {
        Self { number, revision: 0, content: self.content.apply(difference), whole: Weak::new(), ..self.clone() }
    }

    /// The same state, sharing with the other all equal parts.
    #[must_use]
    pub fn sharing_with(&self, other: &Self) -> Self {
        let content = other.content.apply(&other.content.difference(&self.content));
        Self { content, ..self.clone() }
    }

    /// The difference that leads from the empty state to this one.
    pub fn from_nothing(&self) -> Difference {
        Content::default().difference(&self.content)
    }

    /// The entry of an address: its own, or that of the longest block that holds it.
    pub fn peer(&self, address: IpAddr) -> Option<PeerEntry> {
        if let Some(entry) = self.content.addresses.get(&address) {
            return Some(*entry);
        }
        let host = IpNet::from(address);
        (0..=host.prefix_len())
            .rev()
            .filter_map(|length| IpNet::new(address, length).ok())
            .find_map(|block| self.content.blocks.get(&block.trunc()).copied())
    }

    /// Owner of exactly this address, as it was written to the kernel.
    pub fn owner_id(&self, address: IpAddr) -> OwnerId {
        self.content.addresses.get(&address).map_or(OwnerId::NOBODY, |entry| entry.owner)
    }

    /// The owner of the address; `None` where none is known.
    pub fn owner_of(&self, address: IpAddr) -> Option<&Owner> {
        self.content.owners.get(&self.owner_id(address)).map(|owner| &**owner)
    }

    /// The owners of its addresses.
    pub fn owners(&self) -> impl Iterator<Item = (OwnerId, &Owner)> {
        self.content.owners.iter().map(|(id, owner)| (*id, &**owner))
    }

    pub fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.content.pods.get(key).map(|pod| &**pod)
    }

    /// Pods that are not as they were in another state, each as it is here.
    pub fn pods_since(&self, before: &Self) -> Vec<Edit<ObjectKey, Arc<Pod>>> {
        before.content.pods.edits_to(self.content.pods.iter())
    }

    pub fn node(&self, name: &String) -> Option<&Node> {
        self.content.nodes.get(name).map(|node| &**node)
    }

    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.content.services.get(key).map(|service| &**service)
    }

    pub fn is_in_pod_range(&self, address: IpAddr) -> bool {
        self.content.pod_ranges.iter().any(|range| range.contains(&address))
    }

    /// The snapshot as a whole. Of the newest it is there; of an older one it has to be put together.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.whole.upgrade().unwrap_or_else(|| {
            let Content { namespaces, pods, nodes, services, policies, names, pod_ranges, audit_all, .. } =
                &self.content;
            Arc::new(Snapshot {
                namespaces: namespaces.to_map(),
                pods: pods.to_map(),
                nodes: nodes.to_map(),
                services: services.to_map(),
                policies: policies.to_map(),
                names: (**names).clone(),
                pod_ranges: (**pod_ranges).clone(),
                audit_all: *audit_all,
            })
        })
    }
}

impl Content {
    fn difference_to(&self, snapshot: &Snapshot, compiler: &Compiler, anew: bool) -> Difference {
        let Snapshot { namespaces, pods, nodes, services, policies, names, pod_ranges, audit_all } = snapshot;
        let tables = compiler.tables();
        let addresses = self.addresses.edits_to(tables.addresses.iter());
        Difference {
            namespaces: self.namespaces.edits_to(namespaces.iter()),
            pods: self.pods.edits_to(pods.iter()),
            nodes: self.nodes.edits_to(nodes.iter()),
            services: self.services.edits_to(services.iter()),
            policies: self.policies.edits_to(policies.iter()),
            names: (*names != *self.names).then(|| Arc::new(names.clone())),
            pod_ranges: (*pod_ranges != *self.pod_ranges).then(|| Arc::new(pod_ranges.clone())),
            audit_all: *audit_all,
            blocks: self.blocks.edits_to(tables.blocks.iter()),
            owners: match anew {
                true => self.owners.edits_to(owners_of(&tables.addresses, compiler).iter()),
                false => self.owners_after(&addresses, &tables.addresses, compiler),
            },
            addresses,
        }
    }

    /// Owners that came with these addresses, and owners that have none left.
    fn owners_after(
        &self,
        edits: &[Edit<IpAddr, PeerEntry>],
        addresses: &BTreeMap<IpAddr, PeerEntry>,
        compiler: &Compiler,
    ) -> Vec<Edit<OwnerId, Arc<Owner>>> {
        let before = |address| self.addresses.get(address).map(|entry| entry.owner);
        let mut gone: BTreeSet<OwnerId> = edits.iter().filter_map(|(address, _)| before(address)).collect();
        if !gone.is_empty() {
            addresses.values().for_each(|entry| _ = gone.remove(&entry.owner));
        }
        let came: BTreeSet<OwnerId> = edits.iter().filter_map(|(_, entry)| Some(entry.as_ref()?.owner)).collect();
        let came = came.into_iter().filter(|id| self.owners.get(id).is_none());
        let came = came.filter_map(|id| Some((id, Some(Arc::new(compiler.owner(id)?.clone())))));
        gone.into_iter().map(|id| (id, None)).chain(came).collect()
    }

    fn difference(&self, other: &Self) -> Difference {
        Difference {
            namespaces: self.namespaces.edits_to(other.namespaces.iter()),
            pods: self.pods.edits_to(other.pods.iter()),
            nodes: self.nodes.edits_to(other.nodes.iter()),
            services: self.services.edits_to(other.services.iter()),
            policies: self.policies.edits_to(other.policies.iter()),
            names: (other.names != self.names).then(|| other.names.clone()),
            pod_ranges: (other.pod_ranges != self.pod_ranges).then(|| other.pod_ranges.clone()),
            audit_all: other.audit_all,
            addresses: self.addresses.edits_to(other.addresses.iter()),
            blocks: self.blocks.edits_to(other.blocks.iter()),
            owners: self.owners.edits_to(other.owners.iter()),
        }
    }

    fn apply(&self, difference: &Difference) -> Self {
        let Difference {
            namespaces,
            pods,
            nodes,
            services,
            policies,
            names,
            pod_ranges,
            audit_all,
            addresses,
            blocks,
            owners,
        } = difference;
        Self {
            namespaces: self.namespaces.with(namespaces.iter().cloned()),
            pods: self.pods.with(pods.iter().cloned()),
            nodes: self.nodes.with(nodes.iter().cloned()),
            services: self.services.with(services.iter().cloned()),
            policies: self.policies.with(policies.iter().cloned()),
            names: names.clone().unwrap_or_else(|| self.names.clone()),
            pod_ranges: pod_ranges.clone().unwrap_or_else(|| self.pod_ranges.clone()),
            audit_all: *audit_all,
            addresses: self.addresses.with(addresses.iter().copied()),
            blocks: self.blocks.with(blocks.iter().copied()),
            owners: self.owners.with(owners.iter().cloned()),
        }
    }
}

fn owners_of(addresses: &BTreeMap<IpAddr, PeerEntry>, compiler: &Compiler) -> BTreeMap<OwnerId, Arc<Owner>> {
    let ids: BTreeSet<OwnerId> = addresses.values().map(|entry| entry.owner).collect();
    ids.into_iter().filter_map(|id| Some((id, Arc::new(compiler.owner(id)?.clone())))).collect()
}

impl From<WholeState> for SnapshotState {
    fn from(state: WholeState) -> Self {
        let WholeState { number, boot_id, revision, seen_ns, snapshot, addresses, blocks, owners } = state;
        let whole = Arc::downgrade(&snapshot);
        let Snapshot { namespaces, pods, nodes, services, policies, names, pod_ranges, audit_all } =
            Arc::unwrap_or_clone(snapshot);
        let content = Content {
            namespaces: namespaces.into(),
            pods: pods.into(),
            nodes: nodes.into(),
            services: services.into(),
            policies: policies.into(),
            names: names.into(),
            pod_ranges: pod_ranges.into(),
            audit_all,
            addresses: addresses.into(),
            blocks: blocks.into(),
            owners: owners.into(),
        };
        Self { number, boot_id, revision, seen_ns, content, whole }
    }
}

impl From<SnapshotState> for WholeState {
    fn from(state: SnapshotState) -> Self {
        Self {
            snapshot: state.snapshot(),
            addresses: state.content.addresses.to_map(),
            blocks: state.content.blocks.to_map(),
            owners: state.content.owners.to_map(),
            number: state.number,
            boot_id: state.boot_id,
            revision: state.revision,
            seen_ns: state.seen_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use netverdict_policy::tables::IdentityId;

    use super::*;

    #[test]
    fn longest_block_that_holds_an_address_speaks_for_it() {
        let entry = |identity| PeerEntry { identity: IdentityId(identity), ..Default::default() };
        let known = SnapshotState::from(WholeState {
            blocks: [("10.0.0.0/8".parse().unwrap(), entry(1)), ("10.1.0.0/16".parse().unwrap(), entry(2))].into(),
            addresses: [("10.1.0.1".parse().unwrap(), entry(3))].into(),
            ..WholeState::default()
        });
        let identity = |text: &str| known.peer(text.parse().unwrap()).map(|peer| peer.identity.0);
        assert_eq!(identity("10.1.0.1"), Some(3));
        assert_eq!(identity("10.1.0.2"), Some(2));
        assert_eq!(identity("10.2.0.2"), Some(1));
        assert_eq!(identity("192.0.2.1"), None);
    }
}
