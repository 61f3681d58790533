//! The annotation `netverdict.io/mode: audit`: a policy, or all policies of a namespace, are audited instead of enforced.

use crate::{
    fields::quoted,
    finding::{Invalid, Report, code},
    object::Object,
};

/// `netverdict.io/mode: audit`, on policies and namespaces.
pub(super) const MODE_ANNOTATION: &str = "netverdict.io/mode";

/// Whether the object is to be audited. An unknown mode does not: a typing error must not switch a policy off.
pub(super) fn is_audited(object: &Object, report: &mut Report) -> bool {
    match object.annotation(MODE_ANNOTATION) {
        None => false,
        Some("audit") => true,
        Some(other) => {
            report.error(Invalid::new(
                code::INVALID_MODE,
                format!("metadata.annotations[{MODE_ANNOTATION:?}]"),
                format!("expected audit, found {}, which has no effect", quoted(other)),
                "write audit, or remove the annotation",
            ));
            false
        }
    }
}
