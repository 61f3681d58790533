//! The policy state of a node at a moment, rebuilt from the change logs: what the engine needs to judge again as it
//! stood then.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    row::{
        ChangeHead, ChangeKind, EndpointChangeRow, EndpointKind, NamespaceRow, PolicyRow, Row, ServiceRow, SnapshotRow,
    },
};
use netverdict_manifest::implied_namespace;
use netverdict_policy::{
    ObjectKey, Snapshot,
    model::{Namespace, Node, Phase, Pod, Policy, PolicyKey, Service, Workload},
};

use crate::{
    Executor, QueryError,
    notes::Notes,
    records::{self, literal, of_kind, quoted},
};

/// Which state is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Newest,
    At(DateTime<Utc>),
    /// By its number.
    Number(u64),
}

/// A state, and where it is from.
#[derive(Clone, Debug)]
pub struct State {
    pub snapshot: Snapshot,
    pub number: u64,
    pub node: String,
    /// When it came into force.
    pub time: DateTime<Utc>,
    /// What may be missing in it, for people.
    pub problems: Vec<String>,
}

/// The state of `node`, or of whichever node changed last if there is none of that node. `None`: no state is on record.
///
/// # Errors
/// When the change logs cannot be read.
pub async fn rebuild(
    executor: &Executor,
    node: Option<&str>,
    moment: Moment,
    notes: &Arc<Notes>,
) -> Result<Option<State>, QueryError> {
    let when = match moment {
        Moment::Newest => "true".to_owned(),
        Moment::At(time) => format!("time <= {}", literal(time)),
        Moment::Number(number) => format!("snapshot <= {number}"),
    };
    let tail = "ORDER BY snapshot DESC, time DESC LIMIT 1";
    let mut found = Vec::new();
    if let Some(node) = node {
        let condition = format!("{when} AND node = {}", quoted(node));
        found = of_kind!(records::rows(executor, Table::Snapshots, &condition, tail, notes).await?, Snapshot);
    }
    // Numbers of one node mean nothing on another.
    if found.is_empty() && !matches!(moment, Moment::Number(_)) {
        let tail = "ORDER BY time DESC, snapshot DESC LIMIT 1";
        found = of_kind!(records::rows(executor, Table::Snapshots, &when, tail, notes).await?, Snapshot);
    }
    let Some(head) = found.pop() else { return Ok(None) };
    let condition = format!("node = {} AND revision <= {}", quoted(&head.node), head.snapshot);
    let mut logs = Vec::new();
    for table in [Table::Namespaces, Table::Endpoints, Table::Services, Table::Policies] {
        logs.extend(records::rows(executor, table, &condition, "", notes).await?);
    }
    Ok(Some(assemble(&head, logs)))
}

/// The rows of change logs up to a state, put together. Needs no order.
fn assemble(head: &SnapshotRow, logs: Vec<Row>) -> State {
    let mut latest: BTreeMap<(Table, String, ObjectKey), Row> = BTreeMap::new();
    for row in logs {
        let Some(key) = key(&row) else { continue };
        match latest.entry(key) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(row);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                if order(&row) >= order(entry.get()) {
                    entry.insert(row);
                }
            }
        }
    }
    let mut state = State {
        snapshot: Snapshot { audit_all: head.audit_all, ..Snapshot::default() },
        number: head.snapshot,
        node: head.node.to_string(),
        time: head.time,
        problems: Vec::new(),
    };
    for row in latest.into_values() {
        if change(&row).is_some_and(|head| head.change == ChangeKind::Put) {
            state.add(row);
        }
    }
    state.complete(head);
    state
}

/// What a row changes.
fn key(row: &Row) -> Option<(Table, String, ObjectKey)> {
    let table = Table::of(row);
    Some(match row {
        Row::Policy(row) => (table, row.kind.clone(), ObjectKey::new(&row.namespace, &row.name)),
        Row::Endpoint(row) => (table, row.kind.as_str().into(), ObjectKey::new(&row.namespace, &row.name)),
        Row::Namespace(row) => (table, String::new(), ObjectKey::new("", &row.name)),
        Row::Service(row) => (table, String::new(), ObjectKey::new(&row.namespace, &row.name)),
        Row::Flow(_) | Row::Attribution(_) | Row::Snapshot(_) | Row::Gap(_) | Row::Collector(_) | Row::Setting(_) => {
            return None;
        }
    })
}

/// Within one revision, what was deleted was deleted before its successor came.
fn order(row: &Row) -> Option<(u64, DateTime<Utc>, bool)> {
    change(row).map(|head| (head.revision, head.time, head.change == ChangeKind::Put))
}

pub(crate) fn change(row: &Row) -> Option<&ChangeHead> {
    Some(match row {
        Row::Policy(row) => &row.head,
        Row::Endpoint(row) => &row.head,
        Row::Namespace(row) => &row.head,
        Row::Service(row) => &row.head,
        Row::Flow(_) | Row::Attribution(_) | Row::Snapshot(_) | Row::Gap(_) | Row::Collector(_) | Row::Setting(_) => {
            return None;
        }
    })
}

