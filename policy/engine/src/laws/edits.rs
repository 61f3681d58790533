//! Random edits of a cluster, as its users and its controllers make them.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::clusters::{ADDRESSES, labels, one_pod, policy, put, renamed, scope, selector};
use crate::{
    build::{PolicyBuilder, RuleBuilder, address, admin, baseline, block, network_policy, pods, rule, tcp},
    model::{Action, ContainerPort, Labels, NamespaceScope, Pod, Policy, Rule, Selector, Snapshot, Subject, Tier},
};

/// Which of several objects, in order: as many as there are, over and over.
type Pick = usize;

#[derive(Clone, Debug)]
pub(super) enum Edit {
    /// Replaces an existing policy, about every other time.
    PutPolicy(Pick, Box<Policy>),
    RemovePolicy(Pick),
    /// Wider or narrower than before.
    Select(Pick, Selector),
    /// Other namespaces; of a network policy nothing changes.
    Scope(Pick, NamespaceScope),
    Rules(Pick, Vec<Rule>),
    Isolate(Pick, bool, bool),
    /// From audit to enforcement or back.
    TogglePolicy(Pick),
    Priority(Pick, i32),
    ToggleNamespace(Pick),
    ToggleAll,
    LabelNamespace(Pick, Labels),
    PutPod(Pick, Box<Pod>),
    RemovePod(Pick),
    LabelPod(Pick, Labels),
    MovePod(Pick, Vec<&'static str>),
    /// The same names may mean other ports.
    NamePorts(Pick, Vec<ContainerPort>),
    /// Keeps addresses of one family only.
    LoseFamily(Pick, bool),
    LabelNode(Pick, Labels),
    /// Known or no more.
    ToggleRange(&'static str),
}

impl Edit {
    pub(super) fn apply(&self, snapshot: &mut Snapshot) {
        let Snapshot { policies, namespaces, pods, nodes, .. } = snapshot;
        match self.clone() {
            Self::PutPolicy(at, policy) => {
                let number = at % (2 * policies.len()).max(8);
                let policy = placed(*policy, &nth(namespaces, at / 64), &format!("p{number}"));
                put(snapshot, policy);
            }
            Self::RemovePolicy(at) => remove(policies, at),
            Self::Select(at, selector) => change(policies, at, |policy| policy.subject.pods = selector),
            Self::Scope(at, scope) => change(policies, at, |policy| match policy.tier {
                Tier::NetworkPolicy => {}
                Tier::Admin | Tier::Baseline => policy.subject.namespaces = scope,
            }),
            Self::Rules(at, mut rules) => change(policies, at, |policy| {
                let of_tier = |rule: &mut Rule| rule.action = Action::Accept;
                if policy.tier == Tier::NetworkPolicy {
                    rules.iter_mut().for_each(of_tier);
                }
                policy.rules = rules;
            }),
            Self::Isolate(at, egress, ingress) => change(policies, at, |policy| {
                if policy.tier == Tier::NetworkPolicy {
                    (policy.isolates.egress, policy.isolates.ingress) = (egress, ingress);
                }
            }),
            Self::TogglePolicy(at) => change(policies, at, |policy| policy.audit = !policy.audit),
            Self::Priority(at, priority) => change(policies, at, |policy| match policy.tier {
                Tier::NetworkPolicy => {}
                Tier::Admin | Tier::Baseline => policy.priority = priority,
            }),
            Self::ToggleNamespace(at) => change(namespaces, at, |namespace| namespace.audit = !namespace.audit),
            Self::ToggleAll => snapshot.audit_all = !snapshot.audit_all,
            Self::LabelNamespace(at, labels) => change(namespaces, at, |namespace| namespace.labels = labels),
            Self::PutPod(at, pod) => {
                let name = format!("p{}", at % 8);
                let pod = Pod { uid: format!("uid-{name}"), name, namespace: nth(namespaces, at / 64), ..*pod };
                pods.insert(pod.key(), Arc::new(pod));
            }
            Self::RemovePod(at) => remove(pods, at),
            Self::LabelPod(at, labels) => change(pods, at, |pod| pod.labels = labels),
            Self::MovePod(at, to) => {
                change(pods, at, |pod| pod.addresses = to.into_iter().map(address).collect());
            }
            Self::NamePorts(at, ports) => change(pods, at, |pod| pod.container_ports = ports),
            Self::LoseFamily(at, v6) => change(pods, at, |pod| pod.addresses.retain(|address| address.is_ipv6() != v6)),
            Self::LabelNode(at, labels) => change(nodes, at, |node| node.labels = labels),
            Self::ToggleRange(range) => {
                let range = block(range);
                if !snapshot.pod_ranges.remove(&range) {
                    snapshot.pod_ranges.insert(range);
                }
            }
        }
    }
}

fn change<K: Ord, V: Clone>(map: &mut BTreeMap<K, Arc<V>>, at: Pick, change: impl FnOnce(&mut V)) {
    let length = map.len().max(1);
    if let Some(value) = map.values_mut().nth(at % length) {
        change(Arc::make_mut(value));
    }
}

fn remove<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, at: Pick) {
    let key = map.keys().nth(at % map.len().max(1)).cloned();
    key.map(|key| map.remove(&key));
}

fn nth<V>(map: &BTreeMap<String, V>, at: Pick) -> String {
    map.keys().nth(at % map.len().max(1)).cloned().unwrap_or_default()
}

/// A policy of this name; a network policy in this namespace.
fn placed(policy: Policy, namespace: &str, name: &str) -> Policy {
    let mut policy = renamed(policy, name);
    if policy.tier == Tier::NetworkPolicy {
        policy.key.namespace = namespace.to_owned();
        policy.subject.namespaces = NamespaceScope::Named(namespace.to_owned());
    }
    policy
}

/// Policies that mean or select many at once.
fn wide_policy() -> impl Strategy<Value = Policy> {
    let network = (select(&["x", "y"][..]), wide_rule(Just(Action::Accept)), any::<(bool, bool)>()).prop_map(
        |(namespace, rule, (egress, isolates))| {
            let built = network_policy(&format!("{namespace}/p"));
            let built = if isolates { built.isolate_ingress().isolate_egress() } else { built };
            with_rule(built, egress, rule)
        },
    );
    let actions = select(&[Action::Accept, Action::Deny, Action::Pass][..]);
    let cluster = (any::<bool>(), 0..3i32, wide_rule(actions), any::<bool>(), option::of(scope())).prop_map(
        |(first, priority, rule, egress, scope)| {
            let built = if first { admin("p", priority) } else { baseline("p", priority) };
            let mut policy = with_rule(built, egress, rule);
            if let Some(namespaces) = scope {
                policy.subject = Subject { namespaces, pods: Selector::default() };
            }
            policy
        },
    );
    prop_oneof![network, cluster]
}

fn wide_rule(action: impl Strategy<Value = Action>) -> impl Strategy<Value = RuleBuilder> {
    let blocks = select(&["0.0.0.0/0", "::/0", "10.0.0.0/24", "10.0.0.0/30", "10.0.0.4/30", "fd00::/16"][..]);
    let peers = prop_oneof![
        Just(Vec::new()),
        Just(vec![pods(&[], &[])]),
        vec(blocks.prop_map(|cidr| crate::model::Peer::Block { cidr: block(cidr), except: Vec::new() }), 1..3),
    ];
    (action, peers, any::<bool>()).prop_map(|(action, peers, port)| {
        let built = peers.into_iter().fold(rule(action), RuleBuilder::peer);
        if port { built.port(tcp(80)) } else { built }
    })
}

fn with_rule(built: PolicyBuilder, egress: bool, rule: RuleBuilder) -> Policy {
    if egress { built.egress(rule) } else { built.ingress(rule) }.finish()
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    let pick = || any::<Pick>();
    let flag = any::<bool>;
    let of_policies = prop_oneof![
        3 => (pick(), wide_policy()).prop_map(|(at, policy)| Edit::PutPolicy(at, Box::new(policy))),
        2 => (pick(), policy()).prop_map(|(at, policy)| Edit::PutPolicy(at, Box::new(policy))),
        3 => pick().prop_map(Edit::RemovePolicy),
        2 => (pick(), selector()).prop_map(|(at, selector)| Edit::Select(at, selector)),
        1 => (pick(), scope()).prop_map(|(at, scope)| Edit::Scope(at, scope)),
        2 => (pick(), policy()).prop_map(|(at, policy)| Edit::Rules(at, policy.rules)),
        1 => (pick(), flag(), flag()).prop_map(|(at, egress, ingress)| Edit::Isolate(at, egress, ingress)),
        1 => pick().prop_map(Edit::TogglePolicy),
        1 => (pick(), 0..4i32).prop_map(|(at, priority)| Edit::Priority(at, priority)),
    ];
    let of_pods = prop_oneof![
        1 => (pick(), one_pod()).prop_map(|(at, pod)| Edit::PutPod(at, Box::new(pod))),
        1 => pick().prop_map(Edit::RemovePod),
        1 => (pick(), labels()).prop_map(|(at, labels)| Edit::LabelPod(at, labels)),
        1 => (pick(), vec(select(&ADDRESSES[..12]), 0..3)).prop_map(|(at, to)| Edit::MovePod(at, to)),
        1 => (pick(), one_pod()).prop_map(|(at, pod)| Edit::NamePorts(at, pod.container_ports)),
        1 => (pick(), flag()).prop_map(|(at, v6)| Edit::LoseFamily(at, v6)),
    ];
    let of_others = prop_oneof![
        4 => (pick(), labels()).prop_map(|(at, labels)| Edit::LabelNamespace(at, labels)),
        1 => pick().prop_map(Edit::ToggleNamespace),
        1 => Just(Edit::ToggleAll),
        1 => (pick(), labels()).prop_map(|(at, labels)| Edit::LabelNode(at, labels)),
        1 => select(&["10.0.0.0/24", "fd00::/64", "10.0.0.0/29"][..]).prop_map(Edit::ToggleRange),
    ];
    prop_oneof![6 => of_policies, 3 => of_pods, 2 => of_others]
}
