//! Rows before they are columns: one struct a table, as the collector fills them in.
//!
//! What many rows share is behind an `Arc`, so that a row costs little and a builder can tell by the pointer that two
//! rows say the same.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use chrono::{DateTime, Utc};
use netverdict_policy::{AttributionId, Decision, NearMiss, Reason, Verdict, named};
use serde::{Deserialize, Serialize};

named! {
    /// Why a row exists.
    RecordType {
        /// First of its flow key in the window.
        Verdict = "verdict",
        /// Repeats of a denied flow key on one CPU; `count` is exact.
        Update = "update",
        /// A connection ended; volumes are final.
        Close = "close",
    }
}
named! { LaneName { Denied = "denied", Flow = "flow" } }
named! { Reporter { Source = "source", Destination = "destination" } }
named! { DispositionName { Forwarded = "forwarded", Dropped = "dropped" } }
named! { ModeName { Enforce = "enforce", Audit = "audit", Observe = "observe" } }
named! {
    /// How the verdict came to be.
    Method { Enforced = "enforced", Reported = "reported", Evaluated = "evaluated", Inferred = "inferred" }
}
named! {
    /// What an end of a flow is. The `Unknown…` kinds say why nothing is known.
    EndpointKind {
        Pod = "pod",
        Node = "node",
        Service = "service",
        /// Outside every range of the cluster.
        External = "external",
        /// In a pod range, and no pod is known to own it.
        UnknownPod = "unknown_pod",
        /// The kernel named an owner whose meaning is lost.
        UnknownOwner = "unknown_owner",
        Unknown = "unknown",
    }
}
named! {
    /// Not policy.
    DropReason { Malformed = "malformed", ShortFragment = "short_fragment" }
}
named! {
    GapCause {
        RingFull = "ring_full",
        QueueFull = "queue_full",
        DiskFull = "disk_full",
        UploadAbandoned = "upload_abandoned",
        UncleanStop = "unclean_stop",
        /// From the birth of an interface to its attachment.
        Unattached = "unattached",
        NotReady = "not_ready",
        /// Removed by retention or by the cap on disk use.
        Expired = "expired",
        /// Events that could not be read: an unknown kind or ABI version, or a damaged batch.
        Unreadable = "unreadable",
        /// The cluster source could not be read whole: policies or pods may be older than they should.
        SourceStale = "source_stale",
    }
}

/// Who is at one end of a flow, as it stood then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointRow {
    pub kind: EndpointKind,
    /// These are empty where they do not apply or are not known (null in the file).
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    pub workload_kind: String,
    pub workload: String,
    pub service_account: String,
    pub node: String,
    pub zone: String,
    pub service: String,
    pub service_port: String,
    pub labels: BTreeMap<String, String>,
    /// The compiler's identity class; 0 for the world.
    pub identity: u32,
    pub hostname: String,
    pub hostname_source: String,
}

/// A decision and its id, shared by all rows that it decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributionValue {
    pub id: AttributionId,
    pub decision: Decision,
}

/// Table `flows`: one verdict.
#[derive(Clone, Debug)]
pub struct FlowRow {
    // --- record
    pub record_type: RecordType,
    pub node: Arc<str>,
    pub boot_id: Arc<str>,
    pub lane: LaneName,
    pub cpu: u32,
    /// Of the last event in this row: per boot, lane and CPU, from 1.
    pub seq: u64,
    pub time: DateTime<Utc>,
    pub ingest_time: DateTime<Utc>,
    /// `ring` for our own probe.
    pub receiver: &'static str,
    // --- flow
    pub direction: netverdict_policy::Direction,
    pub reporter: Reporter,
    /// 4 or 6.
    pub family: u8,
    pub source_ip: IpAddr,
    pub destination_ip: IpAddr,
    /// 0 where the protocol has no ports (null in the file).
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// Before DNAT, after SNAT; `None` where there was none.
    pub original_destination: Option<(IpAddr, u16)>,
    pub translated_source: Option<(IpAddr, u16)>,
    // --- decision
    pub verdict: Verdict,
    pub verdict_if_enforced: Option<Verdict>,
    pub disposition: DispositionName,
    pub mode: ModeName,
    pub reason: Reason,
    pub drop_reason: Option<DropReason>,
    pub method: Method,
    pub confidence: netverdict_policy::Confidence,
    // --- attribution
    /// `None`: the kernel's own reason, or an id whose meaning is lost (`reason` tells).
    pub attribution: Option<Arc<AttributionValue>>,
    /// As the kernel gave it, even where its meaning is lost; 0 is none.
    pub attribution_id: AttributionId,
    pub near_misses: Arc<[NearMiss]>,
    /// Number of the policy snapshot that decided; 0 where it is not known.
    pub snapshot: u64,
    /// Verbatim, when another system named a policy.
    pub reported_by: Option<Arc<str>>,
    // --- endpoints
    pub source: Arc<EndpointRow>,
    pub destination: Arc<EndpointRow>,
    // --- volume
    pub packets: u64,
    pub bytes: u64,
    pub reply_packets: u64,
    pub reply_bytes: u64,
    /// Kernel events in this row, at least 1.
    pub count: u64,
    pub first_time: DateTime<Utc>,
    pub last_time: DateTime<Utc>,
    // --- trust
    /// The owner that the kernel believed and the owner by the snapshot differ, or an owner is not known yet.
    pub identity_window_open: bool,
    pub spoof: bool,
    pub divergence: bool,
}

