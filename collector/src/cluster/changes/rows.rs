//! In which objects two states of the cluster differ, as rows of the change logs.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    objects,
    row::{ChangeHead, PolicyRow},
};
use netverdict_manifest::Object;
use netverdict_policy::{
    Snapshot,
    tables::{Owner, OwnerId},
};

use crate::{
    cluster::{ClusterState, PolicyObjects},
    input::Fact,
    persistent_map::{Edit, edits},
};

/// All differences between the cluster and its last seen state: a row for each object that exists, by the
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
            Fact::Endpoint(Box::new(objects::pod_row(&found, owner, head.clone())))
        });
        (format!("pod/{}/{}", key.namespace, key.name), row)
    });
    let nodes = edits(seen.nodes.iter(), now.nodes.iter(), Arc::ptr_eq).into_iter().map(|(name, found)| {
        let row = found.map(|found| {
            let owner = owner_id(&Owner::Node { name: found.name.clone() });
            Fact::Endpoint(Box::new(objects::node_row(&found, owner, head.clone())))
        });
        (format!("node/{name}"), row)
    });
    let namespaces = edits(seen.namespaces.iter(), now.namespaces.iter(), Arc::ptr_eq);
    let namespaces = namespaces.into_iter().map(|(name, found)| {
        (
            format!("namespace/{name}"),
            found.map(|found| Fact::Namespace(Box::new(objects::namespace_row(&found, head.clone())))),
        )
    });
    let services = edits(seen.services.iter(), now.services.iter(), Arc::ptr_eq).into_iter().map(|(key, found)| {
        let row = found.map(|found| Fact::Service(Box::new(objects::service_row(&found, head.clone()))));
        (format!("service/{}/{}", key.namespace, key.name), row)
    });
    policies.chain(pods).chain(nodes).chain(namespaces).chain(services).collect()
}

fn policy(object: &Object, head: &ChangeHead) -> PolicyRow {
    let change = netverdict_manifest::last_change(object);
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
        author: change.map(|change| change.manager.to_owned()).unwrap_or_default(),
        changed_time: change.and_then(|change| moment(change.time)),
        created_time: netverdict_manifest::created(object).and_then(moment),
        origin: object.origin.to_string(),
    }
}

/// A time of the API server, whose clock need not be ours: it is recorded, and nothing is ordered by it.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}
