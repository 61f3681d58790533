//! Cluster and interfaces → kernel: compiles and publishes snapshots, binds and attaches endpoints.
//!
//! What the kernel's new ids mean is sent to the pipeline before the kernel learns of them. A publication that fails
//! leaves the one before it in force, and is tried again with a compiler that starts anew.

mod endpoints;
mod missing;

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};

use netverdict_flowlog::row::{ModeName, SnapshotRow};
use netverdict_policy::{
    Change, Compiler, Snapshot,
    tables::{Owner, OwnerId},
};
use netverdict_probe::{BoundEndpoint, Discovered, Probe, Sighting};
use netverdict_service::{
    error_chain::chain,
    queue::{QueueReceiver, QueueSender},
    shutdown::Shutdown,
};

use tokio::sync::oneshot;

use self::missing::Losses;
use crate::{
    clock,
    cluster::{ClusterState, changes::Changes},
    codes,
    drain::Message,
    health::{Health, Part},
    input::{Fact, Input, Session},
    meaning::Meanings,
    metrics::{Metrics, signed},
    sequence::KernelCount,
    snapshots::Snapshots,
    write::FactLog,
};

/// Between looks at the interfaces that were sighted.
const STEP: Duration = Duration::from_millis(50);
/// Between attempts to publish or to attach.
const RETRY: Duration = Duration::from_secs(1);
const COUNT: Duration = Duration::from_secs(1);
const MEASURE: Duration = Duration::from_secs(5);

pub struct Control {
    pub probe: Probe,
    pub session: Session,
    pub snapshots: Snapshots,
    pub changes: Changes,
    pub states: QueueReceiver<ClusterState>,
    pub sightings: QueueReceiver<Sighting>,
    pub messages: QueueSender<Message>,
    pub facts: FactLog,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    /// Interfaces that were attached before this start.
    pub bindings: Vec<BoundEndpoint>,
    /// Told once the first snapshot is in force and what was there is attached, as far as both can be.
    pub started: oneshot::Sender<()>,
}

impl Control {
    /// Runs until told to stop. Enforcement stays as it is then.
    pub fn run(self, stop: &Shutdown) {
        let Self {
            probe,
            session,
            snapshots,
            changes,
            states,
            sightings,
            messages,
            facts,
            health,
            metrics,
            bindings,
            started,
        } = self;
        let attached = bindings.into_iter().map(|bound| (bound.ifindex, bound)).collect();
        let mut state = State {
            probe,
            session,
            snapshots,
            changes,
            messages,
            facts,
            health,
            metrics,
            started: Some(started),
            compiler: None,
            wanted: None,
            in_force: None,
            retry_at: None,
            stale: None,
            losses: Losses::default(),
            sighted: BTreeMap::new(),
            attached,
            bind_again: true,
            attach_at: None,
        };
        state.follow(&states, &sightings, stop);
        state.end();
    }
}

struct State {
    probe: Probe,
    session: Session,
    snapshots: Snapshots,
    changes: Changes,
    messages: QueueSender<Message>,
    facts: FactLog,
    health: Arc<Health>,
    metrics: Metrics,
    started: Option<oneshot::Sender<()>>,
    /// `None` after a failure: what it believes to be published is not.
    compiler: Option<Compiler>,
    /// The newest state of the cluster.
    wanted: Option<Arc<ClusterState>>,
    in_force: Option<InForce>,
    retry_at: Option<Instant>,
    /// Since when the source is stale, and until when that is on record.
    stale: Option<(Instant, SystemTime)>,
    losses: Losses,
    sighted: BTreeMap<u32, Discovered>,
    attached: BTreeMap<u32, BoundEndpoint>,
    bind_again: bool,
    /// After an attachment that failed.
    attach_at: Option<Instant>,
}

struct InForce {
    number: u64,
    snapshot: Arc<Snapshot>,
}

