//! Snapshot after snapshot → rows of the change logs: what was put, what was deleted, when, and in which snapshot.
//!
//! What was told is kept in the state directory, so that a restart repeats nothing and a deletion that happened while
//! the collector was down is told when it comes back. After another boot everything is put again with its first time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use netverdict_flowlog::row::{
    AttributionRow, AttributionValue, ChangeHead, ChangeKind, EndpointChangeRow, EndpointKind, NamespaceRow, PolicyRow,
    ServiceRow,
};
use netverdict_manifest::Object;
use netverdict_policy::{
    AttributionId, Decision,
    model::{Namespace, Node, Phase, Pod, Service},
    tables::{Owner, OwnerId},
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    clock,
    cluster::ClusterState,
    input::Fact,
    state::{self, StateError},
};

const FILE: &str = "change-log.json";

/// What the change logs say of the present.
#[derive(Debug)]
pub struct Changes {
    path: PathBuf,
    node: Arc<str>,
    boot_id: Arc<str>,
    told: Told,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    boot_id: String,
    attributions: BTreeSet<AttributionId>,
    /// By kind, namespace and name.
    objects: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    /// Of the row without its head.
    content: String,
    since_ns: i64,
    /// The row as a deletion has it: who it was, without what it held.
    deletion: Fact,
}

impl Changes {
    /// `anew`: nothing that was told before is on record any more.
    ///
    /// # Errors
    /// The file in the state directory cannot be read.
    pub fn open(state_dir: &Path, node: Arc<str>, boot_id: Arc<str>, anew: bool) -> Result<Self, StateError> {
        let path = state_dir.join(FILE);
        let told: Option<Told> = if anew { None } else { state::load(&path)? };
        let mut told = told.unwrap_or_default();
        if told.boot_id != *boot_id {
            // A crash of the node may have taken with it what was told last.
            told.attributions.clear();
        }
        Ok(Self { path, node, boot_id, told })
    }

    /// Rows for everything in which the cluster differs from what was told.
    ///
    /// `number`: of the snapshot. `time_ns`: when it came into force. `owner_id`: as the compiler gives them out; 0 for what it does not know.
    pub fn rows(
        &mut self,
        cluster: &ClusterState,
        number: u64,
        time_ns: i64,
        owner_id: impl Fn(&Owner) -> OwnerId,
    ) -> Vec<Fact> {
        let head = ChangeHead {
            change: ChangeKind::Put,
            time: clock::at(time_ns),
            revision: number,
            node: self.node.clone(),
            boot_id: self.boot_id.clone(),
        };
        let again = std::mem::replace(&mut self.told.boot_id, self.boot_id.to_string()) != *self.boot_id;
        let mut before = std::mem::take(&mut self.told.objects);
        let mut facts = Vec::new();
        for (key, mut fact) in describe(cluster, &head, owner_id) {
            let content = content_of(&fact);
            let known = before.remove(&key).filter(|known| known.content == content);
            let since_ns = known.as_ref().map_or(time_ns, |known| known.since_ns);
            if known.is_none() || again {
                if let Some(head) = fact.head_mut() {
                    head.time = clock::at(since_ns);
                }
                facts.push(fact.clone());
            }
            self.told.objects.insert(key, Entry { content, since_ns, deletion: emptied(fact) });
        }
        for gone in before.into_values() {
            let mut fact = gone.deletion;
            if let Some(old) = fact.head_mut() {
                *old = ChangeHead { change: ChangeKind::Delete, ..head.clone() };
            }
            facts.push(fact);
        }
        facts
    }

    /// Rows for those of these attributions that were not told before.
    pub fn attributions(&mut self, meanings: &[(AttributionId, Decision)], time_ns: i64) -> Vec<Fact> {
        let told = &mut self.told.attributions;
        let new = meanings.iter().filter(|(id, _)| told.insert(*id));
        let row = |(id, decision): &(AttributionId, Decision)| AttributionRow {
            time: clock::at(time_ns),
            node: self.node.clone(),
            attribution: Arc::new(AttributionValue { id: *id, decision: decision.clone() }),
        };
        new.map(|meaning| Fact::Attribution(Box::new(row(meaning)))).collect()
    }

    /// Remembers what was told; to be called once the rows are safe.
    ///
    /// # Errors
    /// The file could not be written: a restart would tell again what was told.
    pub fn save(&self) -> Result<(), StateError> {
        state::save(&self.path, &self.told)
    }
}

/// Tells contents apart without keeping them: policies can be long.
fn content_of(fact: &Fact) -> String {
    let mut fact = fact.clone();
    if let Some(head) = fact.head_mut() {
        let nothing: Arc<str> = Arc::from("");
        let time = DateTime::<Utc>::UNIX_EPOCH;
        *head = ChangeHead { change: ChangeKind::Put, time, revision: 0, node: nothing.clone(), boot_id: nothing };
    }
    // Owner ids are new after every restart, and say nothing of the object.
    if let Fact::Endpoint(row) = &mut fact {
        row.owner_id = 0;
    }
    let json = serde_json::to_vec(&fact).unwrap_or_default();
    format!("{:032x}", xxh3_128(&json))
}

fn emptied(mut fact: Fact) -> Fact {
    match &mut fact {
        Fact::Policy(row) => row.text.clear(),
        Fact::Endpoint(_) | Fact::Namespace(_) | Fact::Service(_) => {}
        Fact::Attribution(_) | Fact::Snapshot(_) | Fact::Gap(_) => {}
    }
    fact
}

/// A row for everything that the cluster holds, by a key that is the object's own.
fn describe<'a>(
    cluster: &'a ClusterState,
    head: &'a ChangeHead,
    owner_id: impl Fn(&Owner) -> OwnerId + 'a,
) -> impl Iterator<Item = (String, Fact)> + 'a {
    let owner_id = std::rc::Rc::new(owner_id);
    let (of_pods, of_nodes) = (owner_id.clone(), owner_id);
    let snapshot = &cluster.snapshot;
    let policies = cluster.policies.iter().map(move |object| {
        let key = format!("policy/{}/{}/{}", object.kind, object.namespace, object.name);
        (key, Fact::Policy(Box::new(policy(object, head))))
    });
    let pods = snapshot.pods.values().map(move |found| {
        let owner = of_pods(&Owner::Pod { key: found.key(), uid: found.uid.clone() });
        (format!("pod/{}/{}", found.namespace, found.name), Fact::Endpoint(Box::new(pod(found, owner, head))))
    });
    let nodes = snapshot.nodes.values().map(move |found| {
        let owner = of_nodes(&Owner::Node { name: found.name.clone() });
        (format!("node/{}", found.name), Fact::Endpoint(Box::new(node(found, owner, head))))
    });
    let namespaces = snapshot
        .namespaces
        .values()
        .map(move |found| (format!("namespace/{}", found.name), Fact::Namespace(Box::new(namespace(found, head)))));
    let services = snapshot.services.values().map(move |found| {
        (format!("service/{}/{}", found.namespace, found.name), Fact::Service(Box::new(service(found, head))))
    });
    policies.chain(pods).chain(nodes).chain(namespaces).chain(services)
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

#[cfg(test)]
mod tests;
