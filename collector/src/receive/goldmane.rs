//! Calico's flow log → observations: the lines that Goldmane's emitter posts.
//!
//! A line is one flow of a five-minute window, as JSON with enums and 64-bit numbers as numbers; a field that is absent
//! is 0. An unreadable line is refused alone, with its cause. Names that Calico gives (policies, tiers, rule indices) are
//! recorded as a claim: nothing is looked up and nothing is evaluated. `docs/goldmane.md` lists the facts that these lines
//! hold and lack.

pub mod listener;
mod policies;
mod unreadable;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use netverdict_flowlog::row::{DispositionName, EndpointKind, ModeName, Receiver, RecordType};
use netverdict_policy::{Direction, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

pub use self::unreadable::{MAX_LINE_BYTES, Unreadable};
use self::{
    policies::{Action, Trace},
    unreadable::MOST_DETAIL,
};
use crate::{
    batch::ForeignBatch,
    observation::{
        ClaimedEnd, ClaimedEnds, Cursor, Decider, Ends, FlowTuple, ForeignRecord, Observation, Origin, Outcome, Report,
        Volume, Window,
    },
};

/// Seconds that a window may lie ahead of its receipt: the clocks of two machines.
const AHEAD: i64 = 3_600;
/// Seconds that a window may lie back: its rows go into the files of their own hour, and hours must stay few.
const BACK: i64 = 7 * 86_400;
const LONGEST_WINDOW: i64 = 86_400;
const NANOSECONDS: i64 = 1_000_000_000;

/// A flow as Calico writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Flow<'a> {
    #[serde(rename = "Key", borrow)]
    key: Option<Key<'a>>,
    /// Seconds since 1970.
    start_time: i64,
    end_time: i64,
    source_labels: Vec<String>,
    dest_labels: Vec<String>,
    /// In and out are relative to the end that reports.
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    num_connections_started: u64,
    num_connections_completed: u64,
    num_connections_live: u64,
}

/// Identifies a flow within its window.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Key<'a> {
    source_name: String,
    source_namespace: String,
    source_type: i64,
    dest_name: String,
    dest_namespace: String,
    dest_type: i64,
    dest_port: i64,
    dest_service_name: String,
    dest_service_namespace: String,
    dest_service_port_name: String,
    dest_service_port: i64,
    proto: String,
    reporter: i64,
    action: i64,
    #[serde(borrow, skip_serializing)]
    policies: Option<&'a RawValue>,
}

/// Reads the lines of a batch. A flow without any traffic is empty: older Calico exports a denial again and again with
/// all statistics 0.
pub fn records(batch: &ForeignBatch) -> impl Iterator<Item = ForeignRecord> + '_ {
    let received = batch.ingest_ns.div_euclid(NANOSECONDS);
    let lines = batch.bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(move |line| match read(line, received) {
        Ok(Some(observation)) => ForeignRecord::Flow(observation),
        Ok(None) => ForeignRecord::Empty,
        Err(unreadable) => ForeignRecord::Unreadable {
            hash: xxh3_128(line),
            label: unreadable.label(),
            detail: unreadable.to_string(),
        },
    })
}

/// `None` for a flow without traffic.
fn read(line: &[u8], received: i64) -> Result<Option<Observation>, Unreadable> {
    if line.len() > MAX_LINE_BYTES {
        return Err(Unreadable::Length { found: line.len() });
    }
    let json =
        |error: serde_json::Error| Unreadable::Json { found: error.to_string().chars().take(MOST_DETAIL).collect() };
    let flow: Flow<'_> = serde_json::from_slice(line).map_err(json)?;
    let key = flow.key.as_ref().ok_or(Unreadable::Key)?;
    let window = window(&flow, received)?;
    let trace: Trace = match key.policies {
        Some(text) => serde_json::from_str(text.get()).map_err(json)?,
        None => Trace::default(),
    };
    let direction = match key.reporter {
        1 => Direction::Egress,
        2 => Direction::Ingress,
        other => return Err(Unreadable::code("reporter", other)),
    };
    let action = Action::of(key.action).ok_or_else(|| Unreadable::code("action", key.action))?;
    let protocol = protocol(&key.proto).ok_or_else(|| Unreadable::code("proto", &key.proto))?;
    let port = u16::try_from(key.dest_port).map_err(|_| Unreadable::code("dest_port", key.dest_port))?;
    let decision = trace.decision(action)?;
    let Some(volume) = volume(&flow, direction) else { return Ok(None) };
    let cursor = Cursor { window, key: identity(key, &trace).map_err(json)? };
    // An unspecified address of a family that is not known: these lines have no addresses.
    let nowhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    Ok(Some(Observation {
        origin: Origin::Foreign { receiver: Receiver::Goldmane, cursor },
        record_type: RecordType::Verdict,
        first_ns: window.start * NANOSECONDS,
        last_ns: window.end * NANOSECONDS,
        flow: FlowTuple {
            direction,
            source: nowhere,
            destination: nowhere,
            source_port: 0,
            destination_port: port,
            protocol,
            family: 0,
            original_destination: None,
            translated_source: None,
            tcp_flags: 0,
            icmp_type: 0,
            icmp_code: 0,
            fragment: false,
        },
        outcome: Outcome {
            verdict: decision.verdict,
            disposition: match decision.verdict {
                Verdict::Denied => DispositionName::Dropped,
                Verdict::Allowed | Verdict::Unknown => DispositionName::Forwarded,
            },
            mode: ModeName::Enforce,
        },
        volume,
        ends: Ends::Claimed(Arc::new(ends(key, &flow))),
        decider: Decider::Reported(Arc::new(Report {
            decision,
            verbatim: key.policies.map_or("", RawValue::get).into(),
        })),
    }))
}