named! {
    /// A change log's rows either put a value or delete it.
    ChangeKind { Put = "put", Delete = "delete" }
}

/// What every row of a change log starts with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeHead {
    pub change: ChangeKind,
    /// When it came into force on this node.
    pub time: DateTime<Utc>,
    /// Number of the snapshot that the change made.
    pub revision: u64,
    pub node: Arc<str>,
    pub boot_id: Arc<str>,
}

/// Table `policies`: every revision of every policy seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyRow {
    pub head: ChangeHead,
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub resource_version: String,
    pub content_hash: String,
    /// The whole object as YAML; empty on delete.
    pub text: String,
    /// Empty where unknown.
    pub author: String,
    /// Where it was read from: a file's name, or `api`.
    pub origin: String,
}

/// Table `endpoints`: pods and nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointChangeRow {
    pub head: ChangeHead,
    pub kind: EndpointKind,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub owner_id: u32,
    pub labels: BTreeMap<String, String>,
    pub addresses: Vec<IpAddr>,
    /// The pod's node; a node's own name.
    pub node_name: String,
    pub host_network: bool,
    /// JSON list of the engine's `ContainerPort`.
    pub container_ports: String,
    pub service_account: String,
    pub workload_kind: String,
    pub workload: String,
    pub phase: String,
    pub terminating: bool,
    /// Nodes: their pod ranges, as text.
    pub pod_ranges: Vec<String>,
}

/// Table `namespaces`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceRow {
    pub head: ChangeHead,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub audit: bool,
}

/// Table `services`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceRow {
    pub head: ChangeHead,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub addresses: Vec<IpAddr>,
    /// JSON list of the engine's `ServicePort`.
    pub ports: String,
    pub selector: BTreeMap<String, String>,
}

/// Table `attributions`: what an id stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttributionRow {
    pub time: DateTime<Utc>,
    pub node: Arc<str>,
    pub attribution: Arc<AttributionValue>,
}

/// Table `snapshots`: a state of the whole policy, and when it came into force on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotRow {
    pub time: DateTime<Utc>,
    pub node: Arc<str>,
    pub boot_id: Arc<str>,
    /// Counts up over restarts and boots.
    pub snapshot: u64,
    /// The kernel's `current_revision` that it became; 0 if it could not be published.
    pub revision: u64,
    pub policies: u64,
    pub pods: u64,
    pub namespaces: u64,
    /// The whole node is in audit mode.
    pub audit_all: bool,
    /// Findings of severity error when it was read: what may be missing in it.
    pub errors: u64,
}

/// Table `gaps`: what is known to be missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GapRow {
    pub node: Arc<str>,
    pub boot_id: Arc<str>,
    pub lane: Option<LaneName>,
    pub cpu: Option<u32>,
    /// `namespace/pod` where known, else the interface; empty for the whole node.
    pub endpoint: String,
    pub cause: GapCause,
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
    pub lost_events: u64,
    /// `None` where it cannot be known.
    pub lost_packets: Option<u64>,
    pub from: DateTime<Utc>,
    /// Equal to `from` for a moment.
    pub to: DateTime<Utc>,
    /// For people; what to do about it.
    pub detail: String,
}

/// Table `collectors`: a collector's state when it started, every minute, and when it stopped.
#[derive(Clone, Debug)]
pub struct CollectorRow {
    pub time: DateTime<Utc>,
    pub node: Arc<str>,
    pub boot_id: Arc<str>,
    /// `started`, `running`, `stopped`.
    pub state: &'static str,
    pub version: String,
    pub mode: ModeName,
    /// Per lane and CPU (`denied/0`): the kernel's last sequence number.
    pub last_seq: BTreeMap<String, i64>,
    pub lost_events: u64,
    pub endpoints: u64,
}

/// Table `settings`: the effective configuration, a row a setting, when a collector starts.
#[derive(Clone, Debug)]
pub struct SettingRow {
    pub time: DateTime<Utc>,
    pub node: Arc<str>,
    pub name: String,
    pub value: String,
}

/// A row of any table.
#[derive(Clone, Debug)]
pub enum Row {
    Flow(Box<FlowRow>),
    Policy(Box<PolicyRow>),
    Endpoint(Box<EndpointChangeRow>),
    Namespace(Box<NamespaceRow>),
    Service(Box<ServiceRow>),
    Attribution(Box<AttributionRow>),
    Snapshot(Box<SnapshotRow>),
    Gap(Box<GapRow>),
    Collector(Box<CollectorRow>),
    Setting(Box<SettingRow>),
}

impl Row {
    /// When it happened; of a gap, when it began. The hour of the file that holds the row.
    pub fn time(&self) -> DateTime<Utc> {
        match self {
            Self::Flow(row) => row.time,
            Self::Policy(row) => row.head.time,
            Self::Endpoint(row) => row.head.time,
            Self::Namespace(row) => row.head.time,
            Self::Service(row) => row.head.time,
            Self::Attribution(row) => row.time,
            Self::Snapshot(row) => row.time,
            Self::Gap(row) => row.from,
            Self::Collector(row) => row.time,
            Self::Setting(row) => row.time,
        }
    }
}
