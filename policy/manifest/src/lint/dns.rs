//! Pods that an egress policy leaves without DNS: the first thing that breaks, and seldom what was meant.
//!
//! A pod is cut off where network policies isolate it for egress and none of their rules can match port 53 of a
//! name server. Where the reading knows no name server, every peer may be one.

use std::collections::{BTreeMap, BTreeSet};

use netverdict_policy::model::{Direction, ObjectKey, Peer, Pod, Policy, PortMatch, Protocol, Rule, Tier};

use super::{Lint, remark};
use crate::{
    finding::{Report, code},
    selector::matches,
};

const PORT: u16 = 53;

/// How clusters label their name servers.
const NAME_SERVER_LABELS: [(&str, &str); 3] =
    [("k8s-app", "kube-dns"), ("k8s-app", "coredns"), ("app.kubernetes.io/name", "coredns")];

/// Which of the two a pod, or a policy, can ask by.
#[derive(Clone, Copy, Default)]
struct Reach {
    udp: bool,
    tcp: bool,
}

/// What is known of DNS in a reading.
pub(super) struct Names<'a> {
    servers: Vec<&'a Pod>,
    /// Isolating policies by namespace: those that count.
    policies: BTreeMap<&'a str, Vec<(&'a Policy, Reach)>>,
    /// Pods that cannot ask by UDP, and those that cannot by TCP.
    without_udp: BTreeSet<ObjectKey>,
    without_tcp: BTreeSet<ObjectKey>,
}

impl<'a> Names<'a> {
    pub(super) fn of(lint: &Lint<'a>) -> Self {
        let is_server =
            |pod: &&Pod| NAME_SERVER_LABELS.iter().any(|(key, value)| pod.labels.get(*key).is_some_and(|v| v == value));
        let servers: Vec<&Pod> = lint.population.pods().filter(is_server).collect();
        let mut names =
            Self { servers, policies: BTreeMap::new(), without_udp: BTreeSet::new(), without_tcp: BTreeSet::new() };
        for policy in lint.snapshot.policies.values() {
            if policy.tier == Tier::NetworkPolicy && policy.isolates.egress && !lint.is_audited(policy) {
                let reach = names.reach(lint, policy);
                names.policies.entry(&policy.key.namespace).or_default().push((policy, reach));
            }
        }
        for pod in lint.population.pods() {
            let Some(policies) = names.policies.get(pod.namespace.as_str()) else { continue };
            let mut selecting =
                policies.iter().filter(|(policy, _)| matches(&policy.subject.pods, &pod.labels)).peekable();
            if selecting.peek().is_none() {
                continue;
            }
            let reach = union(selecting.map(|(_, reach)| *reach));
            if !reach.udp {
                names.without_udp.insert(pod.key());
            }
            if !reach.tcp {
                names.without_tcp.insert(pod.key());
            }
        }
        names
    }

    pub(super) fn check(&self, lint: &Lint<'_>, policy: &Policy, report: &mut Report) {
        let isolating = self.policies.get(policy.key.namespace.as_str()).into_iter().flatten();
        if !isolating.clone().any(|(other, _)| other.key == policy.key) {
            return;
        }
        let (udp, tcp) = if lint.population.is_empty() {
            // Without pods: what the policies say that select at least the same ones.
            let wider = isolating.filter(|(other, _)| {
                other.subject.pods == policy.subject.pods || other.subject.pods.requirements.is_empty()
            });
            let reach = union(wider.map(|(_, reach)| *reach));
            ((!reach.udp).then(|| "the pods".to_owned()), (!reach.tcp).then(|| "the pods".to_owned()))
        } else {
            let pods: Vec<ObjectKey> =
                lint.population.select(&policy.subject.namespaces, &policy.subject.pods).map(Pod::key).collect();
            (some_of(&pods, &self.without_udp), some_of(&pods, &self.without_tcp))
        };
        match (udp, tcp) {
            (Some(pods), _) => {
                let message = format!("no rule of any policy lets {pods} ask for names: port 53 is closed");
                let remedy = "add an egress rule for UDP and TCP port 53 to the name servers";
                report.warning(remark(code::DNS_CUT_OFF, "spec.egress", message, remedy));
            }
            (None, Some(pods)) => {
                let message = format!("{pods} may ask for names by UDP alone: answers that do not fit a datagram fail");
                report.info(remark(code::DNS_CUT_OFF, "spec.egress", message, "add TCP port 53 to the rule"));
            }
            (None, None) => {}
        }
    }

    fn reach(&self, lint: &Lint<'_>, policy: &Policy) -> Reach {
        let egress = policy.rules.iter().filter(|rule| rule.direction == Direction::Egress && rule.fault.is_none());
        let to_servers: Vec<&Rule> = egress.filter(|rule| self.may_name_a_server(lint, rule)).collect();
        let by = |protocol: Protocol| to_servers.iter().any(|rule| self.names_port(rule, protocol));
        Reach { udp: by(Protocol::UDP), tcp: by(Protocol::TCP) }
    }

    fn may_name_a_server(&self, lint: &Lint<'_>, rule: &Rule) -> bool {
        let Some(peers) = &rule.peers else { return true };
        peers.iter().any(|peer| match peer {
            Peer::Pods { .. } if self.servers.is_empty() => true,
            Peer::Pods { namespaces, pods } => {
                let scope = lint.population.namespaces(namespaces);
                let selected = |pod: &&Pod| scope.contains(pod.namespace.as_str()) && matches(pods, &pod.labels);
                self.servers.iter().any(selected)
            }
            // A node's own cache, or a server outside.
            Peer::Block { .. } | Peer::Nodes(_) | Peer::Name(_) => true,
        })
    }

    fn names_port(&self, rule: &Rule, protocol: Protocol) -> bool {
        let Some(ports) = &rule.ports else { return true };
        ports.iter().any(|port| match port {
            PortMatch::Protocol(this) => *this == protocol,
            PortMatch::Range { protocol: this, first, last } => *this == protocol && (*first..=*last).contains(&PORT),
            PortMatch::Named { protocol: this, name } => {
                let has = |pod: &&Pod| {
                    pod.container_ports
                        .iter()
                        .any(|port| port.name == *name && port.protocol == protocol && port.port == PORT)
                };
                this.is_none_or(|this| this == protocol) && (self.servers.is_empty() || self.servers.iter().any(has))
            }
        })
    }
}

fn union(all: impl Iterator<Item = Reach>) -> Reach {
    all.fold(Reach::default(), |sum, reach| Reach { udp: sum.udp || reach.udp, tcp: sum.tcp || reach.tcp })
}

/// For the message: how many, and one of them.
fn some_of(pods: &[ObjectKey], without: &BTreeSet<ObjectKey>) -> Option<String> {
    let cut: Vec<&ObjectKey> = pods.iter().filter(|pod| without.contains(pod)).collect();
    match cut.as_slice() {
        [] => None,
        [pod] => Some(format!("the pod {pod}")),
        [first, rest @ ..] => Some(format!("the pod {first} and {} others", rest.len())),
    }
}
