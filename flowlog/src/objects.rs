//! Objects of the engine as rows of the change logs, and back: pods, nodes, namespaces, Services. Both directions of each
//! stand together, so that every written row can be read.
//!
//! Reading fails rather than guesses: a pod without the ports that it had would be judged wrongly. Policies are not here:
//! their rows hold the object as YAML, which `netverdict-manifest` writes and reads.

use chrono::DateTime;
use netverdict_policy::{
    model::{ContainerPort, Namespace, Node, Phase, Pod, Service, ServicePort, Workload},
    tables::OwnerId,
};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::row::{ChangeHead, EndpointChangeRow, EndpointKind, NamespaceRow, ServiceRow, Table};

/// A row with an unexpected value, so that its object cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{object} is unreadable: column {column} of table {table} is {found:?} (node {node}, snapshot {snapshot}), expected {expected}"
)]
pub struct Unreadable {
    pub table: Table,
    pub node: String,
    pub snapshot: u64,
    /// Kind and name, as `pod shop/web`.
    pub object: String,
    pub column: &'static str,
    pub found: String,
    pub expected: &'static str,
}

/// Where a value comes from, for [`Unreadable`].
struct Origin<'a> {
    table: Table,
    head: &'a ChangeHead,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Origin<'_> {
    fn unreadable(&self, column: &'static str, found: &str, expected: &'static str) -> Unreadable {
        let Self { table, head, kind, namespace, name } = *self;
        let object = match namespace {
            "" => format!("{kind} {name}"),
            namespace => format!("{kind} {namespace}/{name}"),
        };
        let found = found.chars().take(100).collect();
        Unreadable { table, node: head.node.to_string(), snapshot: head.snapshot, object, column, found, expected }
    }

    /// A list as JSON; the empty text of rows without any is the empty list.
    fn list<T: DeserializeOwned>(
        &self,
        column: &'static str,
        text: &str,
        expected: &'static str,
    ) -> Result<Vec<T>, Unreadable> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_str(text).map_err(|_| self.unreadable(column, text, expected))
    }
}

fn json<T: Serialize>(list: &[T]) -> String {
    // Lists of plain structs: nothing that JSON could refuse.
    serde_json::to_string(list).unwrap_or_default()
}

pub fn pod_row(pod: &Pod, owner: OwnerId, head: ChangeHead) -> EndpointChangeRow {
    let Pod {
        namespace,
        name,
        uid,
        // By which its node finds it; no verdict depends on it.
        cgroup_uid: _,
        labels,
        addresses,
        node,
        host_network,
        container_ports,
        phase,
        terminating,
        service_account,
        workload,
        started,
        ended,
    } = pod.clone();
    let (workload_kind, workload) = workload.map(|Workload { kind, name }| (kind, name)).unwrap_or_default();
    EndpointChangeRow {
        head,
        kind: EndpointKind::Pod,
        namespace,
        name,
        uid,
        owner_id: owner.0,
        labels,
        addresses,
        node_name: node,
        host_network,
        container_ports: json(&container_ports),
        service_account,
        workload_kind,
        workload,
        phase: phase_name(phase).to_owned(),
        terminating,
        started_time: started.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
        ended_time: ended.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
        ..EndpointChangeRow::default()
    }
}

/// # Errors
/// The row has no readable ports or phase.
pub fn pod(row: EndpointChangeRow) -> Result<Pod, Unreadable> {
    let (table, kind) = (Table::Endpoints, "pod");
    let origin = Origin { table, head: &row.head, kind, namespace: &row.namespace, name: &row.name };
    let container_ports: Vec<ContainerPort> =
        origin.list("container_ports", &row.container_ports, "a JSON list of name, port, protocol")?;
    let phase = phase_of(&row.phase)
        .ok_or_else(|| origin.unreadable("phase", &row.phase, "pending, running, succeeded, failed or unknown"))?;
    Ok(Pod {
        namespace: row.namespace,
        name: row.name,
        uid: row.uid,
        cgroup_uid: String::new(),
        labels: row.labels,
        addresses: row.addresses,
        node: row.node_name,
        host_network: row.host_network,
        container_ports,
        phase,
        terminating: row.terminating,
        service_account: row.service_account,
        workload: (!row.workload.is_empty()).then_some(Workload { kind: row.workload_kind, name: row.workload }),
        started: row.started_time.map(|time| time.timestamp()),
        ended: row.ended_time.map(|time| time.timestamp()),
    })
}

pub fn node_row(node: &Node, owner: OwnerId, head: ChangeHead) -> EndpointChangeRow {
    let Node { name, uid, labels, addresses, pod_ranges } = node.clone();
    EndpointChangeRow {
        head,
        kind: EndpointKind::Node,
        node_name: name.clone(),
        name,
        uid,
        owner_id: owner.0,
        labels,
        addresses,
        container_ports: json::<ContainerPort>(&[]),
        pod_ranges: pod_ranges.iter().map(ToString::to_string).collect(),
        ..EndpointChangeRow::default()
    }
}

/// # Errors
/// A range of pod addresses cannot be read.
pub fn node(row: EndpointChangeRow) -> Result<Node, Unreadable> {
    let (table, kind) = (Table::Endpoints, "node");
    let origin = Origin { table, head: &row.head, kind, namespace: "", name: &row.name };
    let range = |text: &String| {
        text.parse().map_err(|_| origin.unreadable("pod_ranges", text, "ranges as address/prefix length"))
    };
    let pod_ranges = row.pod_ranges.iter().map(range).collect::<Result<_, _>>()?;
    Ok(Node { name: row.name, uid: row.uid, labels: row.labels, addresses: row.addresses, pod_ranges })
}

