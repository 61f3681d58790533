//! An object without unused fields: for a source that keeps ten thousand pods in memory, and that must not take each
//! heartbeat of a node for a change.
//!
//! Policies keep their whole specification, since it is on record. A field of a wrong type stays: its reader says so.

use serde_json::{Map, Value, json};

use crate::{
    kind::{Class, classify},
    object::{ANNOTATION_PREFIX, Object},
};

/// Annotations that are read beside ours: the kubelet's, by which a static pod's cgroup is found.
const KUBELET_ANNOTATIONS: &[&str] = &["kubernetes.io/config.hash", "kubernetes.io/config.mirror"];
/// A copy of the whole object, as kubectl applied it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The parts of a value that are kept.
enum Keep {
    All,
    /// Of a mapping, these entries.
    Entries(&'static [(&'static str, Keep)]),
    /// Of a list, all items, with these parts.
    Items(&'static Keep),
}

const METADATA: Keep = Keep::Entries(&[
    ("annotations", Keep::All),
    ("deletionTimestamp", Keep::All),
    ("generation", Keep::All),
    ("labels", Keep::All),
    ("name", Keep::All),
    ("namespace", Keep::All),
    (
        "ownerReferences",
        Keep::Items(&Keep::Entries(&[("controller", Keep::All), ("kind", Keep::All), ("name", Keep::All)])),
    ),
    ("uid", Keep::All),
]);

const NAMESPACE: Keep = Keep::Entries(&[("apiVersion", Keep::All), ("kind", Keep::All), ("metadata", METADATA)]);

const NODE: Keep = Keep::Entries(&[
    ("apiVersion", Keep::All),
    ("kind", Keep::All),
    ("metadata", METADATA),
    ("spec", Keep::Entries(&[("podCIDR", Keep::All), ("podCIDRs", Keep::All)])),
    ("status", Keep::Entries(&[("addresses", Keep::All)])),
]);

const CONTAINERS: Keep = Keep::Items(&Keep::Entries(&[("ports", Keep::All), ("restartPolicy", Keep::All)]));

const CONTAINER_STATUSES: Keep = Keep::Items(&Keep::Entries(&[(
    "state",
    Keep::Entries(&[("terminated", Keep::Entries(&[("finishedAt", Keep::All)]))]),
)]));

const POD: Keep = Keep::Entries(&[
    ("apiVersion", Keep::All),
    ("kind", Keep::All),
    ("metadata", METADATA),
    (
        "spec",
        Keep::Entries(&[
            ("containers", CONTAINERS),
            ("hostNetwork", Keep::All),
            ("initContainers", CONTAINERS),
            ("nodeName", Keep::All),
            ("serviceAccountName", Keep::All),
        ]),
    ),
    (
        "status",
        Keep::Entries(&[
            ("containerStatuses", CONTAINER_STATUSES),
            ("initContainerStatuses", CONTAINER_STATUSES),
            ("phase", Keep::All),
            ("podIP", Keep::All),
            ("podIPs", Keep::All),
            ("startTime", Keep::All),
        ]),
    ),
]);

const SERVICE: Keep = Keep::Entries(&[
    ("apiVersion", Keep::All),
    ("kind", Keep::All),
    ("metadata", METADATA),
    (
        "spec",
        Keep::Entries(&[
            ("clusterIP", Keep::All),
            ("clusterIPs", Keep::All),
            ("externalIPs", Keep::All),
            ("ports", Keep::All),
            ("selector", Keep::All),
        ]),
    ),
    ("status", Keep::Entries(&[("loadBalancer", Keep::All)])),
]);

/// Removes from an object of an API everything that this crate does not read and that is not on record.
///
/// Of `managedFields` the last change of deciding fields stays, as manager and time; of a policy's status nothing does.
pub fn trim(value: &mut Value) {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let keep = match classify(&text(value, "apiVersion"), &text(value, "kind")) {
        Class::Namespace => &NAMESPACE,
        Class::Node => &NODE,
        Class::Pod => &POD,
        Class::Service => &SERVICE,
        _ => return trim_policy(value),
    };
    cut(value, keep);
    if let Some(Value::Object(annotations)) = value.pointer_mut("/metadata/annotations") {
        annotations.retain(|key, _| key.starts_with(ANNOTATION_PREFIX) || KUBELET_ANNOTATIONS.contains(&key.as_str()));
        if annotations.is_empty() {
            metadata_of(value).map(|metadata| metadata.remove("annotations"));
        }
    }
    // A list of containers without ports does not matter; such lists are most of a pod's specification.
    for list in ["containers", "initContainers"] {
        remove_unless(value.get_mut("spec"), list, |item| item.contains_key("ports"));
    }
    // So do the states of containers that run.
    for list in ["containerStatuses", "initContainerStatuses"] {
        let has_ended =
            |item: &Map<String, Value>| item.get("state").is_some_and(|state| state.get("terminated").is_some());
        remove_unless(value.get_mut("status"), list, has_ended);
    }
}

