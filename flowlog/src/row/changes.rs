//! The change logs: policies, endpoints, namespaces, services.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::words::{ChangeKind, EndpointKind};
use crate::layout::{Addresses, Flag, Group, LongText, Map, Name, Number, Text, Texts, Time, Word, columns};

columns! {
    /// Common first columns of every change log.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct ChangeHead {
        /// put or delete
        change: ChangeKind as Word = ChangeKind::Put,
        /// when it came into force on this node
        time: DateTime<Utc> as Time,
        /// number of the policy snapshot that the change made
        // A collector's state directory calls it `revision`: a recorded object is recognised by a hash of the row's
        // JSON, and under another name every object would look changed.
        #[serde(rename = "revision", alias = "snapshot")]
        snapshot: u64 as Number [was "revision"],
        /// node that recorded it
        node: Arc<str> as Name,
        /// boot of the node, as the kernel names it
        boot_id: Arc<str> as Name,
    }
}

columns! {
    /// Table `policies`: every state of every policy seen.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct PolicyRow {
        /// what changed, when and where
        head: ChangeHead as Group,
        /// of the object
        api_version: String as Text,
        /// Kubernetes kind
        kind: String as Text,
        /// null for cluster-scoped kinds
        namespace: String as Text,
        /// of the object
        name: String as Text,
        /// of the object, or made from kind, namespace and name
        uid: String as Text,
        /// of the object, or a count of changes of the hash
        generation: i64 as Number,
        /// of the object
        resource_version: String as Text,
        /// SHA-256 of what matters in the object
        content_hash: String as Text,
        /// the whole object as YAML; null on delete
        text: String as LongText,
        /// the program that last wrote what decides, as the API server noted it
        author: String as Text,
        /// when it did, by the API server's clock
        // Left out where it is not known: a recorded object is recognised by a hash of the row's JSON.
        #[serde(skip_serializing_if = "Option::is_none")]
        changed_time: Option<DateTime<Utc>> as Time [since 2],
        /// when the object was made, by the API server's clock
        #[serde(skip_serializing_if = "Option::is_none")]
        created_time: Option<DateTime<Utc>> as Time [since 2],
        /// where it was read from: a file's name, or api
        origin: String as Text,
    }
}

columns! {
    /// Table `endpoints`: pods and nodes.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct EndpointChangeRow {
        /// what changed, when and where
        head: ChangeHead as Group,
        /// pod or node
        kind: EndpointKind as Word = EndpointKind::Unknown,
        /// null for nodes
        namespace: String as Text,
        /// of the pod or node
        name: String as Text,
        /// of the pod or node
        uid: String as Text,
        /// as the kernel knows it, within this boot
        owner_id: u32 as Number,
        /// of the pod or node
        labels: BTreeMap<String, String> as Map,
        /// canonical text
        addresses: Vec<IpAddr> as Addresses,
        /// the pod's node; a node's own name
        node_name: String as Text,
        /// the pod shares the node's network
        host_network: bool as Flag,
        /// JSON list of name, port, protocol
        container_ports: String as Text,
        /// of the pod
        service_account: String as Text,
        /// kind of the controller that owns the pod
        workload_kind: String as Text,
        /// name of the controller that owns the pod
        workload: String as Text,
        /// of the pod
        phase: String as Text,
        /// the pod is being deleted
        terminating: bool as Flag,
        /// when the pod's kubelet took it on, by the kubelet's clock
        #[serde(skip_serializing_if = "Option::is_none")]
        started_time: Option<DateTime<Utc>> as Time [since 2],
        /// when the last container of a finished pod ended, by the kubelet's clock
        #[serde(skip_serializing_if = "Option::is_none")]
        ended_time: Option<DateTime<Utc>> as Time [since 2],
        /// nodes: ranges from which their pods get addresses
        pod_ranges: Vec<String> as Texts,
    }
}

columns! {
    /// Table `namespaces`.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct NamespaceRow {
        /// what changed, when and where
        head: ChangeHead as Group,
        /// of the namespace
        name: String as Text,
        /// of the namespace
        uid: String as Text,
        /// of the namespace
        labels: BTreeMap<String, String> as Map,
        /// every policy of the namespace is audited
        audit: bool as Flag,
    }
}

columns! {
    /// Table `services`.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct ServiceRow {
        /// what changed, when and where
        head: ChangeHead as Group,
        /// of the Service
        namespace: String as Text,
        /// of the Service
        name: String as Text,
        /// of the Service
        uid: String as Text,
        /// cluster, external and load-balancer addresses
        addresses: Vec<IpAddr> as Addresses,
        /// JSON list of name, port, target port, protocol
        ports: String as Text,
        /// labels of the pods behind it
        selector: BTreeMap<String, String> as Map,
    }
}
