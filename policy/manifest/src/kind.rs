//! [`Object`] to the model: finds the reader of an object by its kind. Each kind has a file of its own.
//!
//! A new policy kind is a file with an implementation of [`PolicyKind`], its `mod` line here and its line in [`KINDS`].

mod admin_network_policy;
mod baseline_admin_network_policy;
mod cluster_network_policy;
mod mode;
mod namespace;
mod network_policy;
mod node;
mod ordered;
mod pod;
mod policy_kind;
mod port;
mod rule;
mod service;

use netverdict_policy::model::Policy;

use crate::{
    fields::{is_misspelling, quoted},
    finding::{Finding, Invalid, Report, code},
    label,
    object::{Object, group_of},
};

pub use namespace::namespace;
pub use node::node;
pub use pod::pod;
pub use policy_kind::{Layout, PolicyKind, Scope};
pub use service::service;

pub(crate) use namespace::{NAME_LABEL, implied};

/// Every kind of policy that is read.
pub static KINDS: &[&dyn PolicyKind] = &[
    &network_policy::NetworkPolicy,
    &cluster_network_policy::ClusterNetworkPolicy,
    &admin_network_policy::AdminNetworkPolicy,
    &baseline_admin_network_policy::BaselineAdminNetworkPolicy,
];

/// Every kind that is read, as (apiVersions, kind), for requests to a cluster. All versions of a kind are of one
/// group, so a cluster that serves several has the same objects in each: one of them is enough.
pub fn kinds_read() -> impl Iterator<Item = (&'static [&'static str], &'static str)> {
    let core = ["Namespace", "Node", "Pod", "Service"].into_iter().map(|kind| (["v1"].as_slice(), kind));
    core.chain(KINDS.iter().map(|kind| (kind.api_versions(), kind.kind())))
}

/// The [`Layout`] of a policy kind, or `None` for kinds that are not read.
pub(crate) fn layout(kind: &str) -> Option<&'static Layout> {
    KINDS.iter().find(|known| known.kind() == kind).map(|known| known.layout())
}