impl State {
    fn add(&mut self, row: Row) {
        let snapshot = &mut self.snapshot;
        match row {
            Row::Namespace(row) => {
                let NamespaceRow { head: _, name, uid, labels, audit } = *row;
                snapshot.namespaces.insert(name.clone(), Arc::new(Namespace { name, uid, labels, audit }));
            }
            Row::Endpoint(row) if row.kind == EndpointKind::Node => {
                let node = node(*row);
                snapshot.pod_ranges.extend(node.pod_ranges.iter().copied());
                snapshot.nodes.insert(node.name.clone(), Arc::new(node));
            }
            Row::Endpoint(row) => {
                let pod = pod(*row);
                snapshot.pods.insert(pod.key(), Arc::new(pod));
            }
            Row::Service(row) => {
                let service = service(*row);
                snapshot.services.insert(ObjectKey::new(&service.namespace, &service.name), Arc::new(service));
            }
            Row::Policy(row) => match policy(&row) {
                Some(policy) => {
                    snapshot.policies.insert(policy.key.clone(), Arc::new(policy));
                }
                // It was not in force then either, unless the numbers say so.
                None => tracing::debug!(kind = row.kind, name = row.name, "policy on record cannot be read"),
            },
            Row::Flow(_)
            | Row::Attribution(_)
            | Row::Snapshot(_)
            | Row::Gap(_)
            | Row::Collector(_)
            | Row::Setting(_) => {}
        }
    }

    /// What every cluster has, and whether all is there that was.
    fn complete(&mut self, head: &SnapshotRow) {
        let snapshot = &mut self.snapshot;
        let named: Vec<String> = snapshot
            .pods
            .keys()
            .map(|key| &key.namespace)
            .chain(snapshot.policies.keys().map(|key: &PolicyKey| &key.namespace))
            .filter(|name| !name.is_empty() && !snapshot.namespaces.contains_key(*name))
            .cloned()
            .collect();
        for name in named {
            let namespace = implied_namespace(&name);
            snapshot.namespaces.insert(name, Arc::new(namespace));
        }
        let counts = [("policies", head.policies, snapshot.policies.len()), ("pods", head.pods, snapshot.pods.len())];
        for (what, expected, found) in counts {
            if expected != found as u64 {
                self.problems.push(format!(
                    "snapshot {} of node {} had {expected} {what}, {found} are on record: judging by it may be wrong",
                    head.snapshot, head.node
                ));
            }
        }
        if head.errors > 0 {
            self.problems.push(format!(
                "node {} could not read {} objects when it made snapshot {}: they may be missing in it",
                head.node, head.errors, head.snapshot
            ));
        }
    }
}

fn node(row: EndpointChangeRow) -> Node {
    Node {
        name: row.name,
        uid: row.uid,
        labels: row.labels,
        addresses: row.addresses,
        pod_ranges: row.pod_ranges.iter().filter_map(|range| range.parse().ok()).collect(),
    }
}

fn pod(row: EndpointChangeRow) -> Pod {
    let workload = (!row.workload.is_empty()).then_some(Workload { kind: row.workload_kind, name: row.workload });
    Pod {
        namespace: row.namespace,
        name: row.name,
        uid: row.uid,
        labels: row.labels,
        addresses: row.addresses,
        node: row.node_name,
        host_network: row.host_network,
        container_ports: serde_json::from_str(&row.container_ports).unwrap_or_default(),
        phase: match row.phase.to_ascii_lowercase().as_str() {
            "running" => Phase::Running,
            "succeeded" => Phase::Succeeded,
            "failed" => Phase::Failed,
            "pending" => Phase::Pending,
            _ => Phase::Unknown,
        },
        terminating: row.terminating,
        service_account: row.service_account,
        workload,
    }
}

fn service(row: ServiceRow) -> Service {
    Service {
        namespace: row.namespace,
        name: row.name,
        uid: row.uid,
        addresses: row.addresses,
        ports: serde_json::from_str(&row.ports).unwrap_or_default(),
        selector: row.selector,
    }
}

/// The policy as its text says it, under the identity that was recorded with it.
fn policy(row: &PolicyRow) -> Option<Policy> {
    let (objects, _) = netverdict_manifest::read(&row.text, &row.origin);
    let object = objects.into_iter().find(|object| object.kind == row.kind && object.name == row.name)?;
    let (policy, _) = netverdict_manifest::policy(&object);
    let mut policy = policy?;
    policy.key.namespace.clone_from(&row.namespace);
    policy.uid.clone_from(&row.uid);
    policy.generation = row.generation;
    policy.content_hash.clone_from(&row.content_hash);
    Some(policy)
}
