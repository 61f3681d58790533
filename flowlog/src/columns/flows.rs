//! The columns of `flows`.
//!
//! Most of a row is said by values that many rows share. Each shared value becomes columns once, and rows take from
//! those by number; two rows share a value if they point to the same one, for comparing contents would cost more than
//! it saves.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{ArrayRef, Int32Array, RecordBatch, UInt32Array},
    compute::take,
    datatypes::Field,
};
use netverdict_policy::NearMiss;

use super::{BatchError, Column, assemble, dictionary, nested, number_from, small_from, within_bounds, words};
use crate::{
    row::{AttributionValue, EndpointRow, FlowRow, Row},
    schema::Table,
};

type Own = Column<FlowRow>;
type Decided = Column<AttributionValue>;
type Misses = Column<Arc<[NearMiss]>>;
type End = Column<EndpointRow>;

enum Part {
    Own(Own),
    Attribution(Decided),
    NearMisses(Misses),
    Source(End),
    Destination(End),
}

static PARTS: LazyLock<Vec<Part>> = LazyLock::new(|| {
    let mut parts = Vec::new();
    parts.extend(record().map(Part::Own));
    parts.extend(flow().map(Part::Own));
    parts.extend(decision().map(Part::Own));
    parts.extend(attribution().map(Part::Attribution));
    parts.push(Part::NearMisses(near_miss()));
    parts.extend(attribution_by_row().map(Part::Own));
    parts.extend(endpoint().map(|column| Part::Source(column.prefixed("source"))));
    parts.extend(endpoint().map(|column| Part::Destination(column.prefixed("destination"))));
    parts.extend(volume().map(Part::Own));
    parts.extend(trust().map(Part::Own));
    parts
});

pub(super) fn fields() -> Vec<Field> {
    let field = |part: &Part| match part {
        Part::Own(column) => column.field.clone(),
        Part::Attribution(column) => column.field.clone(),
        Part::NearMisses(column) => column.field.clone(),
        Part::Source(column) | Part::Destination(column) => column.field.clone(),
    };
    PARTS.iter().map(field).collect()
}

pub(super) fn fill(rows: &[&FlowRow]) -> Result<RecordBatch, BatchError> {
    within_bounds(rows.len(), 0)?;
    let attributions = Shared::new(rows.iter().map(|row| row.attribution.as_deref()));
    let near_misses = Shared::new(rows.iter().map(|row| Some(&row.near_misses)));
    let sources = Shared::new(rows.iter().map(|row| Some(&*row.source)));
    let destinations = Shared::new(rows.iter().map(|row| Some(&*row.destination)));
    let column = |part: &Part| match part {
        Part::Own(column) => Ok((column.fill)(rows)),
        Part::Attribution(column) => attributions.fill(column),
        Part::NearMisses(column) => near_misses.fill(column),
        Part::Source(column) => sources.fill(column),
        Part::Destination(column) => destinations.fill(column),
    };
    assemble(Table::Flows, PARTS.iter().map(column).collect::<Result<_, _>>()?)
}

/// By (attribution, destination, source, time): what decided alike and who talks to whom alike lies together, so that
/// runs are long and look-ups by any of them prune.
pub(super) fn sort(rows: &mut [&Row]) {
    let mut ranks = HashMap::<*const EndpointRow, u32>::new();
    let mut endpoints = Vec::new();
    for row in rows.iter().filter_map(|row| flow_of(row)) {
        for endpoint in [&row.source, &row.destination] {
            ranks.entry(Arc::as_ptr(endpoint)).or_insert_with(|| {
                endpoints.push(endpoint.clone());
                0
            });
        }
    }
    endpoints.sort_by(|a, b| (&a.namespace, &a.pod, &a.node, a.kind).cmp(&(&b.namespace, &b.pod, &b.node, b.kind)));
    for (rank, endpoint) in (0..).zip(&endpoints) {
        ranks.insert(Arc::as_ptr(endpoint), rank);
    }
    let rank = |endpoint: &Arc<EndpointRow>| ranks.get(&Arc::as_ptr(endpoint)).copied();
    rows.sort_by_cached_key(|row| {
        flow_of(row).map(|row| {
            let attribution = row.attribution_id.0.cast_signed();
            (attribution, rank(&row.destination), row.destination_ip, rank(&row.source), row.source_ip, row.time)
        })
    });
}

fn flow_of(row: &Row) -> Option<&FlowRow> {
    match row {
        Row::Flow(row) => Some(row),
        _ => None,
    }
}

/// Distinct values by pointer, and which one each row has.
struct Shared<'a, T> {
    distinct: Vec<&'a T>,
    /// How many rows have it, parallel to `distinct`.
    uses: Vec<usize>,
    keys: UInt32Array,
}

