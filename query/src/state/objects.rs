//! Rows of change logs → what the engine knows: one object, as a row has it.

use std::sync::Arc;

use netverdict_flowlog::row::{EndpointChangeRow, EndpointKind, NamespaceRow, PolicyRow, Row, ServiceRow};
use netverdict_policy::{
    ObjectKey, Snapshot,
    model::{Namespace, Node, Phase, Pod, Policy, Service, Workload},
};

/// An object as the engine takes it. Shared: states that follow each other have most of their objects in common.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    Policy(Arc<Policy>),
    /// A policy that cannot be read.
    Unreadable,
}

impl Object {
    /// `None` for rows of other tables.
    pub(super) fn of(row: Row) -> Option<Self> {
        Some(match row {
            Row::Namespace(row) => {
                let NamespaceRow { head: _, name, uid, labels, audit } = *row;
                Self::Namespace(Arc::new(Namespace { name, uid, labels, audit }))
            }
            Row::Endpoint(row) if row.kind == EndpointKind::Node => Self::Node(Arc::new(node(*row))),
            Row::Endpoint(row) => Self::Pod(Arc::new(pod(*row))),
            Row::Service(row) => Self::Service(Arc::new(service(*row))),
            Row::Policy(row) => match policy(&row) {
                Some(policy) => Self::Policy(Arc::new(policy)),
                None => {
                    // It was not in force then either, unless the numbers say so.
                    tracing::debug!(kind = row.kind, name = row.name, "policy on record cannot be read");
                    Self::Unreadable
                }
            },
            Row::Flow(_)
            | Row::Attribution(_)
            | Row::Snapshot(_)
            | Row::Gap(_)
            | Row::Collector(_)
            | Row::Setting(_) => return None,
        })
    }

    pub(super) fn add_to(&self, snapshot: &mut Snapshot) {
        match self {
            Self::Namespace(namespace) => {
                snapshot.namespaces.insert(namespace.name.clone(), Arc::clone(namespace));
            }
            Self::Node(node) => {
                snapshot.pod_ranges.extend(node.pod_ranges.iter().copied());
                snapshot.nodes.insert(node.name.clone(), Arc::clone(node));
            }
            Self::Pod(pod) => {
                snapshot.pods.insert(pod.key(), Arc::clone(pod));
            }
            Self::Service(service) => {
                let key = ObjectKey::new(&service.namespace, &service.name);
                snapshot.services.insert(key, Arc::clone(service));
            }
            Self::Policy(policy) => {
                snapshot.policies.insert(policy.key.clone(), Arc::clone(policy));
            }
            Self::Unreadable => {}
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
