//! A flow record as a line of an answer.

use netverdict_flowlog::{answer::FlowLine, row::FlowRow};
use netverdict_policy::{NearMiss, ObjectKey, model::Protocol};

use crate::names::{end_name, reference_name};

pub(super) fn line(row: &FlowRow) -> FlowLine {
    let deciders = row.attribution.iter().flat_map(|attribution| attribution.decision.decided_by());
    FlowLine {
        time: row.time,
        node: row.node.to_string(),
        verdict: row.verdict.to_string(),
        verdict_if_enforced: row.verdict_if_enforced.map(|verdict| verdict.to_string()),
        disposition: row.disposition.as_str().into(),
        direction: row.direction.as_str().into(),
        reason: row.reason.to_string(),
        source: end_name(&row.source, &row.source_ip.to_string()),
        source_ip: row.source_ip.to_string(),
        source_port: Some(row.source_port).filter(|port| *port != 0),
        destination: end_name(&row.destination, &row.destination_ip.to_string()),
        destination_ip: row.destination_ip.to_string(),
        destination_port: Some(row.destination_port).filter(|port| *port != 0),
        protocol: Protocol(row.protocol).to_string(),
        decided_by: deciders.map(reference_name).collect(),
        near_miss: row.near_misses.iter().map(near_miss).collect(),
        count: i64::try_from(row.count).unwrap_or(i64::MAX),
    }
}

fn near_miss(miss: &NearMiss) -> String {
    let rule = miss.rule_index.map(|index| format!("#{index}")).unwrap_or_default();
    let key = ObjectKey::new(&miss.policy.namespace, &miss.policy.name);
    format!("{key}{rule}: {}", miss.detail)
}
