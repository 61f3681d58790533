//! The newest attempt on record between two ends: the records of its flow at either end, and what else is on record
//! between them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    answer::{WhyEnd, WhyPoint},
    row::{DispositionName, EndpointKind, EndpointRow, FlowRow, RecordType},
};
use netverdict_policy::{
    Decision, Direction, End, Flow, ObjectKey, Reason, Verdict,
    evaluate::{Family, PointName},
    model::Protocol,
};
use serde::Deserialize;

use super::{Question, blame};
use crate::{
    Executor, QueryError, cells,
    flows::{end_condition, end_name, port_condition},
    notes::Notes,
    records::{self, literal, of_kind},
};

/// Seconds within which records of a source port at two nodes are of one attempt, where its destination was translated
/// in between.
const TOGETHER: i64 = 10;

pub(super) struct Attempt {
    /// The newest record of it.
    newest: FlowRow,
    /// At either end, the newest; at least one is there.
    egress: Option<FlowRow>,
    ingress: Option<FlowRow>,
    totals: Vec<Total>,
}

/// All that is on record between the ends, by direction and verdict.
#[derive(Clone, Debug, Deserialize)]
struct Total {
    direction: String,
    verdict: String,
    events: u64,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
}

/// Denials before the newest attempt: how many events, and when the last was.
pub(super) struct DeniedBefore {
    pub events: u64,
    pub last: DateTime<Utc>,
}

pub(super) async fn find(
    executor: &Executor,
    question: &Question,
    notes: &Arc<Notes>,
) -> Result<Option<Attempt>, QueryError> {
    let mut conditions = vec![
        format!("time >= {} AND time <= {}", literal(question.from), literal(question.to)),
        end_condition("source", &question.source),
        end_condition("destination", &question.destination),
    ];
    conditions.extend(question.port.map(port_condition));
    conditions.extend(question.protocol.map(|Protocol(number)| format!("protocol = {number}")));
    let between = conditions.join(" AND ");
    let tail = format!(
        "ORDER BY CASE WHEN record_type = '{}' THEN 1 ELSE 0 END, last_time DESC, time DESC, seq DESC LIMIT 1",
        RecordType::Close.as_str()
    );
    let mut newest: Vec<FlowRow> = of_kind!(records::rows(executor, Table::Flows, &between, &tail, notes).await?, Flow);
    let Some(newest) = newest.pop() else { return Ok(None) };
    let mut rows: Vec<FlowRow> =
        of_kind!(records::rows(executor, Table::Flows, &same_flow(&newest, question), "", notes).await?, Flow);
    rows.retain(|row| is_part(row, &newest));
    // A close tells the verdict of its beginning: it counts only where that is not on record.
    rows.sort_by_key(|row| (row.record_type != RecordType::Close, row.last_time, row.seq));
    let last = |direction| rows.iter().rev().find(|row| row.direction == direction).cloned();
    let (egress, ingress) = (last(Direction::Egress), last(Direction::Ingress));
    let totals = totals(executor, &between, notes).await?;
    Ok(Some(Attempt { newest, egress, ingress, totals }))
}

/// Records of the same source port and protocol, wherever they went: `is_part` looks closer.
fn same_flow(newest: &FlowRow, question: &Question) -> String {
    let port = match newest.source_port {
        0 => "source_port IS NULL".to_owned(),
        port => format!("source_port = {port}"),
    };
    format!(
        "time >= {} AND time <= {} AND source_ip = '{}' AND {port} AND protocol = {}",
        literal(question.from),
        literal(question.to),
        newest.source_ip,
        newest.protocol
    )
}

/// The same 5-tuple; or the same source port at about the same time with a Service's address at one end, which was
/// translated before the other.
fn is_part(row: &FlowRow, newest: &FlowRow) -> bool {
    if row.destination_ip == newest.destination_ip && row.destination_port == newest.destination_port {
        return true;
    }
    let to_service = [row, newest].iter().any(|row| row.destination.kind == EndpointKind::Service);
    let apart = (row.last_time - newest.last_time).num_seconds().abs();
    to_service && newest.source_port != 0 && row.direction != newest.direction && apart <= TOGETHER
}

async fn totals(executor: &Executor, between: &str, notes: &Arc<Notes>) -> Result<Vec<Total>, QueryError> {
    let text = format!(
        "SELECT direction, verdict, sum(count) AS events, min(first_time) AS first, max(last_time) AS last \
         FROM record.flows WHERE {between} AND record_type <> '{}' GROUP BY direction, verdict",
        RecordType::Close.as_str()
    );
    let (batches, _) = executor.query(&text, 100, notes).await?;
    Ok(cells::typed_rows(&batches)?)
}

impl Attempt {
    pub(super) fn node(&self) -> &str {
        &self.newest.node
    }

