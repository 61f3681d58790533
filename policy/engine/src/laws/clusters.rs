//! Random small clusters: few names, labels and addresses, so that things meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    build::{address, admin, baseline, block, cluster, domain, network_policy, pod, rule},
    model::{
        Action, Labels, NamespaceScope, Operator, Peer, Phase, Pod, Policy, PortMatch, Protocol, Requirement, Selector,
        Snapshot, Subject, Tier,
    },
};

pub(super) const NODE: &str = "n1";

/// Pods', nodes', Services', named, in a pod range and far ones.
pub(super) const ADDRESSES: &[&str] = &[
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.0.5",
    "10.0.0.6",
    "10.0.0.9",
    "10.0.1.1",
    "fd00::1",
    "fd00::2",
    "fd00::3",
    "fd00::9",
    "192.168.0.1",
    "192.168.0.2",
    "fd01::1",
    "10.96.0.1",
    "203.0.113.7",
    "203.0.113.8",
    "2001:db8::1",
];

/// Blocks that policies name.
const BLOCKS: &[&str] = &[
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.0/30",
    "10.0.0.2/32",
    "10.0.0.2/31",
    "fd00::/16",
    "fd00::2/127",
    "192.168.0.0/24",
    "203.0.113.7/32",
    "::ffff:10.0.0.0/120",
    "10.96.0.0/16",
];

const PORT_NAMES: &[&str] = &["web", "dns"];

pub(super) const PORTS: &[Option<u16>] =
    &[None, Some(0), Some(1), Some(53), Some(79), Some(80), Some(81), Some(90), Some(65535)];

pub(super) const PROTOCOLS: &[Protocol] = &[Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP];

pub(super) fn labels() -> impl Strategy<Value = Labels> {
    let value = option::of(select(&["a", "b", "c"][..]));
    (value.clone(), value).prop_map(|(app, tier)| {
        let pairs = [("app", app), ("tier", tier)].into_iter();
        pairs.filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
    })
}

pub(super) fn selector() -> impl Strategy<Value = Selector> {
    let values = vec(select(&["a", "b", "c"][..]), 0..3)
        .prop_map(|values| values.into_iter().map(str::to_owned).collect::<BTreeSet<_>>());
    let operator = prop_oneof![
        4 => values.clone().prop_map(Operator::In),
        1 => values.prop_map(Operator::NotIn),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ];
    let requirement = (select(&["app", "tier"][..]), operator)
        .prop_map(|(key, operator)| Requirement { key: key.to_owned(), operator });
    vec(requirement, 0..2).prop_map(|mut requirements| {
        requirements.sort();
        Selector { requirements }
    })
}

pub(super) fn scope() -> impl Strategy<Value = NamespaceScope> {
    prop_oneof![
        select(&["x", "y", "z"][..]).prop_map(|name| NamespaceScope::Named(name.to_owned())),
        selector().prop_map(NamespaceScope::Selected),
    ]
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        4 => (scope(), selector()).prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods }),
        3 => (select(BLOCKS), vec(select(BLOCKS), 0..2)).prop_map(|(cidr, except)| Peer::Block {
            cidr: block(cidr),
            except: except.into_iter().map(block).collect(),
        }),
        1 => selector().prop_map(Peer::Nodes),
        1 => select(&["www.example.org", "api.example.org", "*.example.org"][..]).prop_map(domain),
    ]
}

fn with_ports() -> impl Strategy<Value = Protocol> + Clone {
    select(&Protocol::WITH_PORTS[..])
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let number = select(&[1u16, 53, 80, 81, 90, 65535][..]);
    prop_oneof![
        1 => with_ports().prop_map(PortMatch::Protocol),
        3 => (with_ports(), number.clone(), number).prop_map(|(protocol, a, b)| {
            PortMatch::Range { protocol, first: a.min(b), last: a.max(b) }
        }),
        2 => (option::of(with_ports()), select(PORT_NAMES))
            .prop_map(|(protocol, name)| PortMatch::Named { protocol, name: name.to_owned() }),
    ]
}

type RuleParts = (bool, Action, Option<Vec<Peer>>, Option<Vec<PortMatch>>, bool);

fn rule_parts() -> impl Strategy<Value = RuleParts> {
    (
        any::<bool>(),
        select(&[Action::Accept, Action::Deny, Action::Pass][..]),
        option::weighted(0.8, vec(peer(), 0..3)),
        option::weighted(0.5, vec(port_match(), 0..3)),
        prop::bool::weighted(0.05),
    )
}

/// A policy without a name of its own yet.
pub(super) fn policy() -> impl Strategy<Value = Policy> {
    let tier = select(&[Tier::Admin, Tier::NetworkPolicy, Tier::NetworkPolicy, Tier::Baseline][..]);
    let rules = vec(rule_parts(), 0..4);
    (
        tier,
        select(&["x", "y"][..]),
        0..3i32,
        scope(),
        selector(),
        rules,
        any::<(bool, bool)>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(tier, namespace, priority, scope, pods, rules, isolates, audit)| {
            let mut built = match tier {
                Tier::Admin => admin("p", priority),
                Tier::Baseline => baseline("p", priority),
                Tier::NetworkPolicy => network_policy(&format!("{namespace}/p")),
            };
            for (egress, action, peers, ports, fault) in rules {
                let action = if tier == Tier::NetworkPolicy { Action::Accept } else { action };
                let mut next = rule(action);
                next = peers.iter().flatten().cloned().fold(next, |next, peer| next.peer(peer));
                next = ports.iter().flatten().cloned().fold(next, |next, port| next.port(port));
                if fault {
                    next = next.fault("not understood");
                }
                built = if egress { built.egress(next) } else { built.ingress(next) };
            }
            if tier == Tier::NetworkPolicy {
                built = if isolates.0 { built.isolate_ingress() } else { built };
                built = if isolates.1 { built.isolate_egress() } else { built };
            }
            let mut policy = if audit { built.audit() } else { built }.finish();
            policy.subject = match tier {
                Tier::NetworkPolicy => Subject { namespaces: NamespaceScope::Named(namespace.to_owned()), pods },
                Tier::Admin | Tier::Baseline => Subject { namespaces: scope, pods },
            };
            policy
        })
}

