//! Answers of the query service over HTTP, shared with its clients. JSON; unknown fields are ignored by readers, so
//! that an older client understands a newer service.

mod gaps;
mod status;

use chrono::{DateTime, Utc};
pub use gaps::merged;
use netverdict_policy::{NearMiss, Reason, Verdict};
use serde::{Deserialize, Serialize};
pub use status::{
    CollectorAnswer, CollectorStatus, CopyStatus, EventCounts, Loss, MOST_LISTED, MirrorStatus, PolicyStatus, Problem,
    ServiceStatus, SkippedFile,
};

/// Header of the query service's token behind a proxy that takes `Authorization` for itself, as a Kubernetes API server
/// does. In the form of that header.
pub const PROXIED_AUTHORIZATION: &str = "netverdict-authorization";

/// `GET /v1/why`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// The answer in one sentence: *denied at destination ingress by db/default-deny (isolates db/pg; no rule matched)…*
    pub sentence: String,
    /// Of the connection: the first denying point's, else that of all points together.
    pub verdict: Verdict,
    pub source: WhyEnd,
    pub destination: WhyEnd,
    pub port: Option<u16>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, …; empty for any.
    pub protocol: String,
    /// In the order source egress, destination ingress; only ends that are pods.
    pub points: Vec<WhyPoint>,
    /// The newest state's verdict on the connection as a whole; `None` where it cannot be evaluated.
    #[serde(default)]
    pub now: Option<Verdict>,
    /// Other protocols and families over which packets between the ends met another verdict.
    #[serde(default)]
    pub otherwise: Vec<WhyOtherwise>,
    /// Known gaps in the time asked about.
    pub gaps: Vec<Gap>,
    /// Why the answer may be out of date; empty when it is not.
    pub stale: Vec<String>,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhyEnd {
    /// As `namespace/pod`, or an address.
    pub name: String,
    /// `pod`, `node`, `external`, …
    pub kind: String,
    pub addresses: Vec<String>,
    pub labels: std::collections::BTreeMap<String, String>,
    /// When the pod was deleted; `None` where it is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<DateTime<Utc>>,
    /// Of a node: the pods on its network, any of which this may have been.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
}

/// Verdict on packets between the same ends over another protocol or family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyOtherwise {
    pub protocol: String,
    /// 4 or 6.
    pub family: u8,
    /// The newest.
    pub verdict: Verdict,
    pub count: u64,
    pub last_seen: DateTime<Utc>,
}

/// One end's verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhyPoint {
    /// `source-egress` or `destination-ingress`.
    pub point: String,
    pub verdict: Verdict,
    pub verdict_if_enforced: Option<Verdict>,
    /// `forwarded` or `dropped`; empty where no packet is on record.
    pub disposition: String,
    pub reason: Reason,
    /// Not policy: `malformed`, …; empty otherwise.
    pub drop_reason: String,
    /// `enforced`: packets are on record. `evaluated`: none is; the stored snapshot was evaluated.
    pub method: String,
    pub confidence: String,
    pub mode: String,
    pub decided_by: Vec<Decider>,
    pub passed: Vec<Decider>,
    pub staged: Vec<Decider>,
    pub near_misses: Vec<NearMiss>,
    /// Snapshot that decided.
    pub snapshot: u64,
    pub attribution_id: i64,
    /// When the last packet on record was judged; `None` where none is.
    pub last_seen: Option<DateTime<Utc>>,
    pub first_seen: Option<DateTime<Utc>>,
    /// Events on record in the time asked about that met this verdict here, over this protocol and family, with the same
    /// outcome as this packet. `first_seen` and `last_seen` are theirs.
    pub count: u64,
    /// The verdict that the newest snapshot gives; `None` where it cannot be evaluated.
    pub now: Option<Verdict>,
    /// The policies that would decide now, where they differ.
    pub now_decided_by: Vec<Decider>,
    pub node: String,
    /// A packet could not have got here, because the source's end denied it; this would have been this end's verdict.
    pub hypothetical: bool,
    pub identity_window_open: bool,
    /// The endpoint that this end took the other one for, where the other end's own node knows better: there its identity
    /// follows from its interface, here from its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistaken_for: Option<String>,
}

/// A policy's part in a decision, with its text as it stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decider {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub content_hash: String,
    pub tier: String,
    pub rule_index: Option<u32>,
    pub rule_name: String,
    pub action: String,
    pub role: String,
    /// The object as it stood; empty where it is not on record.
    pub text: String,
    /// The state of the object that decided; `None` where it is not on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Change of the policy since then.
    pub since: Since,
}

/// A state of a policy: the program that wrote it, and where it came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Empty for an object of a file.
    pub resource_version: String,
    /// The program that last wrote the deciding fields; empty where it is not known.
    pub author: String,
    /// When it did, by the API server's clock.
    pub changed: Option<DateTime<Utc>>,
    /// When the object was made, by the API server's clock.
    pub created: Option<DateTime<Utc>>,
    /// Where the state was read from: a file's name, or api.
    pub origin: String,
    /// Node that recorded it; the deciding one, where that is known.
    pub node: String,
    /// Since when it was in force on the node.
    pub in_force: DateTime<Utc>,
}

/// Change of a policy since it decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    Unchanged,
    Changed,
    Deleted,
    /// Not on record.
    Unknown,
}

/// A gap in the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub node: String,
    pub lane: String,
    pub endpoint: String,
    pub cause: String,
    pub lost_events: i64,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub detail: String,
}

/// A record as `flows` shows it: `GET /v1/flows`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowLine {
    pub time: DateTime<Utc>,
    pub node: String,
    pub verdict: String,
    pub verdict_if_enforced: Option<String>,
    pub disposition: String,
    pub direction: String,
    pub reason: String,
    /// `namespace/pod`, `node/name`, or the address.
    pub source: String,
    pub source_ip: String,
    pub source_port: Option<u16>,
    pub destination: String,
    pub destination_ip: String,
    pub destination_port: Option<u16>,
    pub protocol: String,
    /// `db/default-deny`, `db/allow-api#0`, …
    pub decided_by: Vec<String>,
    pub near_miss: Vec<String>,
    pub count: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowsAnswer {
    /// The newest that fit, oldest first.
    pub flows: Vec<FlowLine>,
    /// There are more that are older: as many as were asked for, or as the service gives at once, are here.
    #[serde(default)]
    pub truncated: bool,
    pub gaps: Vec<Gap>,
    pub stale: Vec<String>,
    /// Give it back as `after` to go on from here (`--follow`).
    pub cursor: String,
}

/// `POST /v1/sql`: one statement that reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SqlQuestion {
    pub query: String,
    /// `json` (default), `csv`, `arrow`.
    #[serde(default)]
    pub format: String,
}

/// The JSON form of an SQL result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SqlAnswer {
    pub columns: Vec<SqlColumn>,
    pub rows: Vec<Vec<serde_json::Value>>,
    /// Gaps that touch the time range that the rows come from.
    pub gaps: Vec<Gap>,
    pub stale: Vec<String>,
    /// More rows there were than the service gives at once.
    pub truncated: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SqlColumn {
    pub name: String,
    /// As PostgreSQL calls it.
    pub r#type: String,
}

/// Every error that the service answers with, besides its HTTP status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// Closed list, kebab-case: `unknown-pod`, `bad-request`, `unauthorized`, `bad-sql`, `refused-sql`, `timeout`, `busy`,
    /// `internal`.
    pub code: String,
    pub message: String,
    /// Remedy; empty where nothing helps.
    pub remedy: String,
}
