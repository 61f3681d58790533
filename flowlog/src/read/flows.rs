//! Rows of `flows`. Equal endpoints and decisions are shared again, as they were before they were columns.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use netverdict_policy::{AttributionId, Confidence, Decision, Direction, NearMiss, Reason, Verdict};

use super::{
    ReadError,
    columns::{Columns, tier},
};
use crate::row::{
    AttributionValue, DispositionName, DropReason, EndpointKind, EndpointRow, FlowRow, LaneName, Method, ModeName,
    RecordType, Reporter, Row,
};

/// Where records may come from. A name from elsewhere is an error, for it could not be written again.
const RECEIVERS: [&str; 5] = ["ring", "hubble", "goldmane", "envoy", "linkerd"];

pub(super) fn rows(columns: Columns<'_>) -> Result<Vec<Row>, ReadError> {
    let mut shared = Shared::default();
    (0..columns.rows()).map(|row| flow(columns, row, &mut shared).map(|row| Row::Flow(Box::new(row)))).collect()
}

#[derive(Default)]
struct Shared {
    endpoints: HashSet<Arc<EndpointRow>>,
    attributions: HashMap<(AttributionId, Decision), Arc<AttributionValue>>,
    near_misses: HashSet<Arc<[NearMiss]>>,
    names: HashSet<Arc<str>>,
}

fn flow(columns: Columns<'_>, row: usize, shared: &mut Shared) -> Result<FlowRow, ReadError> {
    let address = |name| columns.address(name, row)?.ok_or_else(|| columns.wrong(name, row, "", "an address"));
    let translated = |ip, port| match columns.address(ip, row)? {
        Some(address) => Ok(Some((address, columns.number(port, row)?))),
        None => Ok::<Option<(IpAddr, u16)>, ReadError>(None),
    };
    let verdict = columns.word("verdict", row, Verdict::from_name)?;
    let verdict_if_enforced = columns.optional_word("verdict_if_enforced", row, Verdict::from_name)?;
    let reason = columns.word("reason", row, Reason::from_name)?;
    let confidence = columns.word("confidence", row, Confidence::from_name)?;
    let attribution_id = attribution_id(columns, row)?;
    let attribution = match columns.deciders("decided_by", row)? {
        None => None,
        Some(references) => {
            let tier = columns.optional_word("tier", row, tier)?;
            let decision = Decision { verdict, verdict_if_enforced, reason, tier, confidence, references };
            let value = || Arc::new(AttributionValue { id: attribution_id, decision: decision.clone() });
            Some(shared.attributions.entry((attribution_id, decision.clone())).or_insert_with(value).clone())
        }
    };
    Ok(FlowRow {
        record_type: columns.word("record_type", row, RecordType::from_name)?,
        node: intern(&mut shared.names, columns.text("node", row)?),
        boot_id: intern(&mut shared.names, columns.text("boot_id", row)?),
        lane: columns.word("lane", row, LaneName::from_name)?,
        cpu: columns.number("cpu", row)?,
        seq: columns.number("seq", row)?,
        time: columns.time("time", row)?,
        ingest_time: columns.time("ingest_time", row)?,
        receiver: columns.word("receiver", row, |name| RECEIVERS.into_iter().find(|receiver| *receiver == name))?,
        direction: columns.word("direction", row, direction)?,
        reporter: columns.word("reporter", row, Reporter::from_name)?,
        family: columns.number("family", row)?,
        source_ip: address("source_ip")?,
        destination_ip: address("destination_ip")?,
        source_port: columns.number("source_port", row)?,
        destination_port: columns.number("destination_port", row)?,
        protocol: columns.number("protocol", row)?,
        tcp_flags: columns.number("tcp_flags", row)?,
        icmp_type: columns.number("icmp_type", row)?,
        icmp_code: columns.number("icmp_code", row)?,
        original_destination: translated("original_destination_ip", "original_destination_port")?,
        translated_source: translated("translated_source_ip", "translated_source_port")?,
        verdict,
        verdict_if_enforced,
        disposition: columns.word("disposition", row, DispositionName::from_name)?,
        mode: columns.word("mode", row, ModeName::from_name)?,
        reason,
        drop_reason: columns.optional_word("drop_reason", row, DropReason::from_name)?,
        method: columns.word("method", row, Method::from_name)?,
        confidence,
        attribution,
        attribution_id,
        near_misses: intern(&mut shared.near_misses, columns.near_misses("near_miss", row)?),
        snapshot: columns.number("snapshot", row)?,
        reported_by: Some(columns.text("reported_by", row)?).filter(|text| !text.is_empty()).map(Arc::from),
        source: intern(&mut shared.endpoints, endpoint(columns, row, &SOURCE)?),
        destination: intern(&mut shared.endpoints, endpoint(columns, row, &DESTINATION)?),
        packets: columns.number("packets", row)?,
        bytes: columns.number("bytes", row)?,
        reply_packets: columns.number("reply_packets", row)?,
        reply_bytes: columns.number("reply_bytes", row)?,
        count: columns.number("count", row)?,
        first_time: columns.time("first_time", row)?,
        last_time: columns.time("last_time", row)?,
        identity_window_open: columns.flag("identity_window_open", row)?,
        spoof: columns.flag("spoof", row)?,
        divergence: columns.flag("divergence", row)?,
    })
}

