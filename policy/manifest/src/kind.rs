//! The kinds that are read, and how an object finds its reader. One file per kind.
//!
//! A further policy kind is a file with an implementation of [`PolicyKind`] and a line in [`KINDS`].

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

/// Every kind that is read, as (apiVersions, kind): what has to be asked of a cluster. All versions of a kind are of one
/// group, so a cluster that serves several has the same objects in each: one of them is enough.
pub fn kinds_read() -> impl Iterator<Item = (&'static [&'static str], &'static str)> {
    let core = ["Namespace", "Node", "Pod", "Service"].into_iter().map(|kind| (["v1"].as_slice(), kind));
    core.chain(KINDS.iter().map(|kind| (kind.api_versions(), kind.kind())))
}

/// Where policies of a kind write what the model holds. `None` for kinds that are not read.
pub(crate) fn layout(kind: &str) -> Option<&'static Layout> {
    KINDS.iter().find(|known| known.kind() == kind).map(|known| known.layout())
}

/// What an object is to us.
pub(crate) enum Known {
    Namespace,
    Node,
    Pod,
    Service,
    Policy(&'static dyn PolicyKind),
    /// A policy kind of a version that we do not read.
    OtherVersion(&'static dyn PolicyKind),
    /// Not a kind that anybody has, and nearly a policy kind.
    Misspelt(&'static dyn PolicyKind),
    /// Of a group that holds policies, and none that we know: a later version's, or a kind that nobody has.
    UnreadPolicy,
    /// A policy of another system, which decides beside ours.
    Foreign,
    Other,
}

/// Holds nothing but policies.
const POLICY_GROUP: &str = "policy.networking.k8s.io";

/// Holds these as well.
const NETWORK_POLICY_GROUP: &str = "networking.k8s.io";
const ITS_OTHER_KINDS: &[&str] = &["ClusterCIDR", "IPAddress", "Ingress", "IngressClass", "ServiceCIDR"];

/// Kinds of other systems that decide who may connect, beyond those that end in `NetworkPolicy`.
const FOREIGN_KINDS: &[(&str, &[&str])] = &[
    ("security.istio.io", &["AuthorizationPolicy", "PeerAuthentication"]),
    ("policy.linkerd.io", &["AuthorizationPolicy", "Server", "ServerAuthorization"]),
    ("kuma.io", &["MeshTrafficPermission"]),
    ("consul.hashicorp.com", &["ServiceIntentions"]),
];

/// Groups that Kubernetes keeps to itself: those without a dot, `extensions` among them where NetworkPolicy began, and
/// those of `k8s.io`. A policy kind of ours in another of them is ours, with the wrong apiVersion.
fn of_kubernetes(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io")
}

pub(crate) fn known(api_version: &str, kind: &str) -> Known {
    match (api_version, kind) {
        ("v1", "Namespace") => return Known::Namespace,
        ("v1", "Node") => return Known::Node,
        ("v1", "Pod") => return Known::Pod,
        ("v1", "Service") => return Known::Service,
        _ => {}
    }
    let group = group_of(api_version);
    if let Some(policy) = KINDS.iter().find(|known| known.kind() == kind) {
        let ours = policy.api_versions();
        return match group {
            _ if ours.contains(&api_version) => Known::Policy(*policy),
            _ if of_kubernetes(group) => Known::OtherVersion(*policy),
            _ => Known::Foreign,
        };
    }
    if let Some(policy) = misspelt(group, kind) {
        return Known::Misspelt(policy);
    }
    let foreign = kind.ends_with("NetworkPolicy") && !of_kubernetes(group);
    if foreign || FOREIGN_KINDS.iter().any(|(of, kinds)| *of == group && kinds.contains(&kind)) {
        return Known::Foreign;
    }
    let holds_policies = group == POLICY_GROUP || (group == NETWORK_POLICY_GROUP && !ITS_OTHER_KINDS.contains(&kind));
    if holds_policies { Known::UnreadPolicy } else { Known::Other }
}

/// The policy kind that is meant, where a kind differs from it in case or in what is no letter (`Network Policy`). In the
/// groups of Kubernetes, whose kinds are all known, a few wrong letters are a misspelling, too.
fn misspelt(group: &str, kind: &str) -> Option<&'static dyn PolicyKind> {
    let letters =
        |kind: &str| kind.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let is_meant = |known: &&&dyn PolicyKind| {
        letters(known.kind()) == letters(kind) || (of_kubernetes(group) && is_misspelling(kind, known.kind()))
    };
    KINDS.iter().find(is_meant).copied()
}

/// `None` for kinds that we do not know: only the text can say then.
pub(crate) fn scope(api_version: &str, kind: &str) -> Option<Scope> {
    match known(api_version, kind) {
        Known::Namespace | Known::Node => Some(Scope::Cluster),
        Known::Pod | Known::Service => Some(Scope::Namespace),
        Known::Policy(kind) | Known::OtherVersion(kind) | Known::Misspelt(kind) => Some(kind.scope()),
        Known::UnreadPolicy | Known::Foreign | Known::Other => None,
    }
}

/// Reads one policy object. `None`, with a finding that says why, where it is none or cannot be enforced.
pub fn policy(object: &Object) -> (Option<Policy>, Vec<Finding>) {
    let mut report = object.report();
    let policy = match known(&object.api_version, &object.kind) {
        Known::Policy(kind) => {
            check_frame(object, &mut report);
            kind.read(object, &mut report)
        }
        Known::OtherVersion(kind) => {
            report.error(other_version(object, kind));
            None
        }
        Known::Misspelt(kind) => {
            let message = format!("{} is no kind; the object is not enforced", quoted(&object.kind));
            report.error(Invalid::new(code::INVALID_KIND, "kind", message, format!("write {}", kind.kind())));
            // What else is wrong in it is worth saying; it is not enforced for all that.
            kind.read(object, &mut report);
            None
        }
        Known::UnreadPolicy => {
            report.error(unread_policy(object));
            None
        }
        Known::Foreign => {
            report.warning(foreign(object));
            None
        }
        Known::Namespace | Known::Node | Known::Pod | Known::Service | Known::Other => {
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
    let message = format!("{found} is no kind of {group} that is read here; the object is not enforced");
    Invalid::new(code::INVALID_KIND, "kind", message, format!("write {}", kinds.join(" or ")))
}

fn foreign(object: &Object) -> Invalid {
    let (version, kind) = (&object.api_version, &object.kind);
    let message = format!("{version} {kind} is a policy of another system, which is not evaluated here");
    let remedy = "ask that system too: it may deny what is allowed here";
    Invalid::new(code::FOREIGN_POLICY, "kind", message, remedy)
}

/// For objects that say nothing about network policy.
fn unknown_kind(object: &Object) -> Invalid {
    let message = format!("{} {} says nothing about network policy here", object.api_version, object.kind);
    Invalid::new(code::UNKNOWN_KIND, "kind", message, "nothing, unless it is a policy that you expect to count")
}

/// What stands around the specification. A field beside it counts for nothing, and mostly is a part of the specification
/// that is indented too little.
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
        let message = format!("{} beside spec; it counts for nothing", invalid.message);
        report.error(Invalid { message, ..*invalid });
    }
}

#[cfg(test)]
mod tests;
