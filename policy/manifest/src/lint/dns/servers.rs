//! Whether a rule matches the cluster's name servers.

use netverdict_policy::model::{Peer, Pod, PortMatch, Protocol, Rule};

use crate::{lint::context::Lint, selector::matches};

const PORT: u16 = 53;

/// How clusters label their name servers.
const LABELS: [(&str, &str); 3] =
    [("k8s-app", "kube-dns"), ("k8s-app", "coredns"), ("app.kubernetes.io/name", "coredns")];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    No,
    /// It matches some of them, or a peer that may be a server.
    Maybe,
    /// It matches all of them.
    Certain,
}

/// The known name servers.
pub(super) struct Servers<'a> {
    pods: Vec<&'a Pod>,
}

impl<'a> Servers<'a> {
    pub(super) fn of(lint: &Lint<'a>) -> Self {
        let labelled =
            |pod: &&Pod| LABELS.iter().any(|(key, value)| pod.labels.get(*key).is_some_and(|found| found == value));
        Self { pods: lint.pods.iter().filter(labelled).collect() }
    }

    /// Whether the rule matches queries, for each of these protocols.
    pub(super) fn match_rule<const N: usize>(&self, lint: &Lint<'_>, rule: &Rule, by: [Protocol; N]) -> [Match; N] {
        let peers = best(rule.peers.as_deref(), |peer| self.is_peer(lint, peer));
        by.map(|protocol| peers.min(best(rule.ports.as_deref(), |port| self.is_port(port, protocol))))
    }

    fn is_peer(&self, lint: &Lint<'_>, peer: &Peer) -> Match {
        match peer {
            Peer::Pods { namespaces, pods } if self.pods.is_empty() => {
                if namespaces.is_everything() && pods.is_everything() { Match::Certain } else { Match::Maybe }
            }
            Peer::Pods { namespaces, pods } => {
                let scope = lint.pods.namespaces(namespaces);
                self.how_many(|pod| scope.contains(pod.namespace.as_str()) && matches(pods, &pod.labels))
            }
            Peer::Block { cidr, except } if cidr.prefix_len() == 0 && except.is_empty() => Match::Certain,
            // A node's own cache, or a server outside.
            Peer::Block { .. } | Peer::Nodes(_) | Peer::Name(_) => Match::Maybe,
        }
    }

    fn is_port(&self, port: &PortMatch, asked_by: Protocol) -> Match {
        let certain = match port {
            PortMatch::Protocol(protocol) => *protocol == asked_by,
            PortMatch::Range { protocol, first, last } => *protocol == asked_by && (*first..=*last).contains(&PORT),
            PortMatch::Named { protocol, .. } if protocol.is_some_and(|protocol| protocol != asked_by) => false,
            PortMatch::Named { .. } if self.pods.is_empty() => return Match::Maybe,
            PortMatch::Named { name, .. } => {
                return self.how_many(|pod| {
                    let mut ports = pod.container_ports.iter();
                    ports.any(|port| port.name == *name && port.protocol == asked_by && port.port == PORT)
                });
            }
        };
        if certain { Match::Certain } else { Match::No }
    }

    fn how_many(&self, is_meant: impl Fn(&Pod) -> bool) -> Match {
        match self.pods.iter().filter(|pod| is_meant(pod)).count() {
            0 => Match::No,
            all if all == self.pods.len() => Match::Certain,
            _ => Match::Maybe,
        }
    }
}

/// `None` matches everything, an empty list nothing.
fn best<T>(terms: Option<&[T]>, found: impl Fn(&T) -> Match) -> Match {
    terms.map_or(Match::Certain, |terms| terms.iter().map(found).max().unwrap_or(Match::No))
}
