//! What the kernel's numbers mean: attribution ids, owner ids, and the snapshot behind a revision.
//!
//! It only remembers what it is told, and forgets a snapshot once every event that it judged has been read. An id
//! that it does not know has lost its meaning: nothing is guessed in its place.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use netverdict_flowlog::row::AttributionValue;
use netverdict_policy::{
    AttributionId, ObjectKey, Snapshot,
    tables::{Owner, OwnerId, PeerEntry},
};
use serde::{Deserialize, Serialize};

use crate::input::Meanings;

/// A snapshot with what the compiler made of its addresses: all that enriching an event of its revision needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// Counts up over restarts and boots.
    pub number: u64,
    pub boot_id: String,
    /// The kernel's revision that it became; 0 until it is published.
    pub revision: u64,
    /// When the cluster source was seen to say so, in nanoseconds since 1970.
    pub seen_ns: i64,
    pub snapshot: Arc<Snapshot>,
    pub addresses: Arc<BTreeMap<IpAddr, PeerEntry>>,
    pub blocks: Arc<BTreeMap<IpNet, PeerEntry>>,
    /// The owners of `addresses`.
    pub owners: Arc<BTreeMap<OwnerId, Owner>>,
}

impl SnapshotState {
    /// What it says of an address: exactly, or by the longest block that holds it.
    pub fn peer(&self, address: IpAddr) -> Option<PeerEntry> {
        if let Some(entry) = self.addresses.get(&address) {
            return Some(*entry);
        }
        let host = IpNet::from(address);
        (0..=host.prefix_len())
            .rev()
            .filter_map(|length| IpNet::new(address, length).ok())
            .find_map(|block| self.blocks.get(&block.trunc()).copied())
    }

    /// Who has the address; `None` where nobody is known to.
    pub fn owner_of(&self, address: IpAddr) -> Option<&Owner> {
        self.addresses.get(&address).and_then(|entry| self.owners.get(&entry.owner))
    }
}

/// Everything known of the kernel's numbers.
#[derive(Debug, Default)]
pub struct Catalogue {
    attributions: HashMap<AttributionId, Arc<AttributionValue>>,
    owners: HashMap<OwnerId, Arc<Owner>>,
    revisions: BTreeMap<u64, Arc<SnapshotState>>,
    /// Announced, and not yet known to be in force.
    pending: Option<Arc<SnapshotState>>,
    bound: HashMap<u32, (ObjectKey, String)>,
}

impl Catalogue {
    pub fn learn(&mut self, meanings: Meanings) {
        let Meanings { attributions, owners } = meanings;
        self.attributions
            .extend(attributions.into_iter().map(|(id, decision)| (id, Arc::new(AttributionValue { id, decision }))));
        self.owners.extend(owners.into_iter().map(|(id, owner)| (id, Arc::new(owner))));
    }

    /// Another boot: owner ids, revisions and interfaces begin anew. Attribution ids keep their meaning.
    pub fn forget_boot(&mut self) {
        self.owners.clear();
        self.revisions.clear();
        self.pending = None;
        self.bound.clear();
    }

    pub fn announce(&mut self, state: Arc<SnapshotState>) {
        if state.revision == 0 {
            self.pending = Some(state);
        } else {
            self.revisions.insert(state.revision, state);
        }
    }

    pub fn publish(&mut self, number: u64, revision: u64) {
        if let Some(state) = self.pending.take_if(|state| state.number == number) {
            self.revisions.insert(revision, state);
        }
    }

    pub fn abandon(&mut self, number: u64) {
        self.pending.take_if(|state| state.number == number);
    }

    pub fn bind(&mut self, interface: u32, pod: ObjectKey, uid: String) {
        self.bound.insert(interface, (pod, uid));
    }

    pub fn attribution(&self, id: AttributionId) -> Option<&Arc<AttributionValue>> {
        self.attributions.get(&id)
    }

    pub fn owner(&self, id: OwnerId) -> Option<&Arc<Owner>> {
        self.owners.get(&id)
    }

    pub fn bound(&self, interface: u32) -> Option<&(ObjectKey, String)> {
        self.bound.get(&interface)
    }

    /// The snapshot that a revision is. A revision beyond all that are known is the announced one: the kernel commits
    /// before it can be told that it has.
    pub fn snapshot(&self, revision: u64) -> Option<&Arc<SnapshotState>> {
        match self.revisions.get(&revision) {
            Some(state) => Some(state),
            None => {
                let newest = self.revisions.keys().next_back().copied().unwrap_or(0);
                self.pending.as_ref().filter(|_| revision > newest)
            }
        }
    }

    /// The newest snapshot that the cluster source was seen to hold by this moment, in force or not.
    pub fn seen_by(&self, ns: i64) -> Option<&Arc<SnapshotState>> {
        let announced = self.pending.iter();
        announced.chain(self.revisions.values().rev()).find(|state| state.seen_ns <= ns)
    }

    /// Forgets the snapshots older than `revision`, and returns their numbers.
    pub fn forget_before(&mut self, revision: u64) -> Vec<u64> {
        let kept = self.revisions.split_off(&revision);
        std::mem::replace(&mut self.revisions, kept).into_values().map(|state| state.number).collect()
    }

    /// Oldest and newest revision that are known.
    pub fn revisions(&self) -> Option<(u64, u64)> {
        Some((*self.revisions.keys().next()?, *self.revisions.keys().next_back()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(number: u64, revision: u64, seen_ns: i64) -> Arc<SnapshotState> {
        Arc::new(SnapshotState {
            number,
            boot_id: "b".into(),
            revision,
            seen_ns,
            snapshot: Arc::default(),
            addresses: Arc::default(),
            blocks: Arc::default(),
            owners: Arc::default(),
        })
    }

    #[test]
    fn event_of_a_revision_not_yet_reported_belongs_to_the_announced_snapshot() {
        let mut catalogue = Catalogue::default();
        catalogue.announce(state(1, 10, 0));
        catalogue.announce(state(2, 0, 5));
        assert_eq!(catalogue.snapshot(11).unwrap().number, 2);
        assert_eq!(catalogue.snapshot(10).unwrap().number, 1);
        assert!(catalogue.snapshot(9).is_none(), "lost, not guessed");
        catalogue.publish(2, 11);
        assert_eq!(catalogue.snapshot(11).unwrap().number, 2);
        assert!(catalogue.snapshot(12).is_none());
    }

    #[test]
    fn snapshot_that_was_not_published_decides_nothing() {
        let mut catalogue = Catalogue::default();
        catalogue.announce(state(1, 10, 0));
        catalogue.announce(state(2, 0, 5));
        catalogue.abandon(2);
        assert!(catalogue.snapshot(11).is_none());
    }

    #[test]
    fn longest_block_that_holds_an_address_speaks_for_it() {
        let entry =
            |identity| PeerEntry { identity: netverdict_policy::tables::IdentityId(identity), ..Default::default() };
        let mut known = (*state(1, 1, 0)).clone();
        known.blocks =
            Arc::new([("10.0.0.0/8".parse().unwrap(), entry(1)), ("10.1.0.0/16".parse().unwrap(), entry(2))].into());
        known.addresses = Arc::new([("10.1.0.1".parse().unwrap(), entry(3))].into());
        let identity = |text: &str| known.peer(text.parse().unwrap()).map(|peer| peer.identity.0);
        assert_eq!(identity("10.1.0.1"), Some(3));
        assert_eq!(identity("10.1.0.2"), Some(2));
        assert_eq!(identity("10.2.0.2"), Some(1));
        assert_eq!(identity("192.0.2.1"), None);
    }
}
