//! Inputs of the pipeline, in the order in which they count: the meanings of ids always before the events that name them.
//!
//! Sessions and batches outlive a crash in the write-ahead log, facts in the store's journal. The meanings of ids are
//! restored from the probe's state file and from the kept snapshots.

use std::sync::Arc;

use netverdict_flowlog::row::{
    AttributionRow, ChangeHead, EndpointChangeRow, GapCause, GapRow, ModeName, NamespaceRow, PolicyRow, Row,
    ServiceRow, SnapshotRow,
};
use netverdict_policy::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::{
    batch::{ForeignBatch, RingBatch},
    meaning::{Meanings, SnapshotState},
    sequence::KernelCount,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A collector begins to read; all later inputs are of this node and boot.
    Session(Session),
    /// New ids and their meanings.
    Meanings(Meanings),
    /// A snapshot is about to be published: events of a still unknown revision belong to it.
    Snapshot(Arc<SnapshotState>),
    /// It came into force.
    Published { number: u64, revision: u64 },
    /// It did not; the one before it stays in force.
    Abandoned { number: u64 },
    /// The pod behind a host interface, from now on.
    Bound { interface: u32, pod: ObjectKey, uid: String },
    /// Rows that no event is the origin of.
    Facts(Vec<Fact>),
    /// Events of our own probe.
    #[serde(skip)]
    Ring(RingBatch),
    /// Reports of another system.
    #[serde(skip)]
    Foreign(ForeignBatch),
    /// The kernel's counters at a moment after which both rings were seen empty.
    Counted(Vec<KernelCount>),
    /// Sets the cause of gaps: why the numbers that are missing from here on are missing.
    #[serde(alias = "blame")]
    GapCause(GapCause),
}

/// A run of the collector: its node, boot and mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub node: Arc<str>,
    pub boot_id: Arc<str>,
    pub mode: ModeName,
    /// The kernel's counters begin at 1: nothing was pinned before.
    pub fresh: bool,
    /// Nanoseconds since 1970.
    pub time_ns: i64,
}

/// A row that no event is the origin of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    Policy(Box<PolicyRow>),
    Endpoint(Box<EndpointChangeRow>),
    Namespace(Box<NamespaceRow>),
    Service(Box<ServiceRow>),
    Attribution(Box<AttributionRow>),
    Snapshot(Box<SnapshotRow>),
    Gap(Box<GapRow>),
}

impl Fact {
    /// The common first columns of rows of change logs; `None` for the other tables.
    pub fn head_mut(&mut self) -> Option<&mut ChangeHead> {
        match self {
            Self::Policy(row) => Some(&mut row.head),
            Self::Endpoint(row) => Some(&mut row.head),
            Self::Namespace(row) => Some(&mut row.head),
            Self::Service(row) => Some(&mut row.head),
            Self::Attribution(_) | Self::Snapshot(_) | Self::Gap(_) => None,
        }
    }
}

impl From<Fact> for Row {
    fn from(fact: Fact) -> Self {
        match fact {
            Fact::Policy(row) => Self::Policy(row),
            Fact::Endpoint(row) => Self::Endpoint(row),
            Fact::Namespace(row) => Self::Namespace(row),
            Fact::Service(row) => Self::Service(row),
            Fact::Attribution(row) => Self::Attribution(row),
            Fact::Snapshot(row) => Self::Snapshot(row),
            Fact::Gap(row) => Self::Gap(row),
        }
    }
}