fn window(flow: &Flow<'_>, received: i64) -> Result<Window, Unreadable> {
    let Flow { start_time: start, end_time: end, .. } = *flow;
    let near = start > 0
        && (start..=start.saturating_add(LONGEST_WINDOW)).contains(&end)
        && start > received.saturating_sub(BACK)
        && end < received.saturating_add(AHEAD);
    near.then_some(Window { start, end }).ok_or(Unreadable::Window { start, end, received })
}

/// Hash of everything that identifies a flow within its window. Policies are hashed as parsed, so the order of JSON
/// fields does not matter.
fn identity(key: &Key<'_>, trace: &Trace) -> serde_json::Result<u128> {
    serde_json::to_vec(&(key, trace)).map(|bytes| xxh3_128(&bytes))
}

/// `None` where nothing was counted.
fn volume(flow: &Flow<'_>, direction: Direction) -> Option<Volume> {
    let Flow {
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
        num_connections_started: started,
        num_connections_completed: completed,
        num_connections_live: live,
        ..
    } = *flow;
    if [packets_in, packets_out, bytes_in, bytes_out, started, completed, live].iter().all(|count| *count == 0) {
        return None;
    }
    let ((packets, bytes), (reply_packets, reply_bytes)) = match direction {
        Direction::Egress => ((packets_out, bytes_out), (packets_in, bytes_in)),
        Direction::Ingress => ((packets_in, bytes_in), (packets_out, bytes_out)),
    };
    Some(Volume { packets, bytes, reply_packets, reply_bytes, count: started.max(1) })
}

fn protocol(name: &str) -> Option<u8> {
    match name.to_ascii_lowercase().as_str() {
        "icmp" => Some(1),
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmpv6" | "icmp6" => Some(58),
        "sctp" => Some(132),
        number => number.parse().ok(),
    }
}

fn ends(key: &Key<'_>, flow: &Flow<'_>) -> ClaimedEnds {
    let source = end(key.source_type, &key.source_namespace, &key.source_name, &flow.source_labels);
    let mut destination = end(key.dest_type, &key.dest_namespace, &key.dest_name, &flow.dest_labels);
    if !given(&key.dest_service_name).is_empty() {
        destination.service = match given(&key.dest_service_namespace) {
            "" => key.dest_service_name.clone(),
            namespace => format!("{namespace}/{}", key.dest_service_name),
        };
        destination.service_port = match given(&key.dest_service_port_name) {
            "" if key.dest_service_port != 0 => key.dest_service_port.to_string(),
            name => name.to_owned(),
        };
    }
    ClaimedEnds { source, destination }
}

fn end(kind: i64, namespace: &str, name: &str, labels: &[String]) -> ClaimedEnd {
    let (namespace, name) = (given(namespace).to_owned(), given(name).to_owned());
    let labels: BTreeMap<String, String> = labels
        .iter()
        .filter_map(|label| label.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut end = ClaimedEnd {
        kind: EndpointKind::Unknown,
        namespace,
        pod: String::new(),
        workload_kind: String::new(),
        workload: String::new(),
        node: String::new(),
        service: String::new(),
        service_port: String::new(),
        labels,
    };
    match kind {
        WORKLOAD => {
            end.kind = EndpointKind::Pod;
            // `name-*` stands for all pods that one controller generates: it names no pod.
            if name.ends_with('*') { end.workload = name } else { end.pod = name }
        }
        HOST => {
            end.kind = EndpointKind::Node;
            end.node = name;
        }
        NETWORK_SET => {
            end.workload_kind = if end.namespace.is_empty() { "GlobalNetworkSet" } else { "NetworkSet" }.to_owned();
            end.workload = name;
        }
        // `pub` is every other address outside of private ranges; `pvt` may be anything, a pod as well.
        NETWORK if name == "pub" => end.kind = EndpointKind::External,
        _ => {}
    }
    end
}

const WORKLOAD: i64 = 1;
const HOST: i64 = 2;
const NETWORK_SET: i64 = 3;
const NETWORK: i64 = 4;

/// Calico writes `-` where there is no name.
fn given(name: &str) -> &str {
    if name == "-" { "" } else { name }
}

#[cfg(test)]
mod tests;
