//! How near the isolating policies came to allowing a flow: per policy the rule that got furthest, and where it failed.

use super::{
    flow::Family,
    peer::{self, Claim, Facts},
    ports,
    question::Question,
    selector,
    tiers::Match,
};
use crate::{
    address,
    decision::{Direction, FailedDimension, NearMiss, Reason},
    model::{
        Action, Labels, NamePattern, NamespaceScope, Operator, Peer, Policy, PortMatch, Protocol, Requirement, Rule,
        Selector, Tier,
    },
};

/// One near miss for each isolating policy. Empty unless they deny the flow for want of a matching rule, as things are or
/// once all audited policies are enforced.
pub(super) fn of(question: &Question<'_>) -> Vec<NearMiss> {
    if question.peer.is(question.subject) || (question.direction == Direction::Egress && question.peer.service) {
        return Vec::new();
    }
    let denies = |policies: &&&Vec<&Policy>| question.evaluate(policies).reason == Reason::IsolatedNoMatch;
    let Some(policies) = [&question.policies, &question.in_force].iter().find(denies).copied() else {
        return Vec::new();
    };
    let claim = denied_claim(question, policies);
    let isolating = policies.iter().filter(|policy| policy.tier == Tier::NetworkPolicy);
    isolating.map(|policy| nearest(question, policy, claim)).collect()
}

/// Of several owners of the peer's address, the first that is denied.
fn denied_claim<'q, 'a>(question: &'q Question<'a>, policies: &[&'a Policy]) -> Option<&'q Claim<'a>> {
    let port = question.port.or_else(|| question.protocol.has_ports().then_some(1));
    let denied = |claim: &Option<&'q Claim<'a>>| {
        question.evaluate_claim(policies, *claim, port).reason == Reason::IsolatedNoMatch
    };
    let first = question.peer.claims().next().flatten();
    question.peer.claims().find(denied).map_or(first, |claim| claim)
}

fn nearest(question: &Question<'_>, policy: &Policy, claim: Option<&Claim<'_>>) -> NearMiss {
    let direction = question.direction;
    let rules = policy.rules.iter().filter(|rule| rule.direction == direction && rule.action == Action::Accept);
    let misses = rules.map(|rule| (Some(rule.index), miss(question, rule, claim)));
    let (rule_index, miss) = furthest(misses, |(_, miss)| miss.passed).unwrap_or_else(|| {
        let detail = format!("the policy has no {} rule", direction.as_str());
        (None, Miss::new(Passed::Nothing, FailedDimension::NoRules, detail))
    });
    NearMiss { policy: policy.key.clone(), rule_index, failed: miss.failed, detail: miss.detail }
}

/// How far a rule got: the dimensions in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Passed {
    Nothing,
    /// The namespace, or the block before its exceptions.
    Namespace,
    Peer,
    Family,
    Protocol,
    All,
}

struct Miss {
    passed: Passed,
    failed: FailedDimension,
    detail: String,
}

impl Miss {
    fn new(passed: Passed, failed: FailedDimension, detail: String) -> Self {
        Self { passed, failed, detail }
    }
}

/// The first of the items that passed most.
fn furthest<T>(items: impl IntoIterator<Item = T>, passed: impl Fn(&T) -> Passed) -> Option<T> {
    items.into_iter().reduce(|best, next| if passed(&next) > passed(&best) { next } else { best })
}

fn miss(question: &Question<'_>, rule: &Rule, claim: Option<&Claim<'_>>) -> Miss {
    if let Some(fault) = &rule.fault {
        return Miss::new(Passed::Nothing, FailedDimension::Fault, fault.clone());
    }
    let peers = rule.peers.as_deref().and_then(|peers| peers_miss(question, peers, claim));
    let ports = || rule.ports.as_deref().and_then(|terms| ports_miss(question, terms, claim));
    peers.or_else(ports).unwrap_or_else(|| {
        // The rule fits this port: a fragment is refused for the sake of the others.
        let detail = "the ports of the fragment are not known, and not all are allowed".to_owned();
        Miss::new(Passed::All, FailedDimension::Port, detail)
    })
}

/// `None` where one of the peers matches.
fn peers_miss(question: &Question<'_>, peers: &[Peer], claim: Option<&Claim<'_>>) -> Option<Miss> {
    let facts = question.peer;
    if peers.iter().any(|term| peer::matches(question.snapshot, term, facts, claim) == Match::Certain) {
        return None;
    }
    let misses = peers.iter().map(|term| peer_miss(question, term, claim));
    Some(furthest(misses, |miss| miss.passed).unwrap_or_else(|| {
        Miss::new(Passed::Nothing, FailedDimension::Peer, "no peer of the rule can match anything".to_owned())
    }))
}

