//! The newest attempt on record between two ends: its records at both ends, and totals of all other records between them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    answer::{WhyEnd, WhyOtherwise, WhyPoint},
    row::{DispositionName, EndpointKind, EndpointRow, FlowRow, Method, RecordType},
};
use netverdict_policy::{
    Decision, Direction, End, Flow, ObjectKey, Reason, Verdict,
    evaluate::{Family, PointName},
    model::Protocol,
};

use super::{
    asked::Question,
    decider::decider,
    totals::{DeniedBefore, Totals},
};
use crate::{
    Executor, QueryError, cells,
    flow_condition::{end_condition, port_condition},
    names::end_name,
    notes::Notes,
    records::{self, literal, of_kind},
};

/// Seconds within which records of one source port at two nodes belong to one attempt, although its destination was
/// translated in between.
const TOGETHER: i64 = 10;
/// Upper bound of the combinations of protocol, family, direction, verdict and disposition.
const MOST_TOTALS: usize = 10_000;

pub(super) struct Attempt {
    /// The newest record of it.
    newest: FlowRow,
    /// The newest record at each end; at least one is there.
    egress: Option<FlowRow>,
    ingress: Option<FlowRow>,
    totals: Totals,
}

/// The newest attempt over the protocol of the question. Where it names none, TCP attempts are preferred.
pub(super) async fn find(
    executor: &Executor,
    question: &Question,
    notes: &Arc<Notes>,
) -> Result<Option<Attempt>, QueryError> {
    let mut conditions = vec![
        format!("time >= {} AND time <= {}", literal(question.from), literal(question.to)),
        end_condition("source", &question.source),
        end_condition("destination", &question.destination),
        ours(),
    ];
    conditions.extend(question.port.map(port_condition));
    let any = conditions.join(" AND ");
    let with = |Protocol(number): Protocol| format!("{any} AND protocol = {number}");
    let of_protocol = question.protocol.map_or_else(|| any.clone(), with);
    let totals = totals(executor, &of_protocol, notes).await?;
    let meant = match question.protocol {
        None if totals.has(Protocol::TCP) => with(Protocol::TCP),
        _ => of_protocol,
    };
    let Some(newest) = last(executor, &meant, notes).await? else { return Ok(None) };
    let other = other_end(executor, question, &newest, notes).await?;
    let (egress, ingress) = match newest.direction {
        Direction::Egress => (Some(newest.clone()), other),
        Direction::Ingress => (other, Some(newest.clone())),
    };
    Ok(Some(Attempt { newest, egress, ingress, totals }))
}

/// Only verdicts of our own probe are explained and compared with our policies. A report of another system was decided by
/// its own state, and has no addresses to find the other end by.
fn ours() -> String {
    format!("method <> '{}'", Method::Reported.as_str())
}

/// The newest record where a condition holds. The record of a connection's end repeats the verdict of its begin, so it is
/// taken only where the begin is not on record.
async fn last(executor: &Executor, condition: &str, notes: &Arc<Notes>) -> Result<Option<FlowRow>, QueryError> {
    let tail = format!(
        "ORDER BY CASE WHEN record_type = '{}' THEN 1 ELSE 0 END, last_time DESC, time DESC, seq DESC NULLS LAST LIMIT 1",
        RecordType::Close.as_str()
    );
    let mut rows = of_kind!(records::rows(executor, Table::Flows, condition, &tail, notes).await?, Flow);
    Ok(rows.pop())
}

/// The newest record of the same connection at the other end: with the same 5-tuple; or with the same source port at about
/// the same time, where one end has the Service's address and the other the translated one.
async fn other_end(
    executor: &Executor,
    question: &Question,
    newest: &FlowRow,
    notes: &Arc<Notes>,
) -> Result<Option<FlowRow>, QueryError> {
    let port = |column: &str, port: u16| match port {
        0 => format!("{column} IS NULL"),
        port => format!("{column} = {port}"),
    };
    let direction = match newest.direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    };
    let of_socket = format!(
        "time >= {} AND time <= {} AND {} AND source_ip = '{}' AND {} AND protocol = {} AND direction = '{}'",
        literal(question.from),
        literal(question.to),
        ours(),
        newest.source_ip,
        port("source_port", newest.source_port),
        newest.protocol,
        direction.as_str(),
    );
    let same = format!(
        "{of_socket} AND destination_ip = '{}' AND {}",
        newest.destination_ip,
        port("destination_port", newest.destination_port)
    );
    if let Some(row) = last(executor, &same, notes).await? {
        return Ok(Some(row));
    }
    if newest.source_port == 0 {
        return Ok(None);
    }
    let together = chrono::Duration::seconds(TOGETHER);
    let mut translated = format!(
        "{of_socket} AND last_time >= {} AND last_time <= {}",
        literal(newest.last_time - together),
        literal(newest.last_time + together)
    );
    if newest.destination.kind != EndpointKind::Service {
        translated += &format!(" AND destination_kind = '{}'", EndpointKind::Service.as_str());
    }
    last(executor, &translated, notes).await
}