pub(super) fn one_pod() -> impl Strategy<Value = Pod> {
    let phase = prop_oneof![8 => Just(Phase::Running), 1 => Just(Phase::Succeeded), 1 => Just(Phase::Pending)];
    let ports = vec((select(PORT_NAMES), with_ports(), select(&[53u16, 80, 8080][..])), 0..3);
    let v4 = option::weighted(0.9, select(&ADDRESSES[..6]));
    let v6 = option::weighted(0.5, select(&ADDRESSES[8..11]));
    (
        select(&["x", "y", "z"][..]),
        labels(),
        v4,
        v6,
        select(&["n1", "n1", "n2"][..]),
        phase,
        ports,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(namespace, labels, v4, v6, node, phase, ports, host, leaving)| {
            let at: Vec<&str> = v4.into_iter().chain(v6).collect();
            let mut built = pod(&format!("{namespace}/p")).at(&at).on(node).phase(phase);
            for (name, protocol, port) in ports {
                built = built.port(name, protocol, port);
            }
            let mut pod = if host { built.host_network() } else { built }.finish();
            (pod.labels, pod.terminating) = (labels, leaving);
            pod
        })
}

/// One cluster.
pub(super) fn snapshot() -> impl Strategy<Value = Snapshot> {
    let namespaces = vec((labels(), prop::bool::weighted(0.1)), 2..=3);
    let name =
        option::of((select(&["www.example.org", "api.example.org"][..]), select(&["203.0.113.7", "10.0.0.1"][..])));
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.05));
    (namespaces, vec(one_pod(), 1..7), vec(policy(), 0..7), labels(), name, flags).prop_map(
        |(namespaces, pods, policies, node_labels, name, (range, service, audit_all))| {
            let mut built = cluster()
                .node("n1", &["192.168.0.1", "fd01::1"], &[("app", "a")])
                .node("n2", &["192.168.0.2"], &[])
                .name("example.org", &["203.0.113.8"]);
            if let Some((name, known)) = name {
                built = built.name(name, &[known]);
            }
            if range {
                built = built.pod_range("10.0.0.0/24").pod_range("fd00::/64");
            }
            if service {
                built = built.service("x/s", &["10.96.0.1"]);
            }
            let mut snapshot = built.snapshot();
            snapshot.audit_all = audit_all;
            if let Some(node) = snapshot.nodes.get_mut("n2") {
                Arc::make_mut(node).labels = node_labels;
            }
            for (name, (labels, audit)) in ["x", "y", "z"].into_iter().zip(namespaces) {
                let namespace = crate::model::Namespace { name: name.to_owned(), uid: String::new(), labels, audit };
                snapshot.namespaces.insert(name.to_owned(), Arc::new(namespace));
            }
            for (at, pod) in pods.into_iter().enumerate() {
                let name = format!("p{at}");
                let pod = Pod { uid: format!("uid-{name}"), name, ..pod };
                snapshot.pods.insert(pod.key(), Arc::new(pod));
            }
            for (at, policy) in policies.into_iter().enumerate() {
                put(&mut snapshot, Policy { uid: format!("uid-{at}"), ..renamed(policy, &format!("p{at}")) });
            }
            snapshot
        },
    )
}

pub(super) fn renamed(mut policy: Policy, name: &str) -> Policy {
    policy.key.name = name.to_owned();
    policy
}

pub(super) fn put(snapshot: &mut Snapshot, policy: Policy) {
    snapshot.policies.insert(policy.key.clone(), Arc::new(policy));
}

/// A second cluster that shares some objects with the first: for each object, whether it is taken from the other.
pub(super) fn mixed(from: &Snapshot, to: &Snapshot, take: u64) -> Snapshot {
    let mut bits = (0..64).cycle().map(|bit| take >> bit & 1 == 1);
    let mut next = move || bits.next().unwrap_or(false);
    Snapshot {
        namespaces: mix(&from.namespaces, &to.namespaces, &mut next),
        pods: mix(&from.pods, &to.pods, &mut next),
        nodes: mix(&from.nodes, &to.nodes, &mut next),
        services: mix(&from.services, &to.services, &mut next),
        policies: mix(&from.policies, &to.policies, &mut next),
        names: if next() { to.names.clone() } else { from.names.clone() },
        pod_ranges: if next() { to.pod_ranges.clone() } else { from.pod_ranges.clone() },
        audit_all: if next() { to.audit_all } else { from.audit_all },
    }
}

fn mix<K: Ord + Clone, V: Clone>(
    from: &BTreeMap<K, V>,
    to: &BTreeMap<K, V>,
    mut take: impl FnMut() -> bool,
) -> BTreeMap<K, V> {
    let keys: BTreeSet<&K> = from.keys().chain(to.keys()).collect();
    let chosen = keys.into_iter().filter_map(|key| {
        let side = if take() { to } else { from };
        side.get(key).map(|value| (key.clone(), value.clone()))
    });
    chosen.collect()
}

pub(super) fn addresses() -> impl Iterator<Item = IpAddr> {
    ADDRESSES.iter().map(|text| address(text))
}

pub(super) fn local_pods(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Pod>> {
    snapshot.pods.values().filter(|pod| pod.node == NODE && pod.takes_part())
}