pub(super) fn attribution_id(columns: Columns<'_>, row: usize) -> Result<AttributionId, ReadError> {
    Ok(AttributionId(columns.optional_number("attribution_id", row)?.unwrap_or(0).cast_unsigned()))
}

fn intern<T: ?Sized + Eq + std::hash::Hash, V: Into<Arc<T>> + AsRef<T>>(
    known: &mut HashSet<Arc<T>>,
    value: V,
) -> Arc<T> {
    if let Some(known) = known.get(value.as_ref()) {
        return known.clone();
    }
    let value: Arc<T> = value.into();
    known.insert(value.clone());
    value
}

impl AsRef<Self> for EndpointRow {
    fn as_ref(&self) -> &Self {
        self
    }
}

struct EndpointColumns {
    kind: &'static str,
    namespace: &'static str,
    pod: &'static str,
    pod_uid: &'static str,
    workload_kind: &'static str,
    workload: &'static str,
    service_account: &'static str,
    node: &'static str,
    zone: &'static str,
    service: &'static str,
    service_port: &'static str,
    labels: &'static str,
    identity: &'static str,
    hostname: &'static str,
    hostname_source: &'static str,
}

macro_rules! end {
    ($side:literal) => {
        EndpointColumns {
            kind: concat!($side, "_kind"),
            namespace: concat!($side, "_namespace"),
            pod: concat!($side, "_pod"),
            pod_uid: concat!($side, "_pod_uid"),
            workload_kind: concat!($side, "_workload_kind"),
            workload: concat!($side, "_workload"),
            service_account: concat!($side, "_service_account"),
            node: concat!($side, "_node"),
            zone: concat!($side, "_zone"),
            service: concat!($side, "_service"),
            service_port: concat!($side, "_service_port"),
            labels: concat!($side, "_labels"),
            identity: concat!($side, "_identity"),
            hostname: concat!($side, "_hostname"),
            hostname_source: concat!($side, "_hostname_source"),
        }
    };
}

static SOURCE: EndpointColumns = end!("source");
static DESTINATION: EndpointColumns = end!("destination");

fn endpoint(columns: Columns<'_>, row: usize, end: &EndpointColumns) -> Result<EndpointRow, ReadError> {
    Ok(EndpointRow {
        kind: columns.word(end.kind, row, EndpointKind::from_name)?,
        namespace: columns.owned(end.namespace, row)?,
        pod: columns.owned(end.pod, row)?,
        pod_uid: columns.owned(end.pod_uid, row)?,
        workload_kind: columns.owned(end.workload_kind, row)?,
        workload: columns.owned(end.workload, row)?,
        service_account: columns.owned(end.service_account, row)?,
        node: columns.owned(end.node, row)?,
        zone: columns.owned(end.zone, row)?,
        service: columns.owned(end.service, row)?,
        service_port: columns.owned(end.service_port, row)?,
        labels: columns.map(end.labels, row)?,
        identity: columns.number(end.identity, row)?,
        hostname: columns.owned(end.hostname, row)?,
        hostname_source: columns.owned(end.hostname_source, row)?,
    })
}

fn direction(name: &str) -> Option<Direction> {
    [Direction::Egress, Direction::Ingress].into_iter().find(|direction| direction.as_str() == name)
}
