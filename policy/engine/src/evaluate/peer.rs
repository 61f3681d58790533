//! The other end, and whether a rule's peer matches it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    flow::{End, Family},
    selector,
    tiers::Match,
};
use crate::{
    address,
    model::{NamePattern, Node, Peer, Pod, Snapshot},
};

/// Attributes of the other end that rules can read.
#[derive(Clone)]
pub(crate) struct Facts<'a> {
    /// Canonical. `None` where a pod has none of the family.
    pub(crate) address: Option<IpAddr>,
    pub(crate) family: Family,
    /// Its owners: none, one, or several that claim the same address.
    claims: Vec<Claim<'a>>,
    /// A Service's address that no pod and no node owns.
    pub(crate) service: bool,
    /// In a pod range, and without an owner.
    pub(crate) unknown_pod: bool,
    /// Whether it matches blocks and names where its address is not known.
    unknown_address: Match,
}

/// An owner of an address.
#[derive(Clone)]
pub(crate) enum Claim<'a> {
    /// It takes part.
    Pod(&'a Pod),
    /// `node` is `None` where the snapshot holds no such node.
    Node { name: &'a str, node: Option<&'a Node> },
}

impl Claim<'_> {
    pub(crate) fn is_node_of(&self, subject: &Pod) -> bool {
        matches!(self, Claim::Node { name, .. } if !name.is_empty() && *name == subject.node)
    }
}

impl<'a> Facts<'a> {
    pub(crate) fn of(snapshot: &'a Snapshot, end: &End, address: Option<IpAddr>, family: Family) -> Self {
        match end {
            &End::Address(own) => Self::of_address(snapshot, address.unwrap_or(own)),
            End::Pod(key) => match snapshot.pods.get(key) {
                Some(pod) => Self::of_pod(snapshot, pod, address, family),
                // The snapshot does not hold the pod: only its address is known.
                None => address.map_or_else(|| Self::nobody(None, family), |a| Self::of_address(snapshot, a)),
            },
        }
    }

    fn of_pod(snapshot: &'a Snapshot, pod: &'a Pod, address: Option<IpAddr>, family: Family) -> Self {
        let address = address.or_else(|| address_of(&pod.addresses, family)).map(address::canonical);
        if pod.takes_part() {
            return Self { claims: vec![Claim::Pod(pod)], ..Self::nobody(address, family) };
        }
        if pod.host_network && !pod.finished() {
            // Its traffic is the node's (E-5).
            let node = snapshot.nodes.get(&pod.node).map(|node| &**node);
            let address = address.or_else(|| node.and_then(|node| address_of(&node.addresses, family)));
            return Self { claims: vec![Claim::Node { name: &pod.node, node }], ..Self::nobody(address, family) };
        }
        // Finished: the present owner of its address counts (E-14).
        address.map_or_else(|| Self::nobody(None, family), |address| Self::of_address(snapshot, address))
    }

    fn of_address(snapshot: &'a Snapshot, address: IpAddr) -> Self {
        let address = address::canonical(address);
        let mut claims: Vec<Claim<'a>> = pods_at(snapshot, address).into_iter().map(Claim::Pod).collect();
        claims.extend(
            nodes_at(snapshot, address)
                .into_iter()
                .map(|name| Claim::Node { name, node: snapshot.nodes.get(name).map(|node| &**node) }),
        );
        let owned = !claims.is_empty();
        let service = !owned && is_service(snapshot, address);
        let unknown_pod = !owned && !service && in_pod_range(snapshot, address);
        Self { claims, service, unknown_pod, ..Self::nobody(Some(address), Family::of(address)) }
    }

    fn nobody(address: Option<IpAddr>, family: Family) -> Self {
        let family = address.map_or(family, Family::of);
        Self { address, family, claims: Vec::new(), service: false, unknown_pod: false, unknown_address: Match::No }
    }

