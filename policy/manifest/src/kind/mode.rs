//! The annotation by which a policy, or all policies of a namespace, are audited instead of enforced.

use crate::{
    fields::quoted,
    finding::{Invalid, Report, code},
    object::Object,
};

/// `netverdict.io/mode: audit`, on policies and namespaces.
pub(super) const MODE_ANNOTATION: &str = "netverdict.io/mode";

/// Whether the object asks to be audited. A mode that we do not know enforces: it must not switch a policy off.
pub(super) fn is_audited(object: &Object, report: &mut Report) -> bool {
    match object.annotation(MODE_ANNOTATION) {
        None => false,
        Some("audit") => true,
        Some(other) => {
            report.error(Invalid::new(
                code::INVALID_MODE,
                format!("metadata.annotations[{MODE_ANNOTATION:?}]"),
                format!("expected audit, found {}, which counts for nothing", quoted(other)),
                "write audit, or remove the annotation",
            ));
            false
        }
    }
}
