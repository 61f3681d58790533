//! Builders that read like the domain, for tests and benches of this and other crates.
//!
//! They take literals and panic on text that does not parse; manifests are read by `netverdict-manifest`.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::{
    evaluate::{End, Family, Flow},
    model::{
        Action, ContainerPort, Direction, Isolates, Labels, NamePattern, Namespace, NamespaceScope, Node, ObjectKey,
        Peer, Phase, Pod, Policy, PolicyKey, PortMatch, Protocol, Requirement, Rule, Selector, Service, Snapshot,
        Subject, Tier,
    },
};

type Pair<'a> = (&'a str, &'a str);

/// `namespace/name`, or a name alone for objects without a namespace.
pub fn key(text: &str) -> ObjectKey {
    match text.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::new("", text),
    }
}

/// A snapshot under construction.
#[derive(Clone, Debug, Default)]
pub struct Cluster(Snapshot);

pub fn cluster() -> Cluster {
    Cluster::default()
}

impl Cluster {
    #[must_use]
    pub fn namespace(mut self, name: &str, labels: &[Pair<'_>]) -> Self {
        let namespace =
            Namespace { name: name.into(), uid: format!("uid-{name}"), labels: to_labels(labels), audit: false };
        self.0.namespaces.insert(name.into(), Arc::new(namespace));
        self
    }

    /// Labels it `netverdict.io/mode: audit`.
    #[must_use]
    pub fn audited_namespace(mut self, name: &str, labels: &[Pair<'_>]) -> Self {
        self = self.namespace(name, labels);
        Arc::make_mut(self.0.namespaces.get_mut(name).expect("just put")).audit = true;
        self
    }

    #[must_use]
    pub fn pod(mut self, pod: PodBuilder) -> Self {
        self.0.pods.insert(pod.0.key(), Arc::new(pod.0));
        self
    }

    #[must_use]
    pub fn node(mut self, name: &str, addresses: &[&str], labels: &[Pair<'_>]) -> Self {
        let node = Node {
            name: name.into(),
            uid: format!("uid-{name}"),
            labels: to_labels(labels),
            addresses: addresses.iter().map(|a| address(a)).collect(),
            pod_ranges: Vec::new(),
        };
        self.0.nodes.insert(name.into(), Arc::new(node));
        self
    }

    #[must_use]
    pub fn service(mut self, name: &str, addresses: &[&str]) -> Self {
        let ObjectKey { namespace, name } = key(name);
        let addresses = addresses.iter().map(|a| address(a)).collect();
        let service = Service { namespace, name, addresses, ..Service::default() };
        self.0.services.insert(ObjectKey::new(&service.namespace, &service.name), Arc::new(service));
        self
    }

    #[must_use]
    pub fn policy(mut self, policy: PolicyBuilder) -> Self {
        let policy = policy.finish();
        self.0.policies.insert(policy.key.clone(), Arc::new(policy));
        self
    }

    #[must_use]
    pub fn name(mut self, name: &str, addresses: &[&str]) -> Self {
        self.0.names.insert(name.into(), addresses.iter().map(|a| address(a)).collect());
        self
    }

    #[must_use]
    pub fn pod_range(mut self, range: &str) -> Self {
        self.0.pod_ranges.insert(block(range));
        self
    }

    #[must_use]
    pub fn audit_all(mut self) -> Self {
        self.0.audit_all = true;
        self
    }

    pub fn snapshot(self) -> Snapshot {
        self.0
    }
}

#[derive(Clone, Debug)]
pub struct PodBuilder(Pod);

/// A running pod without labels and addresses.
pub fn pod(name: &str) -> PodBuilder {
    let ObjectKey { namespace, name } = key(name);
    PodBuilder(Pod { uid: format!("uid-{namespace}-{name}"), namespace, name, phase: Phase::Running, ..Pod::default() })
}

impl PodBuilder {
    #[must_use]
    pub fn labels(mut self, labels: &[Pair<'_>]) -> Self {
        self.0.labels = to_labels(labels);
        self
    }

    #[must_use]
    pub fn at(mut self, addresses: &[&str]) -> Self {
        self.0.addresses = addresses.iter().map(|a| address(a)).collect();
        self
    }

    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.0.node = node.into();
        self
    }

    #[must_use]
    pub fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.0.container_ports.push(ContainerPort { name: name.into(), port, protocol });
        self
    }

    #[must_use]
    pub fn phase(mut self, phase: Phase) -> Self {
        self.0.phase = phase;
        self
    }

    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.0.host_network = true;
        self
    }

    #[must_use]
    pub fn cgroup_uid(mut self, uid: &str) -> Self {
        uid.clone_into(&mut self.0.cgroup_uid);
        self
    }

    /// In seconds since 1970.
    #[must_use]
    pub fn lived(mut self, started: i64, ended: Option<i64>) -> Self {
        (self.0.started, self.0.ended) = (Some(started), ended);
        self
    }

    #[must_use]
    pub fn terminating(mut self) -> Self {
        self.0.terminating = true;
        self
    }

    pub fn finish(self) -> Pod {
        self.0
    }
}

#[derive(Clone, Debug)]
pub struct PolicyBuilder(Policy);

/// Selects all pods of its namespace; isolates and allows nothing yet.
pub fn network_policy(name: &str) -> PolicyBuilder {
    let namespace = key(name).namespace;
    builder("NetworkPolicy", name, Tier::NetworkPolicy, 0).subject(NamespaceScope::Named(namespace), &[])
}

/// Selects all pods of all namespaces.
pub fn admin(name: &str, priority: i32) -> PolicyBuilder {
    builder("ClusterNetworkPolicy", name, Tier::Admin, priority)
}

/// Selects all pods of all namespaces.
pub fn baseline(name: &str, priority: i32) -> PolicyBuilder {
    builder("ClusterNetworkPolicy", name, Tier::Baseline, priority)
}

fn builder(kind: &str, name: &str, tier: Tier, priority: i32) -> PolicyBuilder {
    let ObjectKey { namespace, name } = key(name);
    PolicyBuilder(Policy {
        uid: format!("uid-{kind}-{namespace}-{name}"),
        key: PolicyKey { kind: kind.into(), namespace, name },
        generation: 1,
        content_hash: String::new(),
        tier,
        priority,
        audit: false,
        subject: Subject { namespaces: NamespaceScope::Selected(Selector::default()), pods: Selector::default() },
        isolates: Isolates::default(),
        rules: Vec::new(),
    })
}

impl PolicyBuilder {
    #[must_use]
    pub fn subject(mut self, namespaces: NamespaceScope, pods: &[Pair<'_>]) -> Self {
        self.0.subject = Subject { namespaces, pods: labelled(pods) };
        self
    }

    /// Pods with these labels in the namespaces that it selected before.
    #[must_use]
    pub fn select(mut self, pods: &[Pair<'_>]) -> Self {
        self.0.subject.pods = labelled(pods);
        self
    }

    #[must_use]
    pub fn isolate_ingress(mut self) -> Self {
        self.0.isolates.ingress = true;
        self
    }

    #[must_use]
    pub fn isolate_egress(mut self) -> Self {
        self.0.isolates.egress = true;
        self
    }

    /// A network policy isolates the direction, too.
    #[must_use]
    pub fn ingress(mut self, rule: RuleBuilder) -> Self {
        self.0.isolates.ingress |= self.0.tier == Tier::NetworkPolicy;
        self.push(Direction::Ingress, rule)
    }

    /// A network policy isolates the direction, too.
    #[must_use]
    pub fn egress(mut self, rule: RuleBuilder) -> Self {
        self.0.isolates.egress |= self.0.tier == Tier::NetworkPolicy;
        self.push(Direction::Egress, rule)
    }

    fn push(mut self, direction: Direction, rule: RuleBuilder) -> Self {
        let before = self.0.rules.iter().filter(|rule| rule.direction == direction).count();
        let index = u32::try_from(before).expect("fewer than 2^32 rules");
        self.0.rules.push(Rule { direction, index, ..rule.0 });
        self
    }

    #[must_use]
    pub fn audit(mut self) -> Self {
        self.0.audit = true;
        self
    }

    /// With a hash of its content.
    pub fn finish(mut self) -> Policy {
        self.0.content_hash.clear();
        let digest = Sha256::digest(format!("{:?}", self.0));
        self.0.content_hash = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0
    }
}

#[derive(Clone, Debug)]
pub struct RuleBuilder(Rule);

/// Any peer, any port.
pub fn accept() -> RuleBuilder {
    rule(Action::Accept)
}

pub fn deny() -> RuleBuilder {
    rule(Action::Deny)
}

pub fn pass() -> RuleBuilder {
    rule(Action::Pass)
}

pub fn rule(action: Action) -> RuleBuilder {
    let name = String::new();
    RuleBuilder(Rule { direction: Direction::Ingress, index: 0, name, action, peers: None, ports: None, fault: None })
}

impl RuleBuilder {
    /// One more peer.
    #[must_use]
    pub fn peer(mut self, peer: Peer) -> Self {
        self.0.peers.get_or_insert_default().push(peer);
        self
    }

    /// One more port.
    #[must_use]
    pub fn port(mut self, port: PortMatch) -> Self {
        self.0.ports.get_or_insert_default().push(port);
        self
    }

    #[must_use]
    pub fn fault(mut self, fault: &str) -> Self {
        self.0.fault = Some(fault.into());
        self
    }

    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.0.name = name.into();
        self
    }
}

/// Pods with these labels in the one namespace.
pub fn pods_in(namespace: &str, pods: &[Pair<'_>]) -> Peer {
    Peer::Pods { namespaces: NamespaceScope::Named(namespace.into()), pods: labelled(pods) }
}

/// Pods with these labels in namespaces with those.
pub fn pods(namespaces: &[Pair<'_>], pods: &[Pair<'_>]) -> Peer {
    Peer::Pods { namespaces: NamespaceScope::Selected(labelled(namespaces)), pods: labelled(pods) }
}

pub fn net(cidr: &str, except: &[&str]) -> Peer {
    Peer::Block { cidr: block(cidr), except: except.iter().map(|e| block(e)).collect() }
}

pub fn nodes(labels: &[Pair<'_>]) -> Peer {
    Peer::Nodes(labelled(labels))
}

/// `*.suffix` or an exact name.
pub fn domain(name: &str) -> Peer {
    Peer::Name(match name.strip_prefix("*.") {
        Some(suffix) => NamePattern::Suffix(suffix.into()),
        None => NamePattern::Exact(name.into()),
    })
}

pub fn tcp(port: u16) -> PortMatch {
    range(Protocol::TCP, port, port)
}

pub fn range(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch::Range { protocol, first, last }
}

pub fn port_named(protocol: Protocol, name: &str) -> PortMatch {
    PortMatch::Named { protocol: Some(protocol), name: name.into() }
}

/// `x/a -> y/b:80/tcp`, ends being pods or addresses (IPv6 in brackets); `/udp`, `/sctp`, or `/icmp` without a port.
pub fn flow(text: &str) -> Flow {
    let (source, rest) = text.split_once(" -> ").expect("source -> destination");
    let (rest, protocol) = rest.rsplit_once('/').expect("a protocol at the end");
    let protocol = match protocol {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        "sctp" => Protocol::SCTP,
        "icmp" => Protocol::ICMP,
        other => panic!("tcp, udp, sctp or icmp, not {other}"),
    };
    let port = rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    let (destination, port) = match port {
        Some((destination, port)) => (destination, Some(port.parse().expect("a port"))),
        None => (rest, None),
    };
    Flow { source: end(source), destination: end(destination), protocol, port, family: Family::V4 }
}

/// A pod's `namespace/name`, or an address.
pub fn end(text: &str) -> End {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_or_else(|_| End::Pod(key(text)), End::Address)
}

/// Labels that must all be there.
pub fn labelled(labels: &[Pair<'_>]) -> Selector {
    let mut requirements: Vec<Requirement> = labels
        .iter()
        .map(|(key, value)| Requirement {
            key: (*key).into(),
            operator: crate::model::Operator::In(BTreeSet::from([(*value).into()])),
        })
        .collect();
    requirements.sort();
    Selector { requirements }
}

fn to_labels(labels: &[Pair<'_>]) -> Labels {
    labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text} is no address: {error}"))
}

/// A block, or an address as a block of its own.
pub fn block(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(address(text)))
}
