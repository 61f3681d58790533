//! `v1` Namespace to the model: labels, and whether its policies are audited.

use netverdict_policy::model::Namespace;

use super::mode::is_audited;
use crate::{finding::Finding, object::Object};

/// Kubernetes sets this label on every namespace and protects it (N-12).
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Reads a Namespace.
pub fn namespace(object: &Object) -> (Option<Namespace>, Vec<Finding>) {
    let mut report = object.report();
    let mut namespace = implied(&object.name);
    namespace.uid = object.uid.clone();
    for (key, value) in object.metadata_map("labels").filter(|(key, _)| *key != NAME_LABEL) {
        namespace.labels.insert(key.to_owned(), value.to_owned());
    }
    namespace.audit = is_audited(object, &mut report);
    (Some(namespace), report.finish())
}

/// A namespace of which only the name is known.
pub(crate) fn implied(name: &str) -> Namespace {
    let labels = [(NAME_LABEL.to_owned(), name.to_owned())].into();
    Namespace { name: name.to_owned(), labels, ..Namespace::default() }
}