impl<'a, T: Share> Shared<'a, T> {
    fn new(values: impl Iterator<Item = Option<&'a T>>) -> Self {
        let mut index = HashMap::<usize, u32>::new();
        let (mut distinct, mut uses) = (Vec::new(), Vec::<usize>::new());
        let mut key = |value: &'a T| {
            let next = index.len();
            let key = *index.entry(value.address()).or_insert_with(|| {
                distinct.push(value);
                uses.push(0);
                u32::try_from(next).unwrap_or(u32::MAX)
            });
            uses[key as usize] += 1;
            key
        };
        let keys = values.map(|value| value.map(&mut key)).collect();
        Self { distinct, uses, keys }
    }

    fn fill(&self, column: &Column<T>) -> Result<ArrayRef, BatchError> {
        let weighed = self.distinct.iter().zip(&self.uses);
        let bytes = weighed.fold(0usize, |sum, (value, uses)| sum.saturating_add((column.weight)(value) * uses));
        within_bounds(self.keys.len(), bytes)?;
        let values = (column.fill)(&self.distinct);
        take(&values, &self.keys, None).map_err(|source| BatchError::Schema { table: Table::Flows, source })
    }
}

/// What may be shared: where it lies tells whether it is the same one.
trait Share: 'static {
    fn address(&self) -> usize;
}

