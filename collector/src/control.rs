//! The control thread, from cluster and interfaces to the kernel: publishes snapshots, binds and attaches endpoints, and
//! records time without programs, stale sources and losses.
//!
//! The meanings of new kernel ids are sent to the pipeline before the kernel gets the ids. A publication that fails
//! leaves the one before it in force, and is tried again with a compiler that starts anew.

mod announced;
mod endpoints;
mod missing;
mod own_node;
mod publication;
mod state;
mod unbound;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::mpsc,
    time::{Duration, Instant},
};

use netverdict_probe::{BoundEndpoint, ClaimFolder, Sighting};
use netverdict_service::{error_chain::chain, queue::QueueReceiver, shutdown::Shutdown};
use tokio::sync::oneshot;

use self::state::State;
pub use self::{announced::Announced, state::Parts};
use crate::{cluster::ClusterState, codes, drain::Message, health::Part, sequence::KernelCount};

/// Interval between checks of the sighted interfaces.
const STEP: Duration = Duration::from_millis(50);
/// Between readings of the kernel's counters.
const COUNT: Duration = Duration::from_secs(1);
/// Between readings of how full the kernel's maps are.
const MEASURE: Duration = Duration::from_secs(5);

pub struct Control {
    pub parts: Parts,
    pub states: QueueReceiver<ClusterState>,
    pub sightings: QueueReceiver<Sighting>,
    pub announced: QueueReceiver<Announced>,
    /// Claims that the CNI plugin has written down.
    pub claims: ClaimFolder,
    /// Interfaces that were attached before this start.
    pub bindings: Vec<BoundEndpoint>,
    /// All addresses of the node's interfaces, as they were at the start.
    pub own_addresses: BTreeSet<IpAddr>,
    /// Used once the first snapshot is in force and the interfaces that were there are attached, as far as both can be.
    pub started: oneshot::Sender<()>,
}

impl Control {
    /// Runs until a stop is requested. Enforcement stays as it is then.
    pub fn run(self, stop: &Shutdown) {
        let Self { parts, states, sightings, announced, claims, bindings, own_addresses, started } = self;
        let mut state = State::new(parts, bindings, own_addresses, started);
        state.read_claims(&claims);
        let inputs = Inputs { states, sightings, announced, claims };
        state.follow(&inputs, stop);
        state.end();
    }
}

/// The queues that the thread follows.
struct Inputs {
    states: QueueReceiver<ClusterState>,
    sightings: QueueReceiver<Sighting>,
    announced: QueueReceiver<Announced>,
    claims: ClaimFolder,
}

impl State {
    fn follow(&mut self, inputs: &Inputs, stop: &Shutdown) {
        let Inputs { states, sightings, announced, claims } = inputs;
        let (mut counted, mut measured) = (Instant::now(), Instant::now());
        while !stop.is_requested() {
            match states.recv_timeout(STEP) {
                // Only the newest counts.
                Ok(state) => self.want(states.try_iter().last().unwrap_or(state)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                // The source has ended; the thread that joins it reports why.
                Err(mpsc::RecvTimeoutError::Disconnected) => _ = stop.wait(STEP),
            }
            if self.publication.retry_at.is_some_and(|at| Instant::now() >= at) {
                self.publication.retry_at = None;
                self.bring_into_force();
            }
            sightings.try_iter().for_each(|sighting| self.sight(sighting));
            self.hear(announced.try_iter().collect());
            let again = self.attachments.attach_at.take_if(|at| Instant::now() >= *at).is_some();
            if std::mem::take(&mut self.attachments.bind_again) || again {
                self.attach_all();
                self.follow_uplinks();
            }
            self.answer_waiting();
            if self.publication.wanted.is_some()
                && let Some(started) = self.started.take()
            {
                self.parts.health.set(Part::Start, Vec::new());
                // The receiver may have given up waiting.
                let _ = started.send(());
            }
            self.record_staleness(false);
            if let Err(error) = self.parts.probe.collect_garbage() {
                tracing::warn!(error = %chain(&error), "superfluous entries not deleted yet");
            }
            if counted.elapsed() >= COUNT {
                counted = Instant::now();
                self.count(false);
                self.release_others();
                self.tell_unbound(false);
            }
            if measured.elapsed() >= MEASURE {
                measured = Instant::now();
                if self.parts.metrics.unbound.get() > 0 {
                    self.read_claims(claims);
                    self.attachments.bind_again = true;
                }
                self.parts.metrics.occupancy(&self.parts.probe.occupancy());
            }
        }
    }

    /// Sends the kernel's counters for the last time: the rings are drained against them.
    fn end(mut self) {
        self.record_staleness(true);
        self.tell_unbound(true);
        self.count(true);
        self.parts.probe.shutdown();
    }

    /// Sends the kernel's counters to the drain. `wait`: for room in the queue.
    fn count(&mut self, wait: bool) {
        let at = Instant::now();
        match self.parts.probe.counters() {
            Ok(counters) => {
                let count = |lane: &netverdict_probe::LaneCount| KernelCount {
                    lane: codes::lane_name(lane.lane),
                    cpu: lane.cpu,
                    seq: lane.seq,
                };
                self.record_losses(&counters.losses);
                self.parts.metrics.flooded(counters.flooded);
                let counts = counters.lanes.iter().filter(|lane| lane.seq > 0).map(count).collect();
                let counts = Message::Counters(at, counts);
                // Without room, the next counters replace these. If the drain has ended, its thread reports why.
                let _ = match wait {
                    true => self.parts.messages.send(counts).is_ok(),
                    false => self.parts.messages.try_send(counts).is_ok(),
                };
            }
            Err(error) => tracing::warn!(error = %chain(&error), "kernel's counters cannot be read"),
        }
    }
}
