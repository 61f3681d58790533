//! Addresses of pods in blocks, and addresses that two have.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use netverdict_policy::model::{Peer, Policy};

use super::context::{Lint, remark};
use crate::finding::{Finding, ObjectRef, Report, code};

/// Blocks that name pods. A pod has another address tomorrow; a block as wide as a range of pods is another matter.
pub(super) fn check(lint: &Lint<'_>, policy: &Policy, report: &mut Report) {
    for rule in &policy.rules {
        for (position, peer) in rule.peers.iter().flatten().enumerate() {
            if let Peer::Block { cidr, .. } = peer
                && let Some(message) = names_pods(lint, *cidr)
            {
                let remedy = "select the pods by their labels: their addresses change";
                report.warning(remark(code::BLOCK_NAMES_PODS, lint.peer_path(policy, rule, position), message, remedy));
            }
        }
    }
}

fn names_pods(lint: &Lint<'_>, cidr: IpNet) -> Option<String> {
    if cidr.prefix_len() == cidr.max_prefix_len()
        && let Some(pod) = lint.population.owner(cidr.addr())
    {
        return Some(format!("{cidr} is the address of the pod {}", pod.key()));
    }
    let range = lint.snapshot.pod_ranges.iter().find(|range| range.contains(&cidr) && **range != cidr)?;
    Some(format!("{cidr} lies in {range}, from which pods get their addresses"))
}

/// Addresses of two pods, or of a pod and a node: one of them is judged as the other.
pub(super) fn duplicates(lint: &Lint<'_>) -> Vec<Finding> {
    let mut owners: BTreeMap<IpAddr, ObjectRef> = BTreeMap::new();
    let nodes = lint.snapshot.nodes.values().map(|node| (object("Node", "", &node.name), &node.addresses));
    let pods = lint.population.pods().map(|pod| (object("Pod", &pod.namespace, &pod.name), &pod.addresses));
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
            report.warning(remark(code::DUPLICATE_ADDRESS, "status", message, remedy));
            findings.extend(report.finish());
        }
    }
    findings
}

fn object(kind: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { api_version: "v1".into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
}
