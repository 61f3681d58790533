//! The columns of the change logs: policies, endpoints, namespaces, services.

use std::{net::IpAddr, sync::LazyLock};

use super::{Column, nested, number_from};
use crate::row::{ChangeHead, EndpointChangeRow, NamespaceRow, PolicyRow, ServiceRow};

trait Change: 'static {
    fn head(&self) -> &ChangeHead;
}

macro_rules! changes {
    ($($row:ty),+) => {
        $(impl Change for $row {
            fn head(&self) -> &ChangeHead {
                &self.head
            }
        })+
    };
}
changes!(PolicyRow, EndpointChangeRow, NamespaceRow, ServiceRow);

/// What every change log starts with, then what is its own.
fn log<R: Change>(own: impl IntoIterator<Item = Column<R>>) -> Vec<Column<R>> {
    let head = [
        Column::word("change", "put or delete", |r: &R| r.head().change.as_str()),
        Column::time("time", "when it came into force on this node", |r| r.head().time),
        Column::number("revision", "number of the snapshot that the change made", |r| number_from(r.head().revision)),
        Column::word("node", "node that recorded it", |r| &r.head().node),
        Column::word("boot_id", "boot of the node, as the kernel names it", |r| &r.head().boot_id),
    ];
    head.into_iter().chain(own).collect()
}

pub(super) static POLICIES: LazyLock<Vec<Column<PolicyRow>>> = LazyLock::new(|| {
    type C = Column<PolicyRow>;
    log([
        C::text("api_version", "of the object", |r| &r.api_version),
        C::text("kind", "Kubernetes kind", |r| &r.kind),
        C::text("namespace", "null for cluster-scoped kinds", |r| &r.namespace),
        C::text("name", "of the object", |r| &r.name),
        C::text("uid", "of the object, or made from kind, namespace and name", |r| &r.uid),
        C::number("generation", "of the object, or a count of changes of the hash", |r| r.generation),
        C::text("resource_version", "of the object", |r| &r.resource_version),
        C::text("content_hash", "SHA-256 of what matters in the object", |r| &r.content_hash),
        C::long_text("text", "the whole object as YAML; null on delete", |r| &r.text).weighing(|r| r.text.len()),
        C::text("author", "who changed it last, where known", |r| &r.author),
        C::text("origin", "where it was read from: a file's name, or api", |r| &r.origin),
    ])
});

pub(super) static ENDPOINTS: LazyLock<Vec<Column<EndpointChangeRow>>> = LazyLock::new(|| {
    type C = Column<EndpointChangeRow>;
    log([
        C::word("kind", "pod or node", |r| r.kind.as_str()),
        C::text("namespace", "null for nodes", |r| &r.namespace),
        C::text("name", "of the pod or node", |r| &r.name),
        C::text("uid", "of the pod or node", |r| &r.uid),
        C::number("owner_id", "as the kernel knows it, within this boot", |r| i64::from(r.owner_id)),
        C::map("labels", "of the pod or node", |r| &r.labels).weighing(|r| nested::map_weight(&r.labels)),
        addresses("addresses", "canonical text", |r| &r.addresses),
        C::text("node_name", "the pod's node; a node's own name", |r| &r.node_name),
        C::flag("host_network", "the pod shares the node's network", |r| r.host_network),
        C::text("container_ports", "JSON list of name, port, protocol", |r| &r.container_ports),
        C::text("service_account", "of the pod", |r| &r.service_account),
        C::text("workload_kind", "kind of the controller that owns the pod", |r| &r.workload_kind),
        C::text("workload", "name of the controller that owns the pod", |r| &r.workload),
        C::text("phase", "of the pod", |r| &r.phase),
        C::flag("terminating", "the pod is being deleted", |r| r.terminating),
        C::new(
            "pod_ranges",
            "nodes: ranges from which their pods get addresses",
            nested::texts(),
            false,
            Box::new(|rows| nested::fill_texts(rows.iter().map(|r| r.pod_ranges.clone()))),
        ),
    ])
});

pub(super) static NAMESPACES: LazyLock<Vec<Column<NamespaceRow>>> = LazyLock::new(|| {
    type C = Column<NamespaceRow>;
    log([
        C::text("name", "of the namespace", |r| &r.name),
        C::text("uid", "of the namespace", |r| &r.uid),
        C::map("labels", "of the namespace", |r| &r.labels).weighing(|r| nested::map_weight(&r.labels)),
        C::flag("audit", "every policy of the namespace is audited", |r| r.audit),
    ])
});

pub(super) static SERVICES: LazyLock<Vec<Column<ServiceRow>>> = LazyLock::new(|| {
    type C = Column<ServiceRow>;
    log([
        C::text("namespace", "of the Service", |r| &r.namespace),
        C::text("name", "of the Service", |r| &r.name),
        C::text("uid", "of the Service", |r| &r.uid),
        addresses("addresses", "cluster, external and load-balancer addresses", |r| &r.addresses),
        C::text("ports", "JSON list of name, port, target port, protocol", |r| &r.ports),
        C::map("selector", "labels of the pods behind it", |r| &r.selector)
            .weighing(|r| nested::map_weight(&r.selector)),
    ])
});

fn addresses<R>(name: &str, doc: &str, get: for<'a> fn(&'a R) -> &'a [IpAddr]) -> Column<R> {
    let fill = move |rows: &[&R]| {
        let texts = |row: &&R| get(row).iter().map(IpAddr::to_string).collect();
        nested::fill_texts(rows.iter().map(texts))
    };
    Column::new(name, doc, nested::texts(), false, Box::new(fill))
}
