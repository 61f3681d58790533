//! Objects of a cluster → rows of the change logs.

use std::sync::Arc;

use netverdict_flowlog::row::{ChangeHead, EndpointChangeRow, EndpointKind, NamespaceRow, PolicyRow, ServiceRow};
use netverdict_manifest::Object;
use netverdict_policy::{
    Snapshot,
    model::{Namespace, Node, Phase, Pod, Service},
    tables::{Owner, OwnerId},
};
use serde::Serialize;

use crate::{
    cluster::{ClusterState, PolicyObjects},
    input::Fact,
    persistent_map::{Edit, edits},
};

/// Everything in which the cluster differs from what was last seen of it: a row for each object that exists, by the
/// object's own key.
pub(super) fn describe(
    (seen, texts): &(Arc<Snapshot>, Arc<PolicyObjects>),
    cluster: &ClusterState,
    head: &ChangeHead,
    owner_id: impl Fn(&Owner) -> OwnerId,
) -> Vec<Edit<String, Fact>> {
    let now = &cluster.snapshot;
    let policies = edits(texts.iter(), cluster.policies.iter(), Arc::ptr_eq).into_iter().map(|(key, object)| {
        let row = object.map(|object| Fact::Policy(Box::new(policy(&object, head))));
        (format!("policy/{}/{}/{}", key.kind, key.namespace, key.name), row)
    });
    let pods = edits(seen.pods.iter(), now.pods.iter(), Arc::ptr_eq).into_iter().map(|(key, found)| {
        let row = found.map(|found| {
            let owner = owner_id(&Owner::Pod { key: found.key(), uid: found.uid.clone() });
            Fact::Endpoint(Box::new(pod(&found, owner, head)))
        });
        (format!("pod/{}/{}", key.namespace, key.name), row)
    });
    let nodes = edits(seen.nodes.iter(), now.nodes.iter(), Arc::ptr_eq).into_iter().map(|(name, found)| {
        let row = found.map(|found| {
            let owner = owner_id(&Owner::Node { name: found.name.clone() });
            Fact::Endpoint(Box::new(node(&found, owner, head)))
        });
        (format!("node/{name}"), row)
    });
    let namespaces = edits(seen.namespaces.iter(), now.namespaces.iter(), Arc::ptr_eq);
    let namespaces = namespaces.into_iter().map(|(name, found)| {
        (format!("namespace/{name}"), found.map(|found| Fact::Namespace(Box::new(namespace(&found, head)))))
    });
    let services = edits(seen.services.iter(), now.services.iter(), Arc::ptr_eq).into_iter().map(|(key, found)| {
        let row = found.map(|found| Fact::Service(Box::new(service(&found, head))));
        (format!("service/{}/{}", key.namespace, key.name), row)
    });
    policies.chain(pods).chain(nodes).chain(namespaces).chain(services).collect()
}

fn policy(object: &Object, head: &ChangeHead) -> PolicyRow {
    PolicyRow {
        head: head.clone(),
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        uid: object.uid.clone(),
        generation: object.generation,
        resource_version: object.resource_version.clone(),
        content_hash: object.content_hash.clone(),
        text: netverdict_manifest::text(object),
        author: author(object),
        origin: object.origin.to_string(),
    }
}

/// Who wrote the specification last, as the API server noted it.
fn author(object: &Object) -> String {
    let fields = object.value.pointer("/metadata/managedFields").and_then(serde_json::Value::as_array);
    let writers = fields.into_iter().flatten().filter(|entry| entry.pointer("/fieldsV1/f:spec").is_some());
    let text = |entry: &serde_json::Value, field| {
        entry.get(field).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    writers.max_by_key(|entry| text(entry, "time")).map(|entry| text(entry, "manager")).unwrap_or_default()
}

fn pod(pod: &Pod, owner: OwnerId, head: &ChangeHead) -> EndpointChangeRow {
    EndpointChangeRow {
        head: head.clone(),
        kind: EndpointKind::Pod,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        owner_id: owner.0,
        labels: pod.labels.clone(),
        addresses: pod.addresses.clone(),
        node_name: pod.node.clone(),
        host_network: pod.host_network,
        container_ports: json(&pod.container_ports),
        service_account: pod.service_account.clone(),
        workload_kind: pod.workload.as_ref().map(|workload| workload.kind.clone()).unwrap_or_default(),
        workload: pod.workload.as_ref().map(|workload| workload.name.clone()).unwrap_or_default(),
        phase: phase(pod.phase).to_owned(),
        terminating: pod.terminating,
        pod_ranges: Vec::new(),
    }
}

fn node(node: &Node, owner: OwnerId, head: &ChangeHead) -> EndpointChangeRow {
    EndpointChangeRow {
        head: head.clone(),
        kind: EndpointKind::Node,
        namespace: String::new(),
        name: node.name.clone(),
        uid: node.uid.clone(),
        owner_id: owner.0,
        labels: node.labels.clone(),
        addresses: node.addresses.clone(),
        node_name: node.name.clone(),
        host_network: false,
        container_ports: json(&Vec::<netverdict_policy::model::ContainerPort>::new()),
        service_account: String::new(),
        workload_kind: String::new(),
        workload: String::new(),
        phase: String::new(),
        terminating: false,
        pod_ranges: node.pod_ranges.iter().map(ToString::to_string).collect(),
    }
}

fn namespace(namespace: &Namespace, head: &ChangeHead) -> NamespaceRow {
    NamespaceRow {
        head: head.clone(),
        name: namespace.name.clone(),
        uid: namespace.uid.clone(),
        labels: namespace.labels.clone(),
        audit: namespace.audit,
    }
}

fn service(service: &Service, head: &ChangeHead) -> ServiceRow {
    ServiceRow {
        head: head.clone(),
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        uid: service.uid.clone(),
        addresses: service.addresses.clone(),
        ports: json(&service.ports),
        selector: service.selector.clone(),
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Running => "running",
        Phase::Succeeded => "succeeded",
        Phase::Failed => "failed",
        Phase::Unknown => "unknown",
    }
}

fn json<T: Serialize>(value: &T) -> String {
    // Lists of plain structs: nothing that JSON could refuse.
    serde_json::to_string(value).unwrap_or_default()
}
