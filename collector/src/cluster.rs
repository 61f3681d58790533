//! What the cluster says: objects from a source, made into a snapshot, again whenever they change.
//!
//! A source never blocks on one bad object: what cannot be read is told as trouble, and its last good state counts on.

pub mod assembly;
pub mod changes;
pub mod generations;
pub mod manifests;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use netverdict_policy::Snapshot;
use netverdict_service::{queue::QueueSender, shutdown::Shutdown};

use crate::{
    clock,
    cluster::{
        assembly::{Assembly, Texts},
        manifests::Manifests,
    },
};

/// The cluster at a moment.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    pub snapshot: Arc<Snapshot>,
    /// The policies of the snapshot as they were written.
    pub policies: Arc<Texts>,
    /// What could not be read, each a line for people. Empty when all is well.
    pub troubles: Vec<String>,
    /// Findings of severity error: what may be missing in the snapshot.
    pub errors: u64,
    /// When it was read, in nanoseconds since 1970.
    pub seen_ns: i64,
}

impl ClusterState {
    /// What the objects say. `troubles`: what the source itself could not read.
    pub fn of(assembly: &Assembly, troubles: Vec<String>) -> Self {
        let errors = troubles.len() as u64 + assembly.faults().count() as u64;
        // What a source refused and the snapshot refuses again is one trouble.
        let all: BTreeSet<String> = troubles.into_iter().chain(assembly.faults().cloned()).collect();
        Self {
            snapshot: assembly.snapshot(),
            policies: assembly.policies(),
            troubles: all.into_iter().collect(),
            errors,
            seen_ns: clock::now_ns(),
        }
    }
}

/// Looks at the manifests until told to stop, and sends what has changed. Ends when nobody listens any more.
pub fn follow(mut manifests: Manifests, interval: Duration, states: &QueueSender<ClusterState>, stop: &Shutdown) {
    loop {
        let began = Instant::now();
        if let Some(state) = manifests.look()
            && states.send(state).is_err()
        {
            return;
        }
        if stop.wait(interval.saturating_sub(began.elapsed()).max(Duration::from_millis(10))) {
            return;
        }
    }
}
