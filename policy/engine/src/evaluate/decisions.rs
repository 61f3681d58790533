//! Decisions that no rule makes, and which policies count only for the record.

use super::tiers::Conclusion;
use crate::{
    decision::{Decision, Reason, Verdict},
    model::{Policy, Snapshot},
};

/// Whether a policy is audited, so that its verdicts are only recorded: by itself, by its namespace, or with the whole
/// node.
pub(crate) fn audited(snapshot: &Snapshot, policy: &Policy) -> bool {
    snapshot.audit_all
        || policy.audit
        || snapshot.namespaces.get(&policy.key.namespace).is_some_and(|namespace| namespace.audit)
}

/// No policy can deny a pod's traffic to itself (E-8, C-13).
pub(crate) fn self_traffic() -> Decision {
    Conclusion::plain(Verdict::Allowed, Reason::SelfTraffic).with_staged(None)
}

/// The backend of a Service is not known at the source.
pub(crate) fn service_not_resolved() -> Decision {
    Conclusion::plain(Verdict::Unknown, Reason::ServiceNotResolved).with_staged(None)
}

/// The address of an end is not known, and the decision depends on it.
pub(super) fn unknown_endpoint() -> Decision {
    Conclusion::plain(Verdict::Unknown, Reason::UnknownEndpoint).with_staged(None)
}