/// Treatment of an object by its kind.
pub(crate) enum Class {
    Namespace,
    Node,
    Pod,
    Service,
    Policy(&'static dyn PolicyKind),
    /// A policy kind of a version that we do not read.
    OtherVersion(&'static dyn PolicyKind),
    /// An unknown kind that is spelt nearly like a policy kind.
    Misspelt(&'static dyn PolicyKind),
    /// An unknown kind of a group that holds policies, for instance of a later version.
    UnreadPolicy,
    /// A policy of another system, which may deny flows that the policies here allow.
    Foreign,
    Other,
}

/// The group of the admin and baseline tiers. All its kinds are policies.
const POLICY_GROUP: &str = "policy.networking.k8s.io";

/// The group of NetworkPolicy, and its kinds that are not policies.
const NETWORK_POLICY_GROUP: &str = "networking.k8s.io";
const ITS_OTHER_KINDS: &[&str] = &["ClusterCIDR", "IPAddress", "Ingress", "IngressClass", "ServiceCIDR"];

/// Policy kinds of other systems whose names do not end in `NetworkPolicy`.
const FOREIGN_KINDS: &[(&str, &[&str])] = &[
    ("security.istio.io", &["AuthorizationPolicy", "PeerAuthentication"]),
    ("policy.linkerd.io", &["AuthorizationPolicy", "Server", "ServerAuthorization"]),
    ("kuma.io", &["MeshTrafficPermission"]),
    ("consul.hashicorp.com", &["ServiceIntentions"]),
];

/// Whether a group is reserved for Kubernetes: those without a dot (NetworkPolicy began in `extensions`) and those below
/// `k8s.io`. A kind that is read here and has another reserved group has the wrong apiVersion.
fn of_kubernetes(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io")
}

pub(crate) fn classify(api_version: &str, kind: &str) -> Class {
    match (api_version, kind) {
        ("v1", "Namespace") => return Class::Namespace,
        ("v1", "Node") => return Class::Node,
        ("v1", "Pod") => return Class::Pod,
        ("v1", "Service") => return Class::Service,
        _ => {}
    }
    let group = group_of(api_version);
    let mut of_kind = KINDS.iter().filter(|known| known.kind() == kind).peekable();
    if let Some(first) = of_kind.peek().copied() {
        let in_group = of_kind.find(|known| known.api_versions().iter().any(|read| group_of(read) == group));
        return match in_group {
            Some(policy) if policy.api_versions().contains(&api_version) => Class::Policy(*policy),
            Some(policy) => Class::OtherVersion(*policy),
            None if of_kubernetes(group) => Class::OtherVersion(*first),
            None => Class::Foreign,
        };
    }
    if let Some(policy) = misspelt(group, kind) {
        return Class::Misspelt(policy);
    }
    let foreign = kind.ends_with("NetworkPolicy") && !of_kubernetes(group);
    if foreign || FOREIGN_KINDS.iter().any(|(of, kinds)| *of == group && kinds.contains(&kind)) {
        return Class::Foreign;
    }
    let holds_policies = group == POLICY_GROUP || (group == NETWORK_POLICY_GROUP && !ITS_OTHER_KINDS.contains(&kind));
    if holds_policies { Class::UnreadPolicy } else { Class::Other }
}

/// The policy kind that is probably meant: a kind with the same letters and digits (`Network Policy`) or, in the groups of
/// Kubernetes, whose kinds are all known, a kind with a few letters of difference.
fn misspelt(group: &str, kind: &str) -> Option<&'static dyn PolicyKind> {
    let letters =
        |kind: &str| kind.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let is_meant = |known: &&&dyn PolicyKind| {
        letters(known.kind()) == letters(kind) || (of_kubernetes(group) && is_misspelling(kind, known.kind()))
    };
    KINDS.iter().find(is_meant).copied()
}

/// `None` for unknown kinds.
pub(crate) fn scope(api_version: &str, kind: &str) -> Option<Scope> {
    match classify(api_version, kind) {
        Class::Namespace | Class::Node => Some(Scope::Cluster),
        Class::Pod | Class::Service => Some(Scope::Namespace),
        Class::Policy(kind) | Class::OtherVersion(kind) | Class::Misspelt(kind) => Some(kind.scope()),
        Class::UnreadPolicy | Class::Foreign | Class::Other => None,
    }
}

/// Reads one policy object. `None`, with a finding that says why, where it is none or cannot be enforced.
pub fn policy(object: &Object) -> (Option<Policy>, Vec<Finding>) {
    let mut report = object.report();
    let policy = match classify(&object.api_version, &object.kind) {
        Class::Policy(kind) => {
            check_frame(object, &mut report);
            kind.read(object, &mut report)
        }
        Class::OtherVersion(kind) => {
            report.error(other_version(object, kind));
            None
        }
        Class::Misspelt(kind) => {
            let message = format!("expected a kind, found {}; the object is not enforced", quoted(&object.kind));
            report.error(Invalid::new(code::INVALID_KIND, "kind", message, format!("write {}", kind.kind())));
            // Reports the other errors in it, too.
            kind.read(object, &mut report);
            None
        }
        Class::UnreadPolicy => {
            report.error(unread_policy(object));
            None
        }
        Class::Foreign => {
            report.warning(foreign(object));
            None
        }
        Class::Namespace | Class::Node | Class::Pod | Class::Service | Class::Other => {
            report.info(unknown_kind(object));
            None
        }
    };
    (policy, report.finish())
}

fn other_version(object: &Object, kind: &dyn PolicyKind) -> Invalid {
    let (found, read) = (quoted(&object.api_version), kind.api_versions().join(" or "));
    let message = format!("expected {read}, found {found}; the object is not enforced");
    let remedy = format!("write the policy as {} of {read}", kind.kind());
    Invalid::new(code::UNKNOWN_VERSION, "apiVersion", message, remedy)
}

fn unread_policy(object: &Object) -> Invalid {
    let group = group_of(&object.api_version);
    let of_group = |kind: &&&dyn PolicyKind| kind.api_versions().iter().any(|read| group_of(read) == group);
    let kinds: Vec<_> = KINDS.iter().filter(of_group).map(|kind| kind.kind()).collect();
    let found = quoted(&object.kind);
    let message = format!("expected a kind of {group} that is read here, found {found}; the object is not enforced");
    Invalid::new(code::INVALID_KIND, "kind", message, format!("write {}", kinds.join(" or ")))
}

fn foreign(object: &Object) -> Invalid {
    let (version, kind) = (&object.api_version, &object.kind);
    let message = format!("{version} {kind} is a policy of another system, which is not evaluated here");
    let remedy = "ask that system too: it may deny what is allowed here";
    Invalid::new(code::FOREIGN_POLICY, "kind", message, remedy)
}

/// For objects of other kinds.
fn unknown_kind(object: &Object) -> Invalid {
    let message = format!("{} {} is not a network policy and is ignored", object.api_version, object.kind);
    Invalid::new(code::UNKNOWN_KIND, "kind", message, "nothing to do, unless you expect it to be enforced")
}

/// Checks the name, and the fields beside `spec`. An unknown one has no effect; mostly it belongs into `spec` and is indented too
/// little.
fn check_frame(object: &Object, report: &mut Report) {
    if !label::is_subdomain(&object.name) {
        let message = format!("an API server does not take the name {}", quoted(&object.name));
        let remedy = "use lower-case letters, digits, '-' and '.', with a letter or digit at both ends";
        report.warning(Invalid::new(code::INVALID_NAME, "metadata.name", message, remedy));
    }
    let Ok(mut fields) = object.fields() else { return };
    for known in ["apiVersion", "kind", "metadata", "spec", "status"] {
        fields.field(known);
    }
    if let Err(invalid) = fields.finish() {
        let message = format!("{} beside spec; it has no effect", invalid.message);
        report.error(Invalid { message, ..*invalid });
    }
}

#[cfg(test)]
mod tests;
