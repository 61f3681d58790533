//! CIDR blocks that contain pods, and addresses with two owners.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use netverdict_policy::model::{Peer, Policy};

use super::context::Lint;
use crate::finding::{Finding, Invalid, ObjectRef, Report, code};

/// Blocks that contain single pods, whose addresses change. A block as wide as a pod range is not reported.
pub(super) fn check(lint: &Lint<'_>, policy: &Policy, report: &mut Report) {
    for rule in &policy.rules {
        for (position, peer) in rule.peers.iter().flatten().enumerate() {
            if let Peer::Block { cidr, .. } = peer
                && let Some(message) = names_pods(lint, *cidr)
            {
                let remedy = "select the pods by their labels: their addresses change";
                report.warning(Invalid::new(
                    code::BLOCK_NAMES_PODS,
                    lint.peer_path(policy, rule, position),
                    message,
                    remedy,
                ));
            }
        }
    }
}

fn names_pods(lint: &Lint<'_>, cidr: IpNet) -> Option<String> {
    if cidr.prefix_len() == cidr.max_prefix_len()
        && let Some(pod) = lint.pods.owner(cidr.addr())
    {
        return Some(format!("{cidr} is the address of the pod {}", pod.key()));
    }
    let range = lint.snapshot.pod_ranges.iter().find(|range| range.contains(&cidr) && **range != cidr)?;
    Some(format!("{cidr} lies in {range}, from which pods get their addresses"))
}

/// Addresses of two pods, or of a pod and a node: flows of one are evaluated as flows of the other.
pub(super) fn duplicates(lint: &Lint<'_>) -> Vec<Finding> {
    let mut owners: BTreeMap<IpAddr, ObjectRef> = BTreeMap::new();
    let nodes = lint.snapshot.nodes.values().map(|node| (object("Node", "", &node.name), &node.addresses));
    let pods = lint.pods.iter().map(|pod| (object("Pod", &pod.namespace, &pod.name), &pod.addresses));
    let mut findings = Vec::new();
    for (owner, addresses) in nodes.chain(pods) {
        for address in addresses {
            let Some(other) = owners.insert(*address, owner.clone()) else { continue };
            if other == owner {
                continue;
            }
            let mut report = Report::about(owner.clone(), None);
            let message = format!("{address} is the address of {other} too");
            let remedy = "remove the object that is out of date";
            report.warning(Invalid::new(code::DUPLICATE_ADDRESS, "status", message, remedy));
            findings.extend(report.finish());
        }
    }
    findings
}

fn object(kind: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { api_version: "v1".into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
}