pub fn namespace_row(namespace: &Namespace, head: ChangeHead) -> NamespaceRow {
    let Namespace { name, uid, labels, audit } = namespace.clone();
    NamespaceRow { head, name, uid, labels, audit }
}

pub fn namespace(row: NamespaceRow) -> Namespace {
    let NamespaceRow { head: _, name, uid, labels, audit } = row;
    Namespace { name, uid, labels, audit }
}

pub fn service_row(service: &Service, head: ChangeHead) -> ServiceRow {
    let Service { namespace, name, uid, addresses, ports, selector } = service.clone();
    ServiceRow { head, namespace, name, uid, addresses, ports: json(&ports), selector }
}

/// # Errors
/// The row has no readable ports.
pub fn service(row: ServiceRow) -> Result<Service, Unreadable> {
    let (table, kind) = (Table::Services, "service");
    let origin = Origin { table, head: &row.head, kind, namespace: &row.namespace, name: &row.name };
    let ports: Vec<ServicePort> =
        origin.list("ports", &row.ports, "a JSON list of name, port, target port, protocol")?;
    let ServiceRow { head: _, namespace, name, uid, addresses, ports: _, selector } = row;
    Ok(Service { namespace, name, uid, addresses, ports, selector })
}

const PHASES: [(Phase, &str); 5] = [
    (Phase::Pending, "pending"),
    (Phase::Running, "running"),
    (Phase::Succeeded, "succeeded"),
    (Phase::Failed, "failed"),
    (Phase::Unknown, "unknown"),
];

fn phase_name(phase: Phase) -> &'static str {
    PHASES.iter().find(|(known, _)| *known == phase).map_or("unknown", |(_, name)| name)
}

/// Empty text is a phase that was not known.
fn phase_of(text: &str) -> Option<Phase> {
    let text = if text.is_empty() { "unknown" } else { text };
    PHASES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(phase, _)| *phase)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use netverdict_policy::model::Protocol;

    use super::*;

    fn a_pod() -> Pod {
        Pod {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "uid".into(),
            // Not on record: only binding asks for it.
            cgroup_uid: String::new(),
            labels: BTreeMap::from([("app".into(), "web".into())]),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            node: "n1".into(),
            host_network: true,
            container_ports: vec![ContainerPort { name: "http".into(), port: 8080, protocol: Protocol::TCP }],
            phase: Phase::Succeeded,
            terminating: true,
            service_account: "default".into(),
            workload: Some(Workload { kind: "Deployment".into(), name: "web".into() }),
            started: Some(1_700_000_000),
            ended: Some(1_700_000_001),
        }
    }

    #[test]
    fn objects_come_back_as_they_were() {
        for phase in PHASES.map(|(phase, _)| phase) {
            let whole = Pod { phase, ..a_pod() };
            assert_eq!(pod(pod_row(&whole, OwnerId(3), ChangeHead::default())), Ok(whole));
        }
        let bare = Pod { namespace: "shop".into(), name: "bare".into(), ..Pod::default() };
        assert_eq!(pod(pod_row(&bare, OwnerId(0), ChangeHead::default())), Ok(bare));
        let whole = Node {
            name: "n1".into(),
            uid: "uid".into(),
            labels: BTreeMap::from([("zone".into(), "a".into())]),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pod_ranges: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        };
        assert_eq!(node(node_row(&whole, OwnerId(3), ChangeHead::default())), Ok(whole));
        let whole = Namespace { name: "shop".into(), uid: "uid".into(), labels: BTreeMap::new(), audit: true };
        assert_eq!(namespace(namespace_row(&whole, ChangeHead::default())), whole);
        let port = ServicePort { name: "http".into(), port: 80, target_port: "web".into(), protocol: Protocol::TCP };
        let whole = Service {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "uid".into(),
            addresses: vec!["10.96.0.1".parse().unwrap()],
            ports: vec![port],
            selector: BTreeMap::from([("app".into(), "web".into())]),
        };
        assert_eq!(service(service_row(&whole, ChangeHead::default())), Ok(whole));
    }

    #[test]
    fn what_cannot_be_read_says_where_it_is_from() {
        let head = ChangeHead { snapshot: 12, node: "n1".into(), ..ChangeHead::default() };
        let row = EndpointChangeRow { container_ports: "[{".into(), ..pod_row(&a_pod(), OwnerId(3), head.clone()) };
        assert_eq!(
            pod(row).unwrap_err().to_string(),
            "pod shop/web is unreadable: column container_ports of table endpoints is \"[{\" (node n1, snapshot 12), \
             expected a JSON list of name, port, protocol"
        );
        let row = EndpointChangeRow { phase: "asleep".into(), ..pod_row(&a_pod(), OwnerId(3), head.clone()) };
        assert_eq!(pod(row).unwrap_err().column, "phase");
        let row = EndpointChangeRow {
            name: "n2".into(),
            pod_ranges: vec!["10.0.0.0/24".into(), "10/8".into()],
            ..node_row(&Node::default(), OwnerId(3), head.clone())
        };
        assert_eq!(node(row).unwrap_err().found, "10/8");
        let row = ServiceRow { name: "web".into(), ports: "x".into(), ..service_row(&Service::default(), head) };
        assert_eq!(service(row).unwrap_err().object, "service web");
    }
}
