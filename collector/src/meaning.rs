//! Meanings of the kernel's numbers: attribution ids, owner ids, and the snapshot behind a revision.
//!
//! It only stores the meanings that it is given, and forgets a snapshot once every event that it decided has been read.
//! An unknown id has lost its meaning: nothing is guessed in its place.

mod state;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use netverdict_flowlog::row::AttributionValue;
use netverdict_policy::{
    AttributionId, Decision, ObjectKey,
    tables::{Owner, OwnerId},
};
use serde::{Deserialize, Serialize};

pub use self::state::{Difference, SnapshotState, WholeState};

/// New ids, and their meanings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meanings {
    pub attributions: Vec<(AttributionId, Decision)>,
    pub owners: Vec<(OwnerId, Owner)>,
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
    /// before its commit is known here.
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

    /// Forgets the snapshots older than `revision`, and returns the number of the last of them.
    pub fn forget_before(&mut self, revision: u64) -> Option<u64> {
        let kept = self.revisions.split_off(&revision);
        std::mem::replace(&mut self.revisions, kept).into_values().map(|state| state.number).max()
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
        let boot_id = "b".into();
        Arc::new(WholeState { number, boot_id, revision, seen_ns, ..WholeState::default() }.into())
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
}