impl Share for AttributionValue {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Share for EndpointRow {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Share for Arc<[NearMiss]> {
    fn address(&self) -> usize {
        // Every empty list is the same one.
        if self.is_empty() { 0 } else { self.as_ptr().addr() }
    }
}

fn address(name: &str, doc: &str, nullable: bool, get: fn(&FlowRow) -> Option<IpAddr>) -> Column<FlowRow> {
    let fill = move |rows: &[&FlowRow]| {
        let mut index = HashMap::<IpAddr, i32>::new();
        let mut distinct = Vec::new();
        let mut key = |address: IpAddr| {
            *index.entry(address).or_insert_with(|| {
                distinct.push(address.to_string());
                small_from(distinct.len() - 1)
            })
        };
        let keys: Int32Array = rows.iter().map(|row| get(row).map(&mut key)).collect();
        dictionary(keys, distinct)
    };
    Column::new(name, doc, words(), nullable, Box::new(fill))
}

fn port(value: u16) -> Option<i32> {
    (value != 0).then_some(i32::from(value))
}

fn record() -> impl Iterator<Item = Own> {
    [
        Own::word("record_type", "why the row exists: verdict, update, close", |r| r.record_type.as_str()),
        Own::word("node", "node that recorded it", |r| &r.node),
        Own::word("boot_id", "boot of the node, as the kernel names it", |r| &r.boot_id),
        Own::word("lane", "denied or flow: the ring it came through", |r| r.lane.as_str()),
        Own::small("cpu", "CPU that recorded it", |r| small_from(r.cpu)),
        Own::number("seq", "sequence number of its last event; per boot, lane and CPU, from 1", |r| number_from(r.seq)),
        Own::time("time", "when the verdict was taken", |r| r.time),
        Own::time("ingest_time", "when the collector read it; one per drained batch", |r| r.ingest_time),
        Own::word("receiver", "where it came from: ring for our own probe", |r| r.receiver),
    ]
    .into_iter()
}

fn flow() -> impl Iterator<Item = Own> {
    [
        Own::word("direction", "ingress or egress, of the selected endpoint", |r| r.direction.as_str()),
        Own::word("reporter", "the end that saw it: source or destination", |r| r.reporter.as_str()),
        Own::small("family", "4 or 6", |r| i32::from(r.family)),
        address("source_ip", "canonical text", false, |r| Some(r.source_ip)),
        address("destination_ip", "canonical text; after DNAT", false, |r| Some(r.destination_ip)),
        Own::optional_small("source_port", "null without ports", |r| port(r.source_port)),
        Own::optional_small("destination_port", "null without ports; after DNAT", |r| port(r.destination_port)),
        Own::small("protocol", "IP protocol number: 6 is TCP, 17 UDP", |r| i32::from(r.protocol)),
        Own::small("tcp_flags", "bits as in the TCP header", |r| i32::from(r.tcp_flags)),
        Own::small("icmp_type", "0 for other protocols", |r| i32::from(r.icmp_type)),
        Own::small("icmp_code", "0 for other protocols", |r| i32::from(r.icmp_code)),
        address("original_destination_ip", "before DNAT; null where there was none", true, |r| {
            r.original_destination.map(|(address, _)| address)
        }),
        Own::optional_small("original_destination_port", "before DNAT; null where there was none", |r| {
            r.original_destination.map(|(_, port)| i32::from(port))
        }),
        address("translated_source_ip", "after SNAT; null where there was none", true, |r| {
            r.translated_source.map(|(address, _)| address)
        }),
        Own::optional_small("translated_source_port", "after SNAT; null where there was none", |r| {
            r.translated_source.map(|(_, port)| i32::from(port))
        }),
    ]
    .into_iter()
}

fn decision() -> impl Iterator<Item = Own> {
    [
        Own::word("verdict", "what policy says: allowed, denied, unknown", |r| r.verdict.as_str()),
        Own::optional_word(
            "verdict_if_enforced",
            "the verdict with audited policies enforced; null unless one takes part",
            |r| r.verdict_if_enforced.map(|verdict| verdict.as_str()),
        ),
        Own::word("disposition", "what became of the packet: forwarded, dropped", |r| r.disposition.as_str()),
        Own::word("mode", "enforce, audit, observe", |r| r.mode.as_str()),
        Own::word("reason", "why the verdict is what it is", |r| r.reason.as_str()),
        Own::optional_word("drop_reason", "dropped, but not by policy; null otherwise", |r| {
            r.drop_reason.map(|reason| reason.as_str())
        }),
        Own::word("method", "enforced, reported, evaluated, inferred", |r| r.method.as_str()),
        Own::word("confidence", "exact, ambiguous, partial", |r| r.confidence.as_str()),
    ]
    .into_iter()
}

fn attribution() -> impl Iterator<Item = Decided> {
    [
        Decided::optional_word("tier", "tier that decided; null where none did", |a| {
            a.decision.tier.map(|tier| tier.as_str())
        }),
        Decided::new(
            "decided_by",
            "policies that took part, in order of evaluation; empty: none did; null: not policy, or not known (reason tells)",
            nested::deciders(),
            true,
            Box::new(|rows| nested::fill_deciders(rows.iter().map(|a| &*a.decision.references))),
        )
        .weighing(|a| nested::deciders_weight(&a.decision.references)),
    ]
    .into_iter()
}

fn near_miss() -> Misses {
    Misses::new(
        "near_miss",
        "of each policy that isolates: its rule that came nearest, and where that failed",
        nested::near_misses(),
        false,
        Box::new(|rows| nested::fill_near_misses(rows.iter().map(|misses| &***misses))),
    )
    .weighing(|misses| nested::near_misses_weight(misses))
}

fn attribution_by_row() -> impl Iterator<Item = Own> {
    [
        Own::number("attribution_id", "what decided, as in table attributions; 0 is none", |r| {
            r.attribution_id.0.cast_signed()
        }),
        Own::number("snapshot", "number of the policy snapshot that decided; 0 where not known", |r| {
            number_from(r.snapshot)
        }),
        Own::text("reported_by", "verbatim, when another system named a policy", |r| {
            r.reported_by.as_deref().unwrap_or("")
        }),
    ]
    .into_iter()
}

fn endpoint() -> impl Iterator<Item = End> {
    [
        End::word("kind", "pod, node, service, external, or why nothing is known", |e| e.kind.as_str()),
        End::text("namespace", "of the pod", |e| &e.namespace),
        End::text("pod", "name of the pod", |e| &e.pod),
        End::text("pod_uid", "uid of the pod", |e| &e.pod_uid),
        End::text("workload_kind", "kind of the controller that owns the pod", |e| &e.workload_kind),
        End::text("workload", "name of the controller that owns the pod", |e| &e.workload),
        End::text("service_account", "of the pod", |e| &e.service_account),
        End::text("node", "node of the pod, or the node itself", |e| &e.node),
        End::text("zone", "topology.kubernetes.io/zone of the node", |e| &e.zone),
        End::text("service", "Service that was addressed, as namespace/name", |e| &e.service),
        End::text("service_port", "port of the Service, by name or number", |e| &e.service_port),
        End::map("labels", "of the pod, as they stood then", |e| &e.labels).weighing(|e| nested::map_weight(&e.labels)),
        End::number("identity", "the compiler's class of peers; 0 for the world", |e| i64::from(e.identity)),
        End::text("hostname", "a name that the address is known to have", |e| &e.hostname),
        End::text("hostname_source", "how the name became known", |e| &e.hostname_source),
    ]
    .into_iter()
}

fn volume() -> impl Iterator<Item = Own> {
    [
        Own::number("packets", "in the direction of the flow", |r| number_from(r.packets)),
        Own::number("bytes", "in the direction of the flow", |r| number_from(r.bytes)),
        Own::number("reply_packets", "in the other direction", |r| number_from(r.reply_packets)),
        Own::number("reply_bytes", "in the other direction", |r| number_from(r.reply_bytes)),
        Own::number("count", "kernel events in this row, at least 1", |r| number_from(r.count)),
        Own::time("first_time", "of the first packet in this row", |r| r.first_time),
        Own::time("last_time", "of the last packet in this row", |r| r.last_time),
    ]
    .into_iter()
}

fn trust() -> impl Iterator<Item = Own> {
    [
        Own::flag("identity_window_open", "who an end is may have been changing just then", |r| r.identity_window_open),
        Own::flag("spoof", "the source address is not the sender's", |r| r.spoof),
        Own::flag("divergence", "the kernel's verdict is not what the snapshot gives", |r| r.divergence),
    ]
    .into_iter()
}
