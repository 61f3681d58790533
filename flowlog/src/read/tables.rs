//! Rows of every table but `flows`.

use std::sync::Arc;

use netverdict_policy::{Confidence, Decision, Reason, Verdict};

use super::{
    ReadError,
    columns::{Columns, tier},
    flows::attribution_id,
};
use crate::row::{
    AttributionRow, AttributionValue, ChangeHead, ChangeKind, CollectorRow, EndpointChangeRow, EndpointKind, GapCause,
    GapRow, LaneName, ModeName, NamespaceRow, PolicyRow, Row, ServiceRow, SettingRow, SnapshotRow,
};

type Rows = Result<Vec<Row>, ReadError>;

const COLLECTOR_STATES: [&str; 3] = ["started", "running", "stopped"];

fn head(c: Columns<'_>, row: usize) -> Result<ChangeHead, ReadError> {
    Ok(ChangeHead {
        change: c.word("change", row, ChangeKind::from_name)?,
        time: c.time("time", row)?,
        revision: c.number("revision", row)?,
        node: c.shared("node", row)?,
        boot_id: c.shared("boot_id", row)?,
    })
}

pub(super) fn policies(c: Columns<'_>) -> Rows {
    let one = |row| {
        Ok(Row::Policy(Box::new(PolicyRow {
            head: head(c, row)?,
            api_version: c.owned("api_version", row)?,
            kind: c.owned("kind", row)?,
            namespace: c.owned("namespace", row)?,
            name: c.owned("name", row)?,
            uid: c.owned("uid", row)?,
            generation: c.number("generation", row)?,
            resource_version: c.owned("resource_version", row)?,
            content_hash: c.owned("content_hash", row)?,
            text: c.owned("text", row)?,
            author: c.owned("author", row)?,
            origin: c.owned("origin", row)?,
        })))
    };
    (0..c.rows()).map(one).collect()
}

pub(super) fn endpoints(c: Columns<'_>) -> Rows {
    let one = |row| {
        Ok(Row::Endpoint(Box::new(EndpointChangeRow {
            head: head(c, row)?,
            kind: c.word("kind", row, EndpointKind::from_name)?,
            namespace: c.owned("namespace", row)?,
            name: c.owned("name", row)?,
            uid: c.owned("uid", row)?,
            owner_id: c.number("owner_id", row)?,
            labels: c.map("labels", row)?,
            addresses: c.addresses("addresses", row)?,
            node_name: c.owned("node_name", row)?,
            host_network: c.flag("host_network", row)?,
            container_ports: c.owned("container_ports", row)?,
            service_account: c.owned("service_account", row)?,
            workload_kind: c.owned("workload_kind", row)?,
            workload: c.owned("workload", row)?,
            phase: c.owned("phase", row)?,
            terminating: c.flag("terminating", row)?,
            pod_ranges: c.texts("pod_ranges", row)?,
        })))
    };
    (0..c.rows()).map(one).collect()
}

pub(super) fn namespaces(c: Columns<'_>) -> Rows {
    let one = |row| {
        Ok(Row::Namespace(Box::new(NamespaceRow {
            head: head(c, row)?,
            name: c.owned("name", row)?,
            uid: c.owned("uid", row)?,
            labels: c.map("labels", row)?,
            audit: c.flag("audit", row)?,
        })))
    };
    (0..c.rows()).map(one).collect()
}

pub(super) fn services(c: Columns<'_>) -> Rows {
    let one = |row| {
        Ok(Row::Service(Box::new(ServiceRow {
            head: head(c, row)?,
            namespace: c.owned("namespace", row)?,
            name: c.owned("name", row)?,
            uid: c.owned("uid", row)?,
            addresses: c.addresses("addresses", row)?,
            ports: c.owned("ports", row)?,
            selector: c.map("selector", row)?,
        })))
    };
    (0..c.rows()).map(one).collect()
}

pub(super) fn attributions(c: Columns<'_>) -> Rows {
    let one = |row| {
        let decision = Decision {
            verdict: c.word("verdict", row, Verdict::from_name)?,
            verdict_if_enforced: c.optional_word("verdict_if_enforced", row, Verdict::from_name)?,
            reason: c.word("reason", row, Reason::from_name)?,
            tier: c.optional_word("tier", row, tier)?,
            confidence: c.word("confidence", row, Confidence::from_name)?,
            references: c.deciders("decided_by", row)?.unwrap_or_default(),
        };
        Ok(Row::Attribution(Box::new(AttributionRow {
            time: c.time("time", row)?,
            node: c.shared("node", row)?,
            attribution: Arc::new(AttributionValue { id: attribution_id(c, row)?, decision }),
        })))
    };
    (0..c.rows()).map(one).collect()
}

pub(super) fn snapshots(c: Columns<'_>) -> Rows {
    let one = |row| {
        Ok(Row::Snapshot(Box::new(SnapshotRow {
            time: c.time("time", row)?,
            node: c.shared("node", row)?,
            boot_id: c.shared("boot_id", row)?,
            snapshot: c.number("snapshot", row)?,
            revision: c.number("revision", row)?,
            policies: c.number("policies", row)?,
            pods: c.number("pods", row)?,
            namespaces: c.number("namespaces", row)?,
            audit_all: c.flag("audit_all", row)?,
            errors: c.number("errors", row)?,
        })))
    };
    (0..c.rows()).map(one).collect()
}

pub(super) fn gaps(c: Columns<'_>) -> Rows {
    let one = |row| {
        let count = |name: &'static str| {
            c.optional_number(name, row)?.map(|value| c.fitting::<u64>(name, row, value)).transpose()
        };
        let cpu = c.optional_number("cpu", row)?;
        Ok(Row::Gap(Box::new(GapRow {
            node: c.shared("node", row)?,
            boot_id: c.shared("boot_id", row)?,
            lane: c.optional_word("lane", row, LaneName::from_name)?,
            cpu: cpu.map(|cpu| c.fitting("cpu", row, cpu)).transpose()?,
            endpoint: c.owned("endpoint", row)?,
            cause: c.word("cause", row, GapCause::from_name)?,
            first_seq: count("first_seq")?,
            last_seq: count("last_seq")?,
            lost_events: c.number("lost_events", row)?,
            lost_packets: count("lost_packets")?,
            from: c.time("from", row)?,
            to: c.time("to", row)?,
            detail: c.owned("detail", row)?,
        })))
    };
    (0..c.rows()).map(one).collect()
}

pub(super) fn collectors(c: Columns<'_>) -> Rows {
    let one = |row| {
        Ok(Row::Collector(Box::new(CollectorRow {
            time: c.time("time", row)?,
            node: c.shared("node", row)?,
            boot_id: c.shared("boot_id", row)?,
            state: c.word("state", row, |name| COLLECTOR_STATES.into_iter().find(|state| *state == name))?,
            version: c.owned("version", row)?,
            mode: c.word("mode", row, ModeName::from_name)?,
            last_seq: c.number_map("last_seq", row)?,
            lost_events: c.number("lost_events", row)?,
            endpoints: c.number("endpoints", row)?,
        })))
    };
    (0..c.rows()).map(one).collect()
}

pub(super) fn settings(c: Columns<'_>) -> Rows {
    let one = |row| {
        Ok(Row::Setting(Box::new(SettingRow {
            time: c.time("time", row)?,
            node: c.shared("node", row)?,
            name: c.owned("name", row)?,
            value: c.owned("value", row)?,
        })))
    };
    (0..c.rows()).map(one).collect()
}