    /// Each owner in order; `None` once where there is none.
    pub(crate) fn claims(&self) -> impl Iterator<Item = Option<&Claim<'a>>> {
        let nobody = self.claims.is_empty().then_some(None);
        self.claims.iter().map(Some).chain(nobody)
    }

    /// The same address, as if it had no owner.
    pub(crate) fn unowned(&self, snapshot: &Snapshot) -> Self {
        let unknown_pod = self.address.is_some_and(|address| in_pod_range(snapshot, address));
        Self { claims: Vec::new(), service: false, unknown_pod, ..self.clone() }
    }

    /// A copy whose unknown address matches blocks and names as `unknown_address` says.
    pub(crate) fn assuming(&self, unknown_address: Match) -> Self {
        Self { unknown_address, ..self.clone() }
    }

    fn in_block(&self, snapshot: &Snapshot, cidr: IpNet, except: &[IpNet]) -> Match {
        match self.address {
            Some(own) => (address::holds(cidr, own) && !except.iter().any(|hole| address::holds(*hole, own))).into(),
            None if self.is_sure_to_be_in(cidr, except) => Match::Certain,
            None if self.may_be_in(snapshot, cidr) => self.unknown_address,
            None => Match::No,
        }
    }

    /// Whether the block holds any address that a pod without addresses of either family may get.
    fn is_sure_to_be_in(&self, cidr: IpNet, except: &[IpNet]) -> bool {
        let has_none = matches!(self.claims.as_slice(), [Claim::Pod(pod)] if pod.addresses.is_empty());
        let everything = cidr.prefix_len() == 0 && except.is_empty();
        has_none && everything && Family::of(cidr.network()) == self.family
    }

    /// Whether an end without an address can get one of the block. Addresses of one host or link alone are no pod's.
    fn may_be_in(&self, snapshot: &Snapshot, cidr: IpNet) -> bool {
        let cidr = address::canonical_block(cidr);
        let network = cidr.network();
        let assignable = !network.is_loopback()
            && !network.is_multicast()
            && match network {
                IpAddr::V4(v4) => !v4.is_link_local(),
                IpAddr::V6(v6) => !v6.is_unicast_link_local(),
            };
        let mut ranges = pod_ranges(snapshot).filter(|range| Family::of(range.network()) == self.family).peekable();
        let is_pod = matches!(self.claims.as_slice(), [Claim::Pod(_)]);
        let overlaps = |range: &IpNet| range.contains(&cidr) || cidr.contains(range);
        Family::of(network) == self.family && assignable && (!is_pod || ranges.peek().is_none() || ranges.any(overlaps))
    }

    /// Whether the subject talks to itself: no other endpoint claims its address.
    pub(crate) fn is(&self, subject: &Pod) -> bool {
        matches!(self.claims.as_slice(), [Claim::Pod(pod)] if pod.namespace == subject.namespace && pod.name == subject.name)
    }
}

/// Whether a rule's peer matches the other end, as one of the owners of its address.
pub(crate) fn matches(snapshot: &Snapshot, term: &Peer, facts: &Facts<'_>, claim: Option<&Claim<'_>>) -> Match {
    match term {
        Peer::Pods { namespaces, pods } => match claim {
            Some(Claim::Pod(pod)) => selector::selects(snapshot, namespaces, pods, pod).into(),
            None if facts.unknown_pod => Match::Possible,
            // Selectors match pods only (E-4).
            _ => Match::No,
        },
        Peer::Block { cidr, except } => facts.in_block(snapshot, *cidr, except),
        Peer::Nodes(labels) => match claim {
            Some(Claim::Node { node: Some(node), .. }) => selector::matches(labels, &node.labels).into(),
            _ => Match::No,
        },
        Peer::Name(pattern) => {
            facts.address.map_or(facts.unknown_address, |own| has_name(snapshot, pattern, own).into())
        }
    }
}

/// The pods that take part and have the address, by key. A pod that is being deleted no longer has it where another pod does:
/// it was released (E-14).
pub(super) fn pods_at(snapshot: &Snapshot, address: IpAddr) -> Vec<&Pod> {
    let address = address::canonical(address);
    let pods = snapshot.pods.values().map(|pod| &**pod).filter(|pod| pod.takes_part());
    let mut pods: Vec<&Pod> =
        pods.filter(|pod| pod.addresses.iter().any(|a| address::canonical(*a) == address)).collect();
    if pods.iter().any(|pod| !pod.terminating) {
        pods.retain(|pod| !pod.terminating);
    }
    pods
}

/// The nodes that have the address themselves or through a pod on their network, by name.
fn nodes_at(snapshot: &Snapshot, address: IpAddr) -> Vec<&str> {
    let has = |addresses: &[IpAddr]| addresses.iter().any(|a| address::canonical(*a) == address);
    let nodes = snapshot.nodes.iter().filter(|(_, node)| has(&node.addresses)).map(|(name, _)| name.as_str());
    let pods = snapshot.pods.values().filter(|pod| pod.host_network && !pod.finished() && has(&pod.addresses));
    let mut names: Vec<&str> = nodes.chain(pods.map(|pod| pod.node.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn is_service(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot.services.values().flat_map(|s| &s.addresses).any(|a| address::canonical(*a) == address)
}

fn in_pod_range(snapshot: &Snapshot, address: IpAddr) -> bool {
    pod_ranges(snapshot).any(|range| address::holds(*range, address))
}

fn pod_ranges(snapshot: &Snapshot) -> impl Iterator<Item = &IpNet> {
    snapshot.pod_ranges.iter().chain(snapshot.nodes.values().flat_map(|node| &node.pod_ranges))
}

fn has_name(snapshot: &Snapshot, pattern: &NamePattern, address: IpAddr) -> bool {
    let named = snapshot.names.iter().filter(|(name, _)| name_matches(pattern, name));
    named.flat_map(|(_, addresses)| addresses).any(|a| address::canonical(*a) == address)
}

/// `name` as the snapshot holds it: lower case, no final dot.
pub(crate) fn name_matches(pattern: &NamePattern, name: &str) -> bool {
    match pattern {
        NamePattern::Exact(exact) => exact == name,
        NamePattern::Suffix(suffix) => name
            .strip_suffix(suffix.as_str())
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty()),
    }
}

fn address_of(addresses: &[IpAddr], family: Family) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| Family::of(*address) == family)
}
