//! Selectors that match nothing.

use netverdict_policy::model::{NamespaceScope, Peer, Policy};

use super::context::{Lint, subject_path};
use crate::{
    finding::{Invalid, Report, code},
    selector::matches,
};

pub(super) fn check(lint: &Lint<'_>, policy: &Policy, report: &mut Report) {
    if !lint.pods.is_empty() && lint.pods.select(&policy.subject.namespaces, &policy.subject.pods).next().is_none() {
        report.warning(Invalid::new(
            code::SELECTS_NOTHING,
            subject_path(policy),
            "the policy selects no pod, so it does nothing",
            "compare the labels with those of the pods that are meant",
        ));
    }
    for rule in &policy.rules {
        for (position, peer) in rule.peers.iter().flatten().enumerate() {
            if let Some(message) = matches_nothing(lint, peer) {
                let remedy = match on_host(lint, peer) {
                    true => {
                        "allow the nodes' addresses by ipBlock: pods on the host's network have these labels, and \
                             no selector matches those"
                    }
                    false => "compare the labels with those of the peers that are meant",
                };
                report.warning(Invalid::new(
                    code::SELECTS_NOTHING,
                    lint.peer_path(policy, rule, position),
                    message,
                    remedy,
                ));
            }
        }
    }
}

fn matches_nothing(lint: &Lint<'_>, peer: &Peer) -> Option<String> {
    match peer {
        Peer::Pods { namespaces, pods } => {
            if lint.pods.is_empty() || lint.pods.select(namespaces, pods).next().is_some() {
                return None;
            }
            Some(match namespaces {
                NamespaceScope::Named(name) => format!("the peer matches no pod of the namespace {name}"),
                NamespaceScope::Selected(_) => match lint.pods.namespaces(namespaces).len() {
                    0 => "the peer matches no namespace".to_owned(),
                    1 => "the peer matches one namespace, and no pod in it".to_owned(),
                    count => format!("the peer matches {count} namespaces, and no pod in them"),
                },
            })
        }
        Peer::Nodes(selector) => {
            let nodes = &lint.snapshot.nodes;
            let none = !nodes.is_empty() && !nodes.values().any(|node| matches(selector, &node.labels));
            none.then(|| "the peer matches no node".to_owned())
        }
        Peer::Block { .. } | Peer::Name(_) => None,
    }
}

/// Whether the labels match pods on the host's network, whose traffic is that of their node (E-5).
fn on_host(lint: &Lint<'_>, peer: &Peer) -> bool {
    match peer {
        Peer::Pods { namespaces, pods } => !lint.pods.select_on_host(namespaces, pods).is_empty(),
        Peer::Nodes(_) | Peer::Block { .. } | Peer::Name(_) => false,
    }
}
