//! Whether a rule means the cluster's name servers.

use netverdict_policy::model::{NamespaceScope, Peer, Pod, PortMatch, Protocol, Rule};

use super::super::Lint;
use crate::selector::matches;

const PORT: u16 = 53;

/// How clusters label their name servers.
const LABELS: [(&str, &str); 3] =
    [("k8s-app", "kube-dns"), ("k8s-app", "coredns"), ("app.kubernetes.io/name", "coredns")];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chance {
    No,
    /// It means some of them, or what may be one.
    Maybe,
    /// It means all of them.
    Certain,
}

/// The name servers that a reading knows.
pub(super) struct Servers<'a> {
    pods: Vec<&'a Pod>,
}

impl<'a> Servers<'a> {
    pub(super) fn of(lint: &Lint<'a>) -> Self {
        let labelled =
            |pod: &&Pod| LABELS.iter().any(|(key, value)| pod.labels.get(*key).is_some_and(|found| found == value));
        Self { pods: lint.population.pods().filter(labelled).collect() }
    }

    /// Whether the rule matches questions by this protocol.
    pub(super) fn chance(&self, lint: &Lint<'_>, rule: &Rule, protocol: Protocol) -> Chance {
        let peers = best(rule.peers.as_deref(), |peer| self.is_peer(lint, peer));
        let ports = best(rule.ports.as_deref(), |port| self.is_port(port, protocol));
        peers.min(ports)
    }

    fn is_peer(&self, lint: &Lint<'_>, peer: &Peer) -> Chance {
        match peer {
            Peer::Pods { namespaces, pods } if self.pods.is_empty() => {
                let every_namespace =
                    matches!(namespaces, NamespaceScope::Selected(all) if all.requirements.is_empty());
                let certain = every_namespace && pods.requirements.is_empty();
                if certain { Chance::Certain } else { Chance::Maybe }
            }
            Peer::Pods { namespaces, pods } => {
                let scope = lint.population.namespaces(namespaces);
                self.how_many(|pod| scope.contains(pod.namespace.as_str()) && matches(pods, &pod.labels))
            }
            Peer::Block { cidr, except } if cidr.prefix_len() == 0 && except.is_empty() => Chance::Certain,
            // A node's own cache, or a server outside.
            Peer::Block { .. } | Peer::Nodes(_) | Peer::Name(_) => Chance::Maybe,
        }
    }

    fn is_port(&self, port: &PortMatch, asked_by: Protocol) -> Chance {
        let certain = match port {
            PortMatch::Protocol(protocol) => *protocol == asked_by,
            PortMatch::Range { protocol, first, last } => *protocol == asked_by && (*first..=*last).contains(&PORT),
            PortMatch::Named { protocol, .. } if protocol.is_some_and(|protocol| protocol != asked_by) => false,
            PortMatch::Named { .. } if self.pods.is_empty() => return Chance::Maybe,
            PortMatch::Named { name, .. } => {
                return self.how_many(|pod| {
                    let mut ports = pod.container_ports.iter();
                    ports.any(|port| port.name == *name && port.protocol == asked_by && port.port == PORT)
                });
            }
        };
        if certain { Chance::Certain } else { Chance::No }
    }

    fn how_many(&self, is_meant: impl Fn(&Pod) -> bool) -> Chance {
        match self.pods.iter().filter(|pod| is_meant(pod)).count() {
            0 => Chance::No,
            all if all == self.pods.len() => Chance::Certain,
            _ => Chance::Maybe,
        }
    }
}

/// `None` is everything, an empty list nothing.
fn best<T>(terms: Option<&[T]>, chance: impl Fn(&T) -> Chance) -> Chance {
    terms.map_or(Chance::Certain, |terms| terms.iter().map(chance).max().unwrap_or(Chance::No))
}
