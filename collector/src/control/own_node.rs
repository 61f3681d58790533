//! The snapshot as its own node completes it: all addresses of the node's interfaces are the node's (E-6), and addresses
//! that the CNI plugin assigned to a pod are the pod's before the API server knows them.
//!
//! The API server knows a few of them. The kubelet probes pods from the others too: from the host side of a pod's veth,
//! from a bridge, from a tunnel. As part of a snapshot they are judged, recorded and remembered like any other address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use netverdict_policy::{
    Snapshot,
    model::{Node, ObjectKey, Pod, Service},
};

/// Knowledge of this node that the API server gets later, or never.
pub(super) struct KnownHere<'a> {
    pub(super) node: &'a str,
    /// All addresses of the node's interfaces.
    pub(super) own_addresses: &'a BTreeSet<IpAddr>,
    /// Addresses that the CNI plugin assigned, by the pod's uid.
    pub(super) assigned: &'a BTreeMap<String, Vec<IpAddr>>,
}

/// `snapshot` with the facts that are known here, and audited as a whole if `audit_all`. Addresses that a pod or
/// a Service has stay theirs alone: kube-proxy in mode IPVS gives the node an interface with every Service's addresses,
/// and a pod that is taken for its own node would be exempt from policy.
pub(super) fn complete(snapshot: &Arc<Snapshot>, here: &KnownHere<'_>, audit_all: bool) -> Arc<Snapshot> {
    let &KnownHere { node, own_addresses, assigned } = here;
    let addressed = with_addresses(&snapshot.pods, node, assigned);
    let known = snapshot.nodes.get(node);
    let has = |address: &IpAddr| known.is_some_and(|known| known.addresses.contains(address));
    let mut own: BTreeSet<IpAddr> = own_addresses.iter().filter(|address| !has(address)).copied().collect();
    remove_taken(&mut own, &snapshot.pods, &snapshot.services);
    if own.is_empty() && addressed.is_empty() && snapshot.audit_all == audit_all {
        return snapshot.clone();
    }
    let mut completed = Snapshot { audit_all, ..(**snapshot).clone() };
    completed.pods.extend(addressed);
    if !own.is_empty() {
        let mut complete =
            known.map_or_else(|| Node { name: node.to_owned(), ..Node::default() }, |known| (**known).clone());
        complete.addresses.extend(own);
        completed.nodes.insert(node.to_owned(), Arc::new(complete));
    }
    Arc::new(completed)
}

/// The pods of the node that have no address yet, with the addresses assigned to them.
fn with_addresses(
    pods: &BTreeMap<ObjectKey, Arc<Pod>>,
    node: &str,
    assigned: &BTreeMap<String, Vec<IpAddr>>,
) -> BTreeMap<ObjectKey, Arc<Pod>> {
    let mut addressed = BTreeMap::new();
    if assigned.is_empty() {
        return addressed;
    }
    for (key, pod) in pods {
        if pod.node != node || !pod.takes_part() || !pod.addresses.is_empty() {
            continue;
        }
        let by_uid = assigned.get(&pod.uid).or_else(|| assigned.get(&pod.cgroup_uid));
        if let Some(addresses) = by_uid {
            addressed.insert(key.clone(), Arc::new(Pod { addresses: addresses.clone(), ..(**pod).clone() }));
        }
    }
    addressed
}

fn remove_taken(
    own: &mut BTreeSet<IpAddr>,
    pods: &BTreeMap<ObjectKey, Arc<Pod>>,
    services: &BTreeMap<ObjectKey, Arc<Service>>,
) {
    let of_pods = pods.values().filter(|pod| pod.takes_part()).flat_map(|pod| &pod.addresses);
    let of_services = services.values().flat_map(|service| &service.addresses);
    for address in of_pods.chain(of_services) {
        own.remove(&address.to_canonical());
    }
}

#[cfg(test)]
mod tests {
    use netverdict_policy::build::{Cluster, cluster, pod};

    use super::*;

    fn check(cluster: Cluster, own: &[&str], expected: &[&str]) {
        let parse = |addresses: &[&str]| addresses.iter().map(|a| a.parse::<IpAddr>().unwrap()).collect::<Vec<_>>();
        let own = parse(own).into_iter().collect();
        let here = KnownHere { node: "n1", own_addresses: &own, assigned: &BTreeMap::new() };
        let completed = complete(&Arc::new(cluster.snapshot()), &here, false);
        let known = completed.nodes.get("n1").map(|node| node.addresses.clone()).unwrap_or_default();
        assert_eq!(known, parse(expected));
    }

    #[test]
    fn addresses_of_interfaces_come_after_those_that_the_api_server_knows() {
        let nodes = cluster().node("n1", &["10.1.0.1"], &[]).node("n2", &["10.1.0.2"], &[]);
        check(nodes, &["10.1.0.1", "10.244.1.1", "fe80::1"], &["10.1.0.1", "10.244.1.1", "fe80::1"]);
        check(cluster(), &["10.244.1.1"], &["10.244.1.1"]);
        check(cluster(), &[], &[]);
    }

    #[test]
    fn address_of_a_pod_or_a_service_is_not_the_nodes() {
        let taken = cluster().pod(pod("x/a").at(&["10.244.1.5"]).on("n1")).service("x/svc", &["10.96.0.10"]);
        check(taken, &["10.244.1.1", "10.244.1.5", "10.96.0.10"], &["10.244.1.1"]);
        let of_a_pod_on_the_nodes_network = cluster().pod(pod("x/host").at(&["10.1.0.1"]).on("n1").host_network());
        check(of_a_pod_on_the_nodes_network, &["10.1.0.1"], &["10.1.0.1"]);
    }

    #[test]
    fn a_new_pod_has_the_addresses_that_the_plugin_assigned_until_the_api_server_tells_others() {
        let pods = cluster()
            .pod(pod("x/new").on("n1"))
            .pod(pod("x/known").at(&["10.244.1.5"]).on("n1"))
            .pod(pod("x/elsewhere").on("n2"));
        let assigned = ["new", "known", "elsewhere"]
            .map(|name| (format!("uid-x-{name}"), vec!["10.244.1.9".parse().unwrap()]))
            .into_iter()
            .collect();
        let here = KnownHere { node: "n1", own_addresses: &BTreeSet::new(), assigned: &assigned };
        let completed = complete(&Arc::new(pods.snapshot()), &here, false);
        let addresses = |name: &str| {
            let pod = &completed.pods[&ObjectKey::new("x", name)];
            pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(addresses("new"), ["10.244.1.9"]);
        assert_eq!(addresses("known"), ["10.244.1.5"]);
        assert!(addresses("elsewhere").is_empty());
    }
}
