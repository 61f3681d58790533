//! State of the control thread: its parts, the publication in force, and the interfaces it knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use netverdict_flowlog::row::{GapCause, LaneName};
use netverdict_policy::{Compiler, Snapshot};
use netverdict_probe::{Answer, BoundEndpoint, Claims, Discovered, Probe, Uncovered, Uplink};
use netverdict_service::queue::QueueSender;
use tokio::sync::oneshot;

use crate::{
    cluster::{ClusterState, changes::Changes},
    drain::Message,
    health::Health,
    input::{Fact, Input, Session},
    metrics::Metrics,
    options::Unannounced,
    snapshots::Snapshots,
    write::FactLog,
};

/// Parts that the control thread works with.
pub struct Parts {
    pub probe: Probe,
    pub session: Session,
    pub snapshots: Snapshots,
    pub changes: Changes,
    pub messages: QueueSender<Message>,
    pub facts: FactLog,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    /// How an interface without a claim and without processes is treated: as a pod's, or not.
    pub unannounced: Unannounced,
}

pub(super) struct State {
    pub(super) parts: Parts,
    pub(super) publication: Publication,
    pub(super) attachments: Attachments,
    /// Taken when the start is complete.
    pub(super) started: Option<oneshot::Sender<()>>,
    /// Since when the source is stale, and until when that is on record.
    pub(super) stale: Option<(Instant, SystemTime)>,
    pub(super) losses: Losses,
    /// When this run began.
    pub(super) begun: Instant,
    pub(super) begun_at: SystemTime,
}

/// Policy: the state wanted, and the one in force.
#[derive(Default)]
pub(super) struct Publication {
    /// `None` after a failure: its tables no longer match the published ones.
    pub(super) compiler: Option<Compiler>,
    /// The newest state of the cluster, as its sources have it.
    pub(super) cluster: Option<ClusterState>,
    /// All addresses of the node's interfaces.
    pub(super) own_addresses: BTreeSet<IpAddr>,
    /// The newest state of the cluster as it is to be in force: with the node's own addresses.
    pub(super) wanted: Option<Arc<ClusterState>>,
    pub(super) in_force: Option<InForce>,
    /// After a publication that failed.
    pub(super) retry_at: Option<Instant>,
}

pub(super) struct InForce {
    pub(super) number: u64,
    pub(super) snapshot: Arc<Snapshot>,
}

/// Interfaces by index, and the pods behind them.
#[derive(Default)]
pub(super) struct Attachments {
    pub(super) sighted: BTreeMap<u32, Discovered>,
    /// With programs attached, whether their pods are known or not.
    pub(super) guarded: BTreeMap<u32, Guarded>,
    /// Bound to their pods.
    pub(super) attached: BTreeMap<u32, BoundEndpoint>,
    /// The errors of the last attempt to attach or bind.
    pub(super) failed: BTreeMap<u32, String>,
    /// Pods' interfaces that no program covers.
    pub(super) uncovered: BTreeSet<Uncovered>,
    pub(super) claims: Claims,
    pub(super) waiting: Vec<Waiting>,
    pub(super) open_gaps: BTreeMap<(GapCause, String), OpenGap>,
    /// All interfaces of the node.
    pub(super) uplinks: Vec<Uplink>,
    /// An interface or a pod has changed.
    pub(super) bind_again: bool,
    /// After an attachment that failed.
    pub(super) attach_at: Option<Instant>,
}

/// An interface with programs attached.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) netns_cookie: u64,
    /// When they were attached.
    pub(super) at: SystemTime,
    pub(super) since: Instant,
    /// Since when its namespace has only had processes of no pod.
    pub(super) not_a_pods_since: Option<Instant>,
    /// Whether the time before the attachment is on record, or need not be.
    pub(super) told: bool,
}

/// A CNI plugin that waits until a pod is judged.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) interfaces: Vec<u32>,
    pub(super) pod: String,
    pub(super) until: Instant,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// A gap that has not ended.
#[derive(Debug)]
pub(super) struct OpenGap {
    /// Until when it is on record, and when that was written.
    pub(super) recorded: SystemTime,
    pub(super) at: Instant,
    pub(super) detail: String,
}

/// Events lost by interface and lane, as the kernel counts them: the counts on record, and since when.
#[derive(Default)]
pub(super) struct Losses {
    pub(super) recorded: BTreeMap<(u32, LaneName), u64>,
    pub(super) recorded_at: Option<SystemTime>,
}

impl State {
    pub(super) fn new(
        parts: Parts,
        attached: impl IntoIterator<Item = BoundEndpoint>,
        own_addresses: BTreeSet<IpAddr>,
        started: oneshot::Sender<()>,
    ) -> Self {
        Self {
            parts,
            publication: Publication { own_addresses, ..Publication::default() },
            attachments: Attachments {
                attached: attached.into_iter().map(|bound| (bound.ifindex, bound)).collect(),
                uplinks: Vec::new(),
                bind_again: true,
                ..Attachments::default()
            },
            started: Some(started),
            stale: None,
            losses: Losses::default(),
            begun: Instant::now(),
            begun_at: SystemTime::now(),
        }
    }

    /// Appends facts. Returns whether they are durable.
    pub(super) fn append(&mut self, facts: Vec<Fact>) -> bool {
        self.parts.facts.append(facts)
    }

    pub(super) fn send(&self, input: Input) {
        // If the drain has ended, the thread that joins it reports why.
        let _ = self.parts.messages.send(Message::Input(Box::new(input)));
    }
}
