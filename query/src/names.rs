//! Names of endpoints and rules, as answers write them.

use netverdict_flowlog::row::{EndpointKind, EndpointRow};
use netverdict_policy::{ObjectKey, Reference};

/// `namespace/pod`, `node/name`, `service/name`, or the address.
pub(crate) fn end_name(end: &EndpointRow, address: &str) -> String {
    match end.kind {
        EndpointKind::Pod if !end.pod.is_empty() => format!("{}/{}", end.namespace, end.pod),
        EndpointKind::Node if !end.node.is_empty() => format!("node/{}", end.node),
        EndpointKind::Service if !end.service.is_empty() => format!("service/{}", end.service),
        _ => address.to_owned(),
    }
}

/// `db/default-deny`, `db/allow-api#0`.
pub(crate) fn reference_name(reference: &Reference) -> String {
    let key = ObjectKey::new(&reference.policy.namespace, &reference.policy.name);
    reference.rule_index.map_or_else(|| key.to_string(), |index| format!("{key}#{index}"))
}