fn peer_miss(question: &Question<'_>, term: &Peer, claim: Option<&Claim<'_>>) -> Miss {
    let facts = question.peer;
    match term {
        Peer::Pods { namespaces, pods } => pods_miss(question, namespaces, pods, claim),
        Peer::Block { cidr, except } => {
            let cidr = address::canonical_block(*cidr);
            let block_family = Family::of(cidr.addr());
            if block_family != facts.family {
                let detail = format!("address is {}, block {cidr} is {}", facts.family.as_str(), block_family.as_str());
                return Miss::new(Passed::Peer, FailedDimension::IpFamily, detail);
            }
            let Some(own) = facts.address else {
                let detail = format!("{} has no {} address", whom(facts, claim), facts.family.as_str());
                return Miss::new(Passed::Nothing, FailedDimension::Peer, detail);
            };
            match except.iter().find(|block| address::holds(**block, own)) {
                Some(except) if address::holds(cidr, own) => {
                    let detail = format!("address {own} is in except {}", address::canonical_block(*except));
                    Miss::new(Passed::Namespace, FailedDimension::IpBlockExcept, detail)
                }
                _ => Miss::new(Passed::Nothing, FailedDimension::Peer, format!("address {own} is not in block {cidr}")),
            }
        }
        Peer::Nodes(labels) => {
            let detail = match claim {
                Some(Claim::Node { name, node: Some(node) }) => {
                    format!("node {name}: {}", label_miss("node", labels, &node.labels))
                }
                Some(Claim::Node { name, node: None }) => format!("node {name} is not known"),
                _ => format!("{} is not a node", whom(facts, claim)),
            };
            Miss::new(Passed::Nothing, FailedDimension::Peer, detail)
        }
        Peer::Name(pattern) => {
            let name = match pattern {
                NamePattern::Exact(name) => name.clone(),
                NamePattern::Suffix(suffix) => format!("*.{suffix}"),
            };
            let detail = format!("{} is not known as an address of {name}", whom(facts, claim));
            Miss::new(Passed::Nothing, FailedDimension::Peer, detail)
        }
    }
}

fn pods_miss(question: &Question<'_>, namespaces: &NamespaceScope, pods: &Selector, claim: Option<&Claim<'_>>) -> Miss {
    let facts = question.peer;
    let peer = FailedDimension::Peer;
    let Some(Claim::Pod(pod)) = claim else {
        let detail = match (claim, facts.unknown_pod) {
            (Some(Claim::Node { name, .. }), _) => format!("{} is node {name}, not a pod", whom(facts, None)),
            (_, true) => format!("{} is in a pod range, but no pod is known to own it", whom(facts, None)),
            (_, false) => format!("{} is not a pod's address", whom(facts, None)),
        };
        return Miss::new(Passed::Nothing, peer, detail);
    };
    let snapshot = question.snapshot;
    if !selector::in_scope(snapshot, namespaces, &pod.namespace) {
        let detail = match namespaces {
            NamespaceScope::Named(name) => format!("namespace {} is not {name}", pod.namespace),
            NamespaceScope::Selected(labels) => {
                let found = selector::namespace_labels(snapshot, &pod.namespace);
                format!("namespace {}: {}", pod.namespace, label_miss("namespace", labels, &found))
            }
        };
        return Miss::new(Passed::Nothing, peer, detail);
    }
    let label = label_miss("pod", pods, &pod.labels);
    let detail = match namespaces {
        NamespaceScope::Named(_) => label,
        NamespaceScope::Selected(_) => format!("namespace {} matches; {label}", pod.namespace),
    };
    Miss::new(Passed::Namespace, peer, detail)
}

/// The first requirement that does not hold, beside the found value.
fn label_miss(what: &str, wanted: &Selector, found: &Labels) -> String {
    let failing = wanted.requirements.iter().find(|requirement| !selector::holds(requirement, found));
    let Some(Requirement { key, operator }) = failing else { return format!("{what} labels match") };
    match (operator, found.get(key)) {
        (Operator::In(values), Some(value)) => {
            format!("{what} label {key}={value} is not {}", choices(key, values))
        }
        (Operator::In(values), None) => format!("{what} has no label {key} (wanted {})", choices(key, values)),
        (Operator::Exists, _) => format!("{what} has no label {key}"),
        (Operator::NotIn(_) | Operator::DoesNotExist, value) => {
            format!("{what} label {key}={} is excluded", value.map_or("", String::as_str))
        }
    }
}