impl State {
    fn follow(&mut self, states: &QueueReceiver<ClusterState>, sightings: &QueueReceiver<Sighting>, stop: &Shutdown) {
        let (mut counted, mut measured) = (Instant::now(), Instant::now());
        while !stop.is_requested() {
            match states.recv_timeout(STEP) {
                // Only the newest counts.
                Ok(state) => self.want(states.try_iter().last().unwrap_or(state)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                // The source has ended; whoever joins it says why.
                Err(mpsc::RecvTimeoutError::Disconnected) => _ = stop.wait(STEP),
            }
            if self.retry_at.is_some_and(|at| Instant::now() >= at) {
                self.retry_at = None;
                self.bring_into_force();
            }
            sightings.try_iter().for_each(|sighting| self.sight(sighting));
            let again = self.attach_at.take_if(|at| Instant::now() >= *at).is_some();
            if std::mem::take(&mut self.bind_again) || again {
                self.attach_all();
            }
            if self.wanted.is_some()
                && let Some(started) = self.started.take()
            {
                self.health.set(Part::Start, Vec::new());
                // Who waits for it may have given up.
                let _ = started.send(());
            }
            self.tell_staleness(false);
            if let Err(error) = self.probe.collect_garbage() {
                tracing::warn!(error = %chain(&error), "superfluous entries not deleted yet");
            }
            if counted.elapsed() >= COUNT {
                counted = Instant::now();
                self.count(false);
            }
            if measured.elapsed() >= MEASURE {
                measured = Instant::now();
                self.metrics.occupancy(&self.probe.occupancy());
            }
        }
    }

    /// What the kernel has counted, for the last time: the rings are drained against it.
    fn end(mut self) {
        self.tell_staleness(true);
        self.count(true);
        self.probe.shutdown();
    }

    fn want(&mut self, state: ClusterState) {
        if self.health.set(Part::Source, state.troubles.clone()) && !state.troubles.is_empty() {
            tracing::warn!(source.troubles = ?state.troubles, "cluster source cannot be read whole");
        }
        self.metrics.troubles(Part::Source, state.troubles.len());
        self.wanted = Some(Arc::new(state));
        self.bring_into_force();
        self.bind_again = true;
    }

    /// Publishes the newest state of the cluster.
    fn bring_into_force(&mut self) {
        let Some(cluster) = self.wanted.clone() else { return };
        let troubles = match self.publish(&cluster) {
            Ok(()) => Vec::new(),
            Err(error) => {
                self.metrics.failed(Part::Publish);
                self.compiler = None;
                self.retry_at = Some(Instant::now() + RETRY);
                vec![error]
            }
        };
        self.metrics.troubles(Part::Publish, troubles.len());
        let failed = troubles.first().cloned();
        if self.health.set(Part::Publish, troubles) {
            match failed {
                Some(error) => tracing::error!(%error, "snapshot not published; the one before it stays in force"),
                None => tracing::info!("snapshots are published again"),
            }
        }
    }

    fn publish(&mut self, cluster: &Arc<ClusterState>) -> Result<(), String> {
        let audit_all = self.session.mode == ModeName::Audit;
        let snapshot = match cluster.snapshot.audit_all == audit_all {
            true => cluster.snapshot.clone(),
            false => Arc::new(Snapshot { audit_all, ..(*cluster.snapshot).clone() }),
        };
        if let Some(in_force) = &self.in_force
            && self.compiler.is_some()
            && (Arc::ptr_eq(&in_force.snapshot, &snapshot) || *in_force.snapshot == *snapshot)
        {
            // The objects may say more than the snapshot does: an annotation, a comment in a text.
            let number = in_force.number;
            self.tell_changes(cluster, number, clock::now_ns());
            return Ok(());
        }
        let span = tracing::info_span!("publish", snapshot = tracing::field::Empty);
        let _entered = span.enter();
        let compiler =
            self.compiler.get_or_insert_with(|| Compiler::new(self.session.node.to_string(), self.probe.floor()));
        let change = tracing::info_span!("compile").in_scope(|| compiler.compile(&snapshot));
        let boot_id = &self.session.boot_id;
        let kept = tracing::info_span!("keep")
            .in_scope(|| self.snapshots.keep(boot_id, cluster.seen_ns, &snapshot, compiler, change.complete));
        let state = kept.map_err(|error| chain(&error))?;
        let number = state.number;
        span.record("snapshot", number);
        let Change { attributions, owners, .. } = &change;
        self.send(Input::Meanings(Meanings { attributions: attributions.clone(), owners: owners.clone() }));
        self.send(Input::Snapshot(state));
        let time_ns = clock::now_ns();
        let published = tracing::info_span!("write_maps").in_scope(|| self.probe.publish(number, &change));
        let revision = match published {
            Ok(revision) => revision,
            Err(error) => {
                self.send(Input::Abandoned { number });
                if let Err(error) = self.snapshots.abandoned(number) {
                    tracing::warn!(error = %chain(&error), "that a kept snapshot was not published is not noted");
                }
                return Err(chain(&error));
            }
        };
        self.send(Input::Published { number, revision });
        if let Err(error) = self.snapshots.published(number, revision) {
            tracing::warn!(error = %chain(&error), "revision of a kept snapshot not noted");
        }
        self.in_force = Some(InForce { number, snapshot });
        self.note(cluster, number, revision);
        let mut facts = self.changes.attributions(&change.attributions, time_ns);
        facts.push(Fact::Snapshot(Box::new(SnapshotRow {
            time: clock::at(time_ns),
            node: self.session.node.clone(),
            boot_id: self.session.boot_id.clone(),
            snapshot: number,
            revision,
            policies: cluster.snapshot.policies.len() as u64,
            pods: cluster.snapshot.pods.len() as u64,
            namespaces: cluster.snapshot.namespaces.len() as u64,
            audit_all: self.session.mode == ModeName::Audit,
            errors: cluster.errors,
        })));
        self.tell(facts);
        self.tell_changes(cluster, number, time_ns);
        Ok(())
    }

    fn note(&self, cluster: &ClusterState, number: u64, revision: u64) {
        self.metrics.publications.inc();
        self.metrics.snapshot.set(signed(number));
        self.metrics.revision.set(signed(revision));
        self.metrics.policies.set(signed(cluster.snapshot.policies.len() as u64));
        self.metrics.pods.set(signed(cluster.snapshot.pods.len() as u64));
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at: microseconds are enough")]
        let seconds = (clock::now_ns() - cluster.seen_ns) as f64 / 1e9;
        self.metrics.publish_seconds.observe(seconds.max(0.0));
        tracing::info!(
            snapshot.number = number,
            snapshot.revision = revision,
            snapshot.policies = cluster.snapshot.policies.len(),
            snapshot.pods = cluster.snapshot.pods.len(),
            snapshot.errors = cluster.errors,
            "snapshot in force"
        );
    }

    /// Tells what has changed, and remembers that it was told.
    fn tell_changes(&mut self, cluster: &ClusterState, number: u64, time_ns: i64) {
        let compiler = self.compiler.as_ref();
        let owner_id =
            |owner: &Owner| compiler.and_then(|compiler| compiler.owner_id(owner)).unwrap_or(OwnerId::NOBODY);
        let facts = self.changes.rows(cluster, number, time_ns, owner_id);
        // Nothing is remembered that could be lost: rather told twice.
        if self.tell(facts)
            && let Err(error) = self.changes.save()
        {
            tracing::warn!(error = %chain(&error), "a restart will tell again what has changed");
        }
    }

    /// Sends the kernel's counters to the drain. `wait`: for room in the queue.
    fn count(&mut self, wait: bool) {
        let at = Instant::now();
        match self.probe.counters() {
            Ok(counters) => {
                let count = |lane: &netverdict_probe::LaneCount| KernelCount {
                    lane: codes::lane_name(lane.lane),
                    cpu: lane.cpu,
                    seq: lane.seq,
                };
                self.tell_losses(&counters.losses);
                self.metrics.flooded(counters.flooded);
                let counts = counters.lanes.iter().filter(|lane| lane.seq > 0).map(count).collect();
                let counts = Message::Counters(at, counts);
                // Without room, the next counters replace these. If the drain has ended, its thread says why.
                let _ = match wait {
                    true => self.messages.send(counts).is_ok(),
                    false => self.messages.try_send(counts).is_ok(),
                };
            }
            Err(error) => tracing::warn!(error = %chain(&error), "kernel's counters cannot be read"),
        }
    }

    /// Appends facts. Says whether they are durable.
    fn tell(&mut self, facts: Vec<Fact>) -> bool {
        self.facts.append(facts)
    }

    fn send(&self, input: Input) {
        // If nobody listens, whoever joins the drain says why.
        let _ = self.messages.send(Message::Input(Box::new(input)));
    }
}
