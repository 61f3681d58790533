//! The engine's model of a cluster: pods, namespaces, nodes, Services and policies, free of Kubernetes' spelling.
//!
//! Policies of all kinds share one shape, [`Policy`]; a kind is only a way to fill it in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub type Labels = BTreeMap<String, String>;

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// The whole policy state at one moment. Values are shared: a clone with one pod changed costs little.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    #[serde(with = "pairs")]
    pub pods: BTreeMap<ObjectKey, Arc<Pod>>,
    pub nodes: BTreeMap<String, Arc<Node>>,
    #[serde(with = "pairs")]
    pub services: BTreeMap<ObjectKey, Arc<Service>>,
    #[serde(with = "pairs")]
    pub policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// DNS name (lower case, no final dot) → addresses it is known to have.
    pub names: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Ranges from which pods get their addresses. An address in a range that no pod owns is an unknown pod.
    pub pod_ranges: BTreeSet<IpNet>,
    /// Every policy counts as audited: the node as a whole is in audit mode.
    pub audit_all: bool,
}

/// Serializes maps whose keys are no strings as lists of pairs, so that JSON can hold them.
mod pairs {
    use super::{Arc, BTreeMap, Deserialize, Serialize};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, Arc<V>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, Arc<V>>, D::Error> {
        Ok(Vec::<(K, Arc<V>)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    pub name: String,
    pub uid: String,
    pub labels: Labels,
    /// `netverdict.io/mode: audit`: every policy object of this namespace is audited.
    pub audit: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The uid in the paths of its cgroups where it is another: a static pod has the hash of its configuration there, and
    /// `uid` is that of its mirror. Empty for other pods.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup_uid: String,
    pub labels: Labels,
    /// All of `status.podIPs`; empty until the pod has one.
    pub addresses: Vec<IpAddr>,
    /// Empty until the pod is scheduled.
    pub node: String,
    pub host_network: bool,
    /// Of regular containers and restartable init containers; only ports that have a name or a number that a rule can read.
    pub container_ports: Vec<ContainerPort>,
    pub phase: Phase,
    /// `deletionTimestamp` is set; still a subject and a peer until its addresses are released.
    pub terminating: bool,
    pub service_account: String,
    /// The controller at the top of the owner chain as far as the manifests tell.
    pub workload: Option<Workload>,
    /// When its kubelet took it on, in seconds since 1970 by the kubelet's clock. `None` until it has an address: no verdict
    /// depends on it, and it must not be a change of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
    /// When its last container ended, likewise. `None` until the pod has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
}

impl Pod {
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }

    /// Whether policies can select it and peers can be it: not a host-network pod and not finished (E-5, E-14).
    pub fn takes_part(&self) -> bool {
        !self.host_network && !self.finished()
    }

    /// Its containers have ended for good: its address may be another's by now.
    pub fn finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Empty when the port has no name.
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub labels: Labels,
    /// All of `status.addresses` that are addresses, and the node's bridge and gateway addresses where they are known.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_ranges: Vec<IpNet>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Cluster, external and load-balancer addresses.
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    pub selector: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    pub name: String,
    pub port: u16,
    /// A number or a container port's name, as written.
    pub target_port: String,
    pub protocol: Protocol,
}

/// IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Self = Self(1);
    pub const TCP: Self = Self(6);
    pub const UDP: Self = Self(17);
    pub const ICMPV6: Self = Self(58);
    pub const SCTP: Self = Self(132);

    /// The protocols whose ports a rule can name.
    pub const WITH_PORTS: [Self; 3] = [Self::TCP, Self::UDP, Self::SCTP];

    pub fn has_ports(self) -> bool {
        Self::WITH_PORTS.contains(&self)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("ICMP"),
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::ICMPV6 => f.write_str("ICMPv6"),
            Self::SCTP => f.write_str("SCTP"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Egress,
    Ingress,
}

impl Direction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// Which object a policy is. Two kinds may share a namespace and a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyKey {
    /// Kubernetes kind, for instance `NetworkPolicy`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// Order of evaluation: admin, then network policy, then baseline, then the default (allowed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    Admin,
    NetworkPolicy,
    Baseline,
}

impl Tier {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::NetworkPolicy => "network_policy",
            Self::Baseline => "baseline",
        }
    }
}

/// A policy of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub key: PolicyKey,
    /// Of the object, or a UUIDv5 of kind/namespace/name where it has none.
    pub uid: String,
    /// `metadata.generation`, or a count of changes of the hash; 0 where neither is known.
    pub generation: i64,
    /// SHA-256, lower-case hex, of the canonical JSON of the object's relevant fields.
    pub content_hash: String,
    pub tier: Tier,
    /// Order inside an ordered tier, lower first; 0 in the network policy tier, where order means nothing.
    pub priority: i32,
    /// `netverdict.io/mode: audit`: decides nothing; its verdict is recorded as `verdict_if_enforced`.
    pub audit: bool,
    pub subject: Subject,
    /// Whether its subjects are isolated in a direction: only flows that some rule accepts are allowed then. Never in an
    /// ordered tier (C-5).
    pub isolates: Isolates,
    /// In order; `index` counts per direction as the object writes them.
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolates {
    pub egress: bool,
    pub ingress: bool,
}

impl Isolates {
    pub fn in_direction(self, direction: Direction) -> bool {
        match direction {
            Direction::Egress => self.egress,
            Direction::Ingress => self.ingress,
        }
    }
}

/// The pods that a policy selects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    pub namespaces: NamespaceScope,
    pub pods: Selector,
}

/// Which namespaces a pod selector looks into.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceScope {
    /// This one, by name.
    Named(String),
    /// The namespaces whose labels match.
    Selected(Selector),
}

impl NamespaceScope {
    /// Whether it is all namespaces, independently of labels.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Selected(selector) if selector.is_everything())
    }
}

/// A label query. Without requirements it matches everything (which is not the same as no selector).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// All must hold. Sorted, so that equal queries compare equal.
    pub requirements: Vec<Requirement>,
}

impl Selector {
    /// Whether it matches all labels.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
}

/// `NotIn` and `DoesNotExist` match labels that lack the key (N-11).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub direction: Direction,
    /// Position in the object's list of this direction, from 0.
    pub index: u32,
    /// Empty where the kind has no names for rules.
    pub name: String,
    pub action: Action,
    /// `None`: any peer. An empty list matches no peer.
    pub peers: Option<Vec<Peer>>,
    /// `None`: any protocol and port. An empty list matches none.
    pub ports: Option<Vec<PortMatch>>,
    /// Why the rule could not be read whole, if so. Accept then matches nothing (N-13); deny and pass deny everything
    /// (C-9, `FailClosed`).
    pub fault: Option<String>,
}

/// The action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Accept,
    Deny,
    /// Skip the rest of the tier.
    Pass,
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Deny => "deny",
            Self::Pass => "pass",
        }
    }
}

/// The other end as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    Pods {
        namespaces: NamespaceScope,
        pods: Selector,
    },
    /// Matches the packet's address, pods' own included (E-3). `except` subtracts inside this block only.
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
    Nodes(Selector),
    /// Addresses that a name is known to have.
    Name(NamePattern),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamePattern {
    Exact(String),
    /// `*.suffix`: one or more labels before the suffix, never the suffix itself. Held without `*.`.
    Suffix(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortMatch {
    /// Any port of this protocol.
    Protocol(Protocol),
    /// Inclusive; `first` ≤ `last`.
    Range { protocol: Protocol, first: u16, last: u16 },
    /// Resolved on the destination pod. `protocol` `None`: the protocol that the name has there.
    Named { protocol: Option<Protocol>, name: String },
}
