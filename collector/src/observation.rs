//! The neutral observation: one type between all receivers, of our probe and of other systems, and the pipeline.
//!
//! It answers four questions: which source reported it and at which position of its sequence ([`Origin`]), what was
//! seen ([`FlowTuple`], [`Outcome`], [`Volume`]), which endpoints its ends are said to be ([`Ends`]), and what decided
//! ([`Decider`]). Our own probe answers with numbers, so that its path allocates nothing; text from another system is
//! behind one `Arc` each.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use netverdict_flowlog::row::{DispositionName, DropReason, EndpointKind, LaneName, ModeName, Receiver, RecordType};
use netverdict_policy::{AttributionId, Decision, Direction, Reason, Verdict, tables::OwnerId};
use serde::{Deserialize, Serialize};

/// One flow, seen once at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub origin: Origin,
    /// Why the source reports it: a verdict, or news of a flow that had one.
    pub record_type: RecordType,
    /// Time of the first packet, in nanoseconds since 1970.
    pub first_ns: i64,
    /// Time of the last packet; equal to `first_ns` for a single packet.
    pub last_ns: i64,
    pub flow: FlowTuple,
    pub outcome: Outcome,
    pub volume: Volume,
    pub ends: Ends,
    pub decider: Decider,
}

/// The result of reading one record of another system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignRecord {
    Flow(Observation),
    /// Nothing was seen in it: no row.
    Empty,
    Unreadable {
        /// Of the record, by which it is recognised when it is sent again.
        hash: u128,
        /// Of the metric: a closed list.
        label: &'static str,
        /// For people: the expected value beside the found one.
        detail: String,
    },
}

/// Which source reported it, and at which position of that source's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Our own probe on this node.
    Probe {
        event: EventId,
        /// Nanoseconds since boot, suspended time included.
        boot_time: u64,
    },
    /// The log of another system.
    Foreign { receiver: Receiver, cursor: Cursor },
}

/// Which event of our probe it is within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    pub lane: LaneName,
    pub cpu: u32,
    /// As the kernel counts: from 1 since its counters were created.
    pub seq: u64,
}

/// Idempotency key of a foreign report: a report that is sent again has the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    pub window: Window,
    /// Distinguishes the reports of one window: a hash or an id of the source.
    pub key: u128,
}

/// Interval that a foreign report covers, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window: Window { start, end }, key } = self;
        write!(f, "{start}-{end}-{key:032x}")
    }
}

/// The flow key, and other fields of the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTuple {
    pub direction: Direction,
    /// Unspecified (`::`) where the source of the observation does not report it.
    pub source: IpAddr,
    pub destination: IpAddr,
    /// 0 where the protocol has none, in a fragment whose ports are not known, or where the source does not report it.
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    /// 4 or 6; 0 where it is not known.
    pub family: u8,
    /// Address and port to which the sender sent it, where that was translated (DNAT).
    pub original_destination: Option<(IpAddr, u16)>,
    /// Address and port that the receiver saw, where they were translated (SNAT).
    pub translated_source: Option<(IpAddr, u16)>,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// A fragment other than the first.
    pub fragment: bool,
}

/// The verdict, and the packet's disposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub disposition: DispositionName,
    pub mode: ModeName,
}

/// Traffic that the observation stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// In the direction of the flow.
    pub packets: u64,
    /// Link layer included where our probe counted them.
    pub bytes: u64,
    /// In the other direction.
    pub reply_packets: u64,
    pub reply_bytes: u64,
    /// Events or connections, at least 1.
    pub count: u64,
}

/// The two ends, as their source names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Our owner ids, as the kernel had them when it decided.
    Owners(OwnerEnds),
    /// Names that another system gives.
    Claimed(Arc<ClaimedEnds>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerEnds {
    pub source: OwnerId,
    pub destination: OwnerId,
    /// The pod whose interface decided; unset while its tables were not complete.
    pub endpoint: OwnerId,
    /// Index of the host interface that decided.
    pub interface: u32,
    /// The peer's address lies in a pod range and no pod was known to own it.
    pub unknown_pod: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedEnds {
    pub source: ClaimedEnd,
    pub destination: ClaimedEnd,
}

/// One end in the words of another system. Empty where the report has no value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimedEnd {
    pub kind: EndpointKind,
    pub namespace: String,
    pub pod: String,
    pub workload_kind: String,
    pub workload: String,
    pub node: String,
    /// `namespace/name`.
    pub service: String,
    pub service_port: String,
    pub labels: BTreeMap<String, String>,
}

/// The tables or the system that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// Our compiled tables, or the kernel program itself.
    Tables {
        /// 0 where `reason` alone is the explanation.
        attribution: AttributionId,
        /// The kernel's revision when it decided.
        revision: u64,
        reason: ReasonSource,
    },
    /// Decision of another system. It is recorded, never re-evaluated.
    Reported(Arc<Report>),
}

/// Where the reason of our own verdict comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonSource {
    /// The attribution's decision holds the reason.
    Attribution,
    /// Only the kernel can know it. `drop` where it is no matter of policy.
    Kernel { reason: Reason, drop: Option<DropReason> },
}

/// Another system's account of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In our words. Its references name the other system's policies; uid, generation and content hash are empty, for
    /// no foreign log has them.
    pub decision: Decision,
    /// The policies in the other system's own words; empty where it named none.
    pub verbatim: Arc<str>,
}