/// Removes a list of mappings that all do not matter.
fn remove_unless(parent: Option<&mut Value>, list: &str, says_something: impl Fn(&Map<String, Value>) -> bool) {
    let Some(Value::Object(parent)) = parent else { return };
    let says_nothing = |item: &Value| item.as_object().is_some_and(|item| !says_something(item));
    if parent.get(list).and_then(Value::as_array).is_some_and(|items| items.iter().all(says_nothing)) {
        parent.remove(list);
    }
}

/// Everything but status and copies stays: a policy's text is on record.
fn trim_policy(value: &mut Value) {
    let change = last_change_of(value).map(|change| change.kept());
    if let Value::Object(fields) = value {
        fields.remove("status");
    }
    let Some(metadata) = metadata_of(value) else { return };
    metadata.remove("managedFields");
    if let Some(change) = change {
        metadata.insert("managedFields".to_owned(), change);
    }
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

fn metadata_of(value: &mut Value) -> Option<&mut Map<String, Value>> {
    value.get_mut("metadata")?.as_object_mut()
}

fn cut(value: &mut Value, keep: &Keep) {
    match (keep, value) {
        (Keep::Entries(kept), Value::Object(entries)) => {
            entries.retain(|name, _| kept.iter().any(|(kept, _)| kept == name));
            for (name, keep) in *kept {
                entries.get_mut(*name).into_iter().for_each(|entry| cut(entry, keep));
            }
        }
        (Keep::Items(keep), Value::Array(items)) => items.iter_mut().for_each(|item| cut(item, keep)),
        (Keep::All | Keep::Entries(_) | Keep::Items(_), _) => {}
    }
}

/// The last change of an object's specification or of an annotation that we read, as the API server noted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastChange<'a> {
    /// The program that wrote it, for instance `kubectl-client-side-apply`.
    pub manager: &'a str,
    /// By the API server's clock, in RFC 3339. Empty where it noted none.
    pub time: &'a str,
}

/// When the API server made the object, by its clock, in RFC 3339. `None` where the object has no time.
pub fn created(object: &Object) -> Option<&str> {
    object.value.pointer("/metadata/creationTimestamp")?.as_str()
}

/// `None` where the object does not say, as in most files.
pub fn last_change(object: &Object) -> Option<LastChange<'_>> {
    last_change_of(&object.value)
}

fn last_change_of(value: &Value) -> Option<LastChange<'_>> {
    let entries = value.pointer("/metadata/managedFields")?.as_array()?;
    let text = |entry: &'_ Value, name: &str| -> Option<String> { Some(entry.get(name)?.as_str()?.to_owned()) };
    let entry = entries.iter().filter(|entry| decides(entry)).max_by_key(|entry| text(entry, "time"))?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    Some(LastChange { manager: text("manager"), time: text("time") })
}

/// Whether the fields of an entry include one that a verdict depends on.
fn decides(entry: &Value) -> bool {
    let Some(fields) = entry.get("fieldsV1") else { return false };
    let annotations = fields.pointer("/f:metadata/f:annotations").and_then(Value::as_object);
    let ours = |key: &String| key.strip_prefix("f:").is_some_and(|key| key.starts_with(ANNOTATION_PREFIX));
    fields.get("f:spec").is_some() || annotations.is_some_and(|annotations| annotations.keys().any(ours))
}

impl LastChange<'_> {
    /// In the API server's own form, so that it reads as the whole list did.
    fn kept(self) -> Value {
        json!([{"manager": self.manager, "time": self.time, "fieldsV1": {"f:spec": {}}}])
    }
}

#[cfg(test)]
mod tests;
