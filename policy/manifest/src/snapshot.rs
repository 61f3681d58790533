//! All objects to one snapshot of the model. Of duplicates the last one counts, missing namespaces are implied, and an object
//! that cannot be read does not affect the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use netverdict_policy::model::{Namespace, ObjectKey, Snapshot};

use crate::{
    finding::{Finding, Invalid, ObjectRef, Severity, code},
    kind::{self, Class},
    metadata::derived_uid,
    object::{Identity, Object},
};

/// The result of reading a set of objects.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub snapshot: Snapshot,
    /// About single objects; [`lint`](crate::lint()) checks them against each other.
    pub findings: Vec<Finding>,
    /// The policies of the snapshot, in the order of `objects`, for their full text.
    pub objects: Vec<Arc<Object>>,
}

/// Reads all objects. Of two objects with the same [`Identity`] the later one counts.
pub fn snapshot(objects: &[Object]) -> Reading {
    let mut reading = Reading::default();
    let last = last_of_each(objects);
    for (index, object) in objects.iter().enumerate() {
        let class = kind::classify(&object.api_version, &object.kind);
        if let Some(later) = last.get(&object.identity()).filter(|later| **later != index) {
            if !matches!(class, Class::Other) {
                reading.findings.extend(duplicate(object, &objects[*later]));
            }
            continue;
        }
        if !matches!(class, Class::Other) {
            let mut report = object.report();
            object.warn_of_keys(&mut report);
            reading.findings.extend(report.finish());
        }
        reading.add(object, &class);
    }
    reading.imply_namespaces();
    reading
}

/// A namespace of which only the name is known: it has the one label that Kubernetes puts on every namespace.
pub fn implied_namespace(name: &str) -> Namespace {
    Namespace { uid: derived_uid("Namespace", "", name), ..kind::implied(name) }
}

impl Reading {
    fn add(&mut self, object: &Object, class: &Class) {
        let key = || ObjectKey::new(&object.namespace, &object.name);
        let findings = match class {
            Class::Namespace => {
                let (namespace, findings) = kind::namespace(object);
                self.snapshot.namespaces.extend(namespace.map(|namespace| (object.name.clone(), Arc::new(namespace))));
                findings
            }
            Class::Node => {
                let (node, findings) = kind::node(object);
                if let Some(node) = node {
                    self.snapshot.pod_ranges.extend(node.pod_ranges.iter().copied());
                    self.snapshot.nodes.insert(object.name.clone(), Arc::new(node));
                }
                findings
            }
            Class::Pod => {
                let (pod, findings) = kind::pod(object);
                self.snapshot.pods.extend(pod.map(|pod| (key(), Arc::new(pod))));
                findings
            }
            Class::Service => {
                let (service, findings) = kind::service(object);
                self.snapshot.services.extend(service.map(|service| (key(), Arc::new(service))));
                findings
            }
            Class::Policy(_)
            | Class::OtherVersion(_)
            | Class::Misspelt(_)
            | Class::UnreadPolicy
            | Class::Foreign
            | Class::Other => {
                let (policy, findings) = kind::policy(object);
                if let Some(policy) = policy {
                    self.snapshot.policies.insert(policy.key.clone(), Arc::new(policy));
                    self.objects.push(Arc::new(object.clone()));
                }
                findings
            }
        };
        self.findings.extend(findings);
    }

    fn imply_namespaces(&mut self) {
        let Snapshot { pods, policies, namespaces, .. } = &self.snapshot;
        let named = pods.keys().map(|key| &key.namespace).chain(policies.keys().map(|key| &key.namespace));
        let missing: BTreeSet<String> =
            named.filter(|name| !name.is_empty() && !namespaces.contains_key(*name)).cloned().collect();
        for name in missing {
            self.findings.push(Finding {
                severity: Severity::Info,
                code: code::IMPLIED_NAMESPACE,
                object: Some(ObjectRef {
                    api_version: "v1".into(),
                    kind: "Namespace".into(),
                    namespace: String::new(),
                    name: name.clone(),
                }),
                origin: None,
                field: String::new(),
                message: format!("no object defines it; it counts as having the one label {}", kind::NAME_LABEL),
                remedy: "add the Namespace where policies select namespaces by other labels".into(),
            });
            self.snapshot.namespaces.insert(name.clone(), Arc::new(implied_namespace(&name)));
        }
    }
}

fn last_of_each(objects: &[Object]) -> BTreeMap<Identity<'_>, usize> {
    objects.iter().enumerate().map(|(index, object)| (object.identity(), index)).collect()
}

fn duplicate(object: &Object, later: &Object) -> Vec<Finding> {
    let mut report = object.report();
    let message = format!("the same object is defined again in {}; this one is ignored", later.origin);
    report.warning(Invalid::new(code::DUPLICATE_OBJECT, "metadata.name", message, "remove one of the two"));
    report.finish()
}

#[cfg(test)]
mod tests;
