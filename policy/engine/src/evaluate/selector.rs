//! Label queries, and which pods a pair of queries selects.

use std::borrow::Cow;

use crate::model::{Labels, NamespaceScope, Operator, Pod, Requirement, Selector, Snapshot};

/// On every namespace, and immutable (N-12).
pub(crate) const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Whether all requirements hold.
pub(crate) fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements.iter().all(|requirement| holds(requirement, labels))
}

/// `NotIn` and `DoesNotExist` hold for labels that lack the key (N-11).
pub(crate) fn holds(requirement: &Requirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    match &requirement.operator {
        Operator::In(values) => value.is_some_and(|value| values.contains(value)),
        Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
    }
}

/// Whether a pod that takes part is selected.
pub(crate) fn selects(snapshot: &Snapshot, namespaces: &NamespaceScope, pods: &Selector, pod: &Pod) -> bool {
    pod.takes_part() && in_scope(snapshot, namespaces, &pod.namespace) && matches(pods, &pod.labels)
}

pub(crate) fn in_scope(snapshot: &Snapshot, scope: &NamespaceScope, namespace: &str) -> bool {
    match scope {
        NamespaceScope::Named(name) => name == namespace,
        NamespaceScope::Selected(selector) => matches(selector, &namespace_labels(snapshot, namespace)),
    }
}

/// Labels of a namespace; if the snapshot does not hold it, the label that every namespace has.
pub(crate) fn namespace_labels<'a>(snapshot: &'a Snapshot, name: &str) -> Cow<'a, Labels> {
    match snapshot.namespaces.get(name) {
        Some(namespace) if namespace.labels.contains_key(NAMESPACE_NAME_LABEL) => Cow::Borrowed(&namespace.labels),
        known => {
            let mut labels = known.map(|namespace| namespace.labels.clone()).unwrap_or_default();
            labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
            Cow::Owned(labels)
        }
    }
}