    pub(super) fn time(&self) -> DateTime<Utc> {
        self.newest.time
    }

    /// Number of the state that judged; 0 where it is not known.
    pub(super) fn snapshot(&self) -> u64 {
        self.newest.snapshot
    }

    /// As the destination's end saw it, if it did.
    fn furthest(&self) -> &FlowRow {
        self.ingress.as_ref().unwrap_or(&self.newest)
    }

    pub(super) fn port(&self) -> Option<u16> {
        Some(self.furthest().destination_port).filter(|port| *port != 0)
    }

    pub(super) fn protocol(&self) -> Protocol {
        Protocol(self.newest.protocol)
    }

    /// Who the ends are, for judging again.
    pub(super) fn flow(&self) -> Flow {
        let row = self.furthest();
        let end = |end: &EndpointRow, address| match end.kind {
            EndpointKind::Pod => End::Pod(ObjectKey::new(&end.namespace, &end.pod)),
            _ => End::Address(address),
        };
        Flow {
            source: end(&row.source, row.source_ip),
            destination: end(&row.destination, row.destination_ip),
            protocol: self.protocol(),
            port: self.port(),
            family: Family::of(row.source_ip),
        }
    }

    pub(super) fn ends(&self) -> (WhyEnd, WhyEnd) {
        let row = self.furthest();
        (end(&row.source, row.source_ip.to_string()), end(&row.destination, row.destination_ip.to_string()))
    }

    /// Whether the source's end dropped it, so that nothing came to the destination.
    pub(super) fn stopped_at_source(&self) -> bool {
        self.ingress.is_none() && self.egress.as_ref().is_some_and(|row| row.disposition == DispositionName::Dropped)
    }

    /// Ends that are pods and of which nothing is on record.
    pub(super) fn missing_points(&self) -> Vec<PointName> {
        let row = self.furthest();
        let mut missing = Vec::new();
        if self.egress.is_none() && row.source.kind == EndpointKind::Pod {
            missing.push(PointName::SourceEgress);
        }
        if self.ingress.is_none() && row.destination.kind == EndpointKind::Pod {
            missing.push(PointName::DestinationIngress);
        }
        missing
    }

    pub(super) fn points(&self) -> Vec<WhyPoint> {
        [&self.egress, &self.ingress].into_iter().flatten().map(|row| self.point(row)).collect()
    }

    fn point(&self, row: &FlowRow) -> WhyPoint {
        let decision: Option<&Decision> = row.attribution.as_ref().map(|attribution| &attribution.decision);
        let deciders = |role: fn(&Decision) -> Vec<_>| decision.map(role).unwrap_or_default();
        let of = |total: &&Total| total.direction == row.direction.as_str();
        let totals = || self.totals.iter().filter(of);
        let name = match row.direction {
            Direction::Egress => PointName::SourceEgress,
            Direction::Ingress => PointName::DestinationIngress,
        };
        WhyPoint {
            point: name.as_str().into(),
            verdict: row.verdict,
            verdict_if_enforced: row.verdict_if_enforced,
            disposition: row.disposition.as_str().into(),
            reason: row.reason,
            drop_reason: row.drop_reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            method: row.method.as_str().into(),
            confidence: row.confidence.as_str().into(),
            mode: row.mode.as_str().into(),
            decided_by: deciders(|decision| decision.decided_by().map(blame::decider).collect()),
            passed: deciders(|decision| decision.passed().map(blame::decider).collect()),
            staged: deciders(|decision| decision.staged().map(blame::decider).collect()),
            near_misses: row.near_misses.to_vec(),
            snapshot: row.snapshot,
            attribution_id: row.attribution_id.0.cast_signed(),
            last_seen: totals().map(|total| total.last).max().or(Some(row.last_time)),
            first_seen: totals().map(|total| total.first).min().or(Some(row.first_time)),
            count: totals().map(|total| total.events).sum::<u64>().max(row.count),
            now: None,
            now_decided_by: Vec::new(),
            node: row.node.to_string(),
            hypothetical: false,
            identity_window_open: row.identity_window_open || row.reason == Reason::UnknownPod,
        }
    }

    /// Denials between the ends, if the newest attempt was none.
    pub(super) fn denied_before(&self, verdict: Verdict) -> Option<DeniedBefore> {
        if verdict == Verdict::Denied {
            return None;
        }
        let denied = || self.totals.iter().filter(|total| total.verdict == Verdict::Denied.as_str());
        let last = denied().map(|total| total.last).max()?;
        Some(DeniedBefore { events: denied().map(|total| total.events).sum(), last })
    }
}

fn end(end: &EndpointRow, address: String) -> WhyEnd {
    WhyEnd {
        name: end_name(end, &address),
        kind: end.kind.as_str().into(),
        addresses: vec![address],
        labels: end.labels.clone(),
    }
}