fn choices<'a>(key: &str, values: impl IntoIterator<Item = &'a String>) -> String {
    let choices: Vec<String> = values.into_iter().map(|value| format!("{key}={value}")).collect();
    if choices.is_empty() { format!("any {key}, for none is listed") } else { choices.join(" or ") }
}

fn whom(facts: &Facts<'_>, claim: Option<&Claim<'_>>) -> String {
    match (claim, facts.address) {
        (Some(Claim::Pod(pod)), _) => format!("pod {}", pod.key()),
        (Some(Claim::Node { name, .. }), _) => format!("node {name}"),
        (None, Some(address)) => format!("address {address}"),
        (None, None) => "the peer".to_owned(),
    }
}

/// `None` where one of the ports matches.
fn ports_miss(question: &Question<'_>, terms: &[PortMatch], claim: Option<&Claim<'_>>) -> Option<Miss> {
    let on = question.named_on(claim);
    if terms.iter().any(|term| ports::matches(term, on, question.protocol, question.port) == Match::Certain) {
        return None;
    }
    let misses = terms.iter().map(|term| port_miss(question, term, claim));
    Some(furthest(misses, |miss| miss.passed).unwrap_or_else(|| {
        Miss::new(Passed::Family, FailedDimension::Port, "the rule's list of ports holds none".to_owned())
    }))
}

fn port_miss(question: &Question<'_>, term: &PortMatch, claim: Option<&Claim<'_>>) -> Miss {
    let protocol = question.protocol;
    let own = match term {
        PortMatch::Protocol(own) | PortMatch::Range { protocol: own, .. } => Some(*own),
        PortMatch::Named { protocol: own, .. } => *own,
    };
    if !protocol.has_ports() {
        let wanted = own.map_or_else(|| "a named port".to_owned(), |own| format!("{own} ports"));
        let detail = format!("{protocol} has no ports, the rule names {wanted}");
        return Miss::new(Passed::Family, FailedDimension::Protocol, detail);
    }
    if let Some(own) = own.filter(|own| *own != protocol) {
        return Miss::new(Passed::Family, FailedDimension::Protocol, format!("protocol {protocol} is not {own}"));
    }
    let (failed, detail) = match term {
        PortMatch::Protocol(_) => (FailedDimension::Port, not_among(question, "", &format!("those of {protocol}"))),
        PortMatch::Range { first, last, .. } if first == last => {
            (FailedDimension::Port, not_among(question, "", &first.to_string()))
        }
        PortMatch::Range { first, last, .. } => {
            (FailedDimension::Port, not_among(question, "in ", &format!("{first}-{last}")))
        }
        PortMatch::Named { name, .. } => named_miss(question, name, own, claim),
    };
    Miss::new(Passed::Protocol, failed, detail)
}

/// A flow without a port asks for all of them at once.
fn not_among(question: &Question<'_>, preposition: &str, ports: &str) -> String {
    match question.port {
        Some(port) => format!("port {port} is not {preposition}{ports}"),
        None => format!("all ports are asked for at once, the rule names {ports}"),
    }
}

fn named_miss(
    question: &Question<'_>,
    name: &str,
    own: Option<Protocol>,
    claim: Option<&Claim<'_>>,
) -> (FailedDimension, String) {
    let pod = match (question.direction, claim) {
        (Direction::Ingress, _) => question.subject,
        (Direction::Egress, Some(Claim::Pod(pod))) => pod,
        (Direction::Egress, _) => {
            let why = if question.peer.unknown_pod { "a pod that is not known" } else { "not a pod" };
            let detail = format!("named port {name} is not defined on {}, which is {why}", whom(question.peer, claim));
            return (FailedDimension::NamedPortUnresolved, detail);
        }
    };
    let found: Vec<String> = ports::resolve(&pod.container_ports, name, own)
        .filter(|(protocol, _)| *protocol == question.protocol)
        .map(|(_, port)| port.to_string())
        .collect();
    if found.is_empty() {
        let elsewhere = ports::resolve(&pod.container_ports, name, None)
            .next()
            .map(|(protocol, _)| format!(" for {}, only for {protocol}", question.protocol));
        let detail = format!("named port {name} is not defined on {}{}", pod.key(), elsewhere.unwrap_or_default());
        return (FailedDimension::NamedPortUnresolved, detail);
    }
    (FailedDimension::Port, not_among(question, "", &format!("{} ({name})", found.join(" or "))))
}
