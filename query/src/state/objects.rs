//! Rows of change logs → objects of the engine: one object, as a row has it.

use std::sync::Arc;

use netverdict_flowlog::{
    objects,
    row::{EndpointKind, PolicyRow, Row},
};
use netverdict_policy::{
    ObjectKey, Snapshot,
    model::{Namespace, Node, Pod, Policy, Service},
};

/// An object as the engine takes it. Shared: states that follow each other have most of their objects in common.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    Policy(Arc<Policy>),
    /// Its row cannot be read. It is not judged by: [`Object::problem`] says why.
    Unreadable(Arc<str>),
}

impl Object {
    /// `None` for rows of other tables.
    pub(super) fn of(row: Row) -> Option<Self> {
        Some(match row {
            Row::Namespace(row) => Self::Namespace(Arc::new(objects::namespace(*row))),
            Row::Endpoint(row) if row.kind == EndpointKind::Node => {
                objects::node(*row).map_or_else(unreadable, |node| Self::Node(Arc::new(node)))
            }
            Row::Endpoint(row) => objects::pod(*row).map_or_else(unreadable, |pod| Self::Pod(Arc::new(pod))),
            Row::Service(row) => {
                objects::service(*row).map_or_else(unreadable, |service| Self::Service(Arc::new(service)))
            }
            Row::Policy(row) => match policy(&row) {
                Some(policy) => Self::Policy(Arc::new(policy)),
                None => {
                    let PolicyRow { head, kind, namespace, name, .. } = &*row;
                    let key = ObjectKey::new(namespace, name);
                    Self::Unreadable(
                        format!(
                            "{kind} {key} is unreadable: column text of table policies (node {}, snapshot {}) is no such \
                             policy as YAML",
                            head.node, head.snapshot
                        )
                        .into(),
                    )
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

    /// Why it is not judged by, for people.
    pub(super) fn problem(&self) -> Option<&Arc<str>> {
        match self {
            Self::Unreadable(problem) => Some(problem),
            Self::Namespace(_) | Self::Node(_) | Self::Pod(_) | Self::Service(_) | Self::Policy(_) => None,
        }
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
            Self::Unreadable(_) => {}
        }
    }
}

fn unreadable(error: objects::Unreadable) -> Object {
    Object::Unreadable(error.to_string().into())
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
