//! Named ports that no pod has: a rule with such a port silently matches nothing.

use netverdict_policy::model::{Direction, Peer, Pod, Policy, PortMatch, Protocol, Rule};

use super::context::Lint;
use crate::finding::{Invalid, Report, code};

pub(super) fn check(lint: &Lint<'_>, policy: &Policy, report: &mut Report) {
    for rule in &policy.rules {
        for (position, port) in rule.ports.iter().flatten().enumerate() {
            if let PortMatch::Named { protocol, name } = port
                && let Some(message) = nowhere(&owners(lint, policy, rule), name, *protocol)
            {
                let remedy = "give the container's port that name and protocol, or write the number";
                report.warning(Invalid::new(
                    code::NAMED_PORT_NOWHERE,
                    lint.port_path(policy, rule, position),
                    message,
                    remedy,
                ));
            }
        }
    }
}

/// The pods in which the name is resolved: those of the destination (E-2).
fn owners<'a>(lint: &Lint<'a>, policy: &Policy, rule: &Rule) -> Vec<&'a Pod> {
    match (rule.direction, &rule.peers) {
        (Direction::Ingress, _) => lint.pods.select(&policy.subject.namespaces, &policy.subject.pods).collect(),
        (Direction::Egress, None) => lint.pods.iter().collect(),
        (Direction::Egress, Some(peers)) => {
            let pods = peers.iter().filter_map(|peer| match peer {
                Peer::Pods { namespaces, pods } => Some(lint.pods.select(namespaces, pods)),
                Peer::Block { .. } | Peer::Nodes(_) | Peer::Name(_) => None,
            });
            pods.flatten().collect()
        }
    }
}

/// The message. `None` where a pod has the port, or there are no pods.
fn nowhere(pods: &[&Pod], name: &str, protocol: Option<Protocol>) -> Option<String> {
    let named = || pods.iter().flat_map(|pod| &pod.container_ports).filter(|port| port.name == name);
    if pods.is_empty() || named().any(|port| protocol.is_none_or(|protocol| port.protocol == protocol)) {
        return None;
    }
    Some(match (named().next(), protocol) {
        (Some(other), Some(protocol)) => {
            format!("the port {name} of these pods is {}, but the rule names {protocol}", other.protocol)
        }
        (Some(_), None) | (None, _) => format!("none of the {} pods has a port named {name}", pods.len()),
    })
}