async fn totals(executor: &Executor, between: &str, notes: &Arc<Notes>) -> Result<Totals, QueryError> {
    let text = format!(
        "SELECT protocol, family, direction, verdict, disposition, record_type = '{}' AS closes, sum(count) AS events, \
         min(first_time) AS first, max(last_time) AS last FROM record.flows WHERE {between} GROUP BY 1, 2, 3, 4, 5, 6",
        RecordType::Close.as_str()
    );
    let (batches, _) = executor.query(&text, MOST_TOTALS, notes).await?;
    Ok(Totals(cells::typed_rows(&batches)?))
}

impl Attempt {
    pub(super) fn node(&self) -> &str {
        &self.newest.node
    }

    pub(super) fn time(&self) -> DateTime<Utc> {
        self.newest.time
    }

    /// The policy state that decided; 0 where it is not known.
    pub(super) fn snapshot(&self) -> u64 {
        self.newest.snapshot
    }

    /// The destination's record, or else the newest.
    fn furthest(&self) -> &FlowRow {
        self.ingress.as_ref().unwrap_or(&self.newest)
    }

    pub(super) fn port(&self) -> Option<u16> {
        Some(self.furthest().destination_port).filter(|port| *port != 0)
    }

    /// 4 or 6.
    pub(super) fn family(&self) -> u8 {
        self.newest.family
    }

    pub(super) fn protocol(&self) -> Protocol {
        Protocol(self.newest.protocol)
    }

    /// The flow, to be evaluated again.
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
        // A pod's own node knows it by its interface, the other node by its address.
        let source = self.egress.as_ref().unwrap_or(row);
        (end(&source.source, source.source_ip.to_string()), end(&row.destination, row.destination_ip.to_string()))
    }

    /// The names of the nodes among the ends, source first.
    pub(super) fn nodes(&self) -> [Option<&str>; 2] {
        let row = self.furthest();
        [&row.source, &row.destination].map(|end| (end.kind == EndpointKind::Node).then_some(end.node.as_str()))
    }

    /// The endpoint that this direction's end took the other one for, where both ends are on record and disagree.
    fn mistaken_for(&self, direction: Direction) -> Option<String> {
        let (egress, ingress) = (self.egress.as_ref()?, self.ingress.as_ref()?);
        let (known, taken, address) = match direction {
            Direction::Egress => (&ingress.destination, &egress.destination, egress.destination_ip),
            Direction::Ingress => (&egress.source, &ingress.source, ingress.source_ip),
        };
        let differ = known.kind == EndpointKind::Pod
            && taken.kind == EndpointKind::Pod
            && !known.pod_uid.is_empty()
            && known.pod_uid != taken.pod_uid;
        differ.then(|| end_name(taken, &address.to_string()))
    }

    /// The source's node dropped it, so nothing reached the destination.
    pub(super) fn stopped_at_source(&self) -> bool {
        self.ingress.is_none() && self.egress.as_ref().is_some_and(|row| row.disposition == DispositionName::Dropped)
    }

    /// Ends that are pods and have no record.
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
        let totals = self.totals.of(row);
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
            decided_by: deciders(|decision| decision.decided_by().map(decider).collect()),
            passed: deciders(|decision| decision.passed().map(decider).collect()),
            staged: deciders(|decision| decision.staged().map(decider).collect()),
            near_misses: row.near_misses.to_vec(),
            snapshot: row.snapshot,
            attribution_id: row.attribution_id.0.cast_signed(),
            last_seen: Some(totals.last.max(row.last_time)),
            first_seen: Some(totals.first.min(row.first_time)),
            count: totals.events.max(row.count),
            now: None,
            now_decided_by: Vec::new(),
            node: row.node.to_string(),
            hypothetical: false,
            identity_window_open: row.identity_window_open || row.reason == Reason::UnknownPod,
            mistaken_for: self.mistaken_for(row.direction),
        }
    }

    /// Denials of the same kind before the newest attempt, if that was not denied.
    pub(super) fn denied_before(&self, verdict: Verdict) -> Option<DeniedBefore> {
        if verdict == Verdict::Denied { None } else { self.totals.denied_before(&self.newest) }
    }

    /// Other protocols and families with another verdict.
    pub(super) fn otherwise(&self, verdict: Verdict) -> Vec<WhyOtherwise> {
        self.totals.otherwise(&self.newest, verdict)
    }
}

fn end(end: &EndpointRow, address: String) -> WhyEnd {
    WhyEnd {
        name: end_name(end, &address),
        kind: end.kind.as_str().into(),
        addresses: vec![address],
        labels: end.labels.clone(),
        deleted: None,
        candidates: Vec::new(),
    }
}
