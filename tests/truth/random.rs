//! Random policies and edits in the real programs: every packet is judged and recorded as the evaluator decides for the
//! cluster of that moment.

mod policies;

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use netverdict_abi::{Disposition, KernelReason, Mode, VerdictEvent, event::flag, map::name};
use netverdict_policy::{
    AttributionId, Decision, Direction, End, Family, Snapshot, Verdict, evaluate_point,
    model::Protocol,
    tables::{Owner, OwnerId},
};
use netverdict_probe::test_run;
use netverdict_tests::topology::PodNetwork;

use self::policies::PORTS;
use crate::{
    cells::FAMILIES,
    chance::Chance,
    expect,
    node::{Node, key},
    packets::{datagram, fragment, ping, sctp, syn},
    table::PODS,
};

const PUBLICATIONS: u64 = 150;
/// The most policies at a time.
const POLICIES: usize = 14;
/// Packets after each publication.
const PACKETS: usize = 150;
/// `TCX_DROP`.
const DROP: u32 = 2;

#[test]
fn random_policies_decide_in_the_kernel_as_in_the_evaluator() {
    judge_random(155, Mode::Enforce, 0x5eed_0003);
}

#[test]
fn random_policies_are_recorded_and_drop_nothing_where_the_node_audits() {
    judge_random(156, Mode::Audit, 0x5eed_0004);
}

fn judge_random(subnet: u8, mode: Mode, seed: u64) {
    let Some(mut node) = Node::start(subnet, mode, PODS) else { return };
    let pods = node.topology.pods().to_vec();
    let strangers = strangers(&node, subnet);
    let mut chance = Chance::new(seed);
    let (mut policies, mut namespaces) = (BTreeMap::new(), BTreeMap::new());
    let (mut source_port, mut verdicts) = (1_024_u16, BTreeMap::<String, u32>::new());
    let started = Instant::now();
    for publication in 1..=PUBLICATIONS {
        edit(&mut chance, &mut policies, &mut namespaces);
        let manifests: Vec<&str> = namespaces.values().chain(policies.values()).map(String::as_str).collect();
        let snapshot = node.snapshot(&[&[PODS][..], &manifests].concat());
        let revision = node.publish(publication, &snapshot);
        node.events();
        for _ in 0..PACKETS {
            source_port = source_port.checked_add(1).unwrap_or(1_024);
            let probe = Probing::new(&mut chance, &pods, &strangers, source_port);
            // On its way a packet of a pod here has been judged as that pod's egress.
            if probe.is_denied_to_its_sender(&mut node) {
                continue;
            }
            let decision = probe.expected(&snapshot);
            let (dropped, events) = probe.send(&mut node);
            if let Some(fault) = probe.fault(&node, &decision, (mode, revision), dropped, &events) {
                let policies = manifests.join("\n");
                panic!("publication {publication} of seed {seed:#x}, {probe:?}: {fault}\nin\n{policies}");
            }
            *verdicts.entry(format!("{:?}", decision.reason)).or_default() += 1;
        }
    }
    println!("{PUBLICATIONS} publications in {} ms: {verdicts:?}", started.elapsed().as_millis());
    assert!(verdicts.len() > 8, "too little was tried: {verdicts:?}");
}

/// Adds or removes a few policies.
fn edit(chance: &mut Chance, policies: &mut BTreeMap<usize, String>, namespaces: &mut BTreeMap<String, String>) {
    for _ in 0..=chance.below(3) {
        let place = chance.below(POLICIES);
        if chance.once_in(4) {
            policies.remove(&place);
        } else {
            policies.insert(place, policies::policy(chance, &format!("p{place}")).to_string());
        }
    }
    if chance.once_in(4) {
        let namespace = policies::namespace(chance);
        namespaces.insert(namespace["metadata"]["name"].to_string(), namespace.to_string());
    }
}

/// Addresses of the node, of an unknown pod, and outside the cluster.
fn strangers(node: &Node, subnet: u8) -> Vec<IpAddr> {
    let unknown = [format!("10.233.{subnet}.99"), format!("fd33:0:0:{subnet:x}::99")];
    let elsewhere = ["203.0.113.7", "203.0.113.200", "198.51.100.1", "2001:db8::7", "2001:db8::8", "2001:db9::1"];
    let texts = unknown.iter().map(String::as_str).chain(elsewhere);
    texts.map(|text| text.parse().unwrap()).chain(node.topology.node_addresses()).collect()
}

/// A packet at the interface of a pod.
#[derive(Clone, Copy, Debug)]
struct Probing<'a> {
    pod: &'a PodNetwork,
    direction: Direction,
    peer: IpAddr,
    protocol: Protocol,
    /// `None` for a later fragment or a protocol without ports.
    port: Option<u16>,
    source_port: u16,
}

impl<'a> Probing<'a> {
    fn new(chance: &mut Chance, pods: &'a [PodNetwork], strangers: &[IpAddr], source_port: u16) -> Self {
        let (pod, other) = loop {
            let (pod, other) = (chance.pick(pods), chance.pick(pods));
            // Traffic of a pod to itself does not leave the pod.
            if pod.pod != other.pod {
                break (pod, other);
            }
        };
        let peer = if chance.once_in(3) { *chance.pick(strangers) } else { other.address(*chance.pick(&FAMILIES)) };
        let icmp = if peer.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        let protocol = *chance.pick(&[Protocol::TCP, Protocol::TCP, Protocol::UDP, Protocol::SCTP, icmp]);
        let port = (protocol != icmp && !chance.once_in(12)).then(|| *chance.pick(&PORTS));
        let direction = *chance.pick(&[Direction::Egress, Direction::Ingress]);
        Self { pod, direction, peer, protocol, port, source_port }
    }

    fn expected(&self, snapshot: &Snapshot) -> Decision {
        let Self { pod, direction, peer, protocol, port, .. } = *self;
        let end = End::Address(peer);
        let decision =
            evaluate_point(snapshot, &key(pod), direction, &end, Some(peer), Family::of(peer), protocol, port);
        decision.expect("the pod takes part")
    }

    /// Sends the packet from the pod that is its source, if one is. Whether it was dropped there.
    fn is_denied_to_its_sender(&self, node: &mut Node) -> bool {
        let is_at_peer = |pod: &&PodNetwork| [pod.address(4), pod.address(6)].contains(&self.peer);
        match node.topology.pods().iter().find(is_at_peer) {
            Some(sender) if self.direction == Direction::Ingress => {
                let ifindex = node.ifindex(sender);
                self.run(node, name::FROM_POD, ifindex).0
            }
            _ => false,
        }
    }

    /// Whether the packet was dropped, and its events.
    fn send(&self, node: &mut Node) -> (bool, Vec<VerdictEvent>) {
        let program = match self.direction {
            Direction::Egress => name::FROM_POD,
            Direction::Ingress => name::TO_POD,
        };
        let ifindex = node.ifindex(self.pod);
        self.run(node, program, ifindex)
    }

    fn run(&self, node: &mut Node, program: &str, ifindex: u32) -> (bool, Vec<VerdictEvent>) {
        let own = self.pod.address(if self.peer.is_ipv4() { 4 } else { 6 });
        let (source, destination) = match self.direction {
            Direction::Egress => (own, self.peer),
            Direction::Ingress => (self.peer, own),
        };
        let port = self.port.unwrap_or(PORTS[0]);
        let mut packet = match self.protocol {
            Protocol::TCP => syn(source, destination, self.source_port, port),
            Protocol::UDP => datagram(source, destination, self.source_port, port, 64),
            Protocol::SCTP => sctp(source, destination, self.source_port, port),
            _ => ping(source, destination, self.source_port),
        };
        if self.is_fragment() {
            packet = fragment(&packet, 200, self.source_port);
        }
        let run = test_run(&node.options.pin_root, program, &packet, ifindex, 1).unwrap();
        (run.return_value == DROP, node.events())
    }

    fn is_fragment(&self) -> bool {
        self.port.is_none() && self.protocol.has_ports()
    }

    fn fault(
        &self,
        node: &Node,
        decision: &Decision,
        (mode, revision): (Mode, u64),
        dropped: bool,
        events: &[VerdictEvent],
    ) -> Option<String> {
        let [event] = events else { return Some(format!("one event, not {events:?}")) };
        let told = node.compiler.decision(AttributionId(event.attribution)).map(|told| Decision::clone(told));
        if told.as_ref() != Some(decision) {
            return Some(format!("recorded {told:?}, expected {decision:?}"));
        }
        let verdict = expect::verdict(decision);
        let drops = mode == Mode::Enforce && decision.verdict == Verdict::Denied;
        let disposition = if drops { Disposition::Dropped } else { Disposition::Forwarded };
        let owner = |id: u32| node.compiler.owner(OwnerId(id)).map(shown);
        let (own, peer) = match self.direction {
            Direction::Egress => (event.source_owner, event.destination_owner),
            Direction::Ingress => (event.destination_owner, event.source_owner),
        };
        let found = (
            (event.verdict, event.disposition, event.reason, event.direction),
            (event.mode, event.revision),
            (owner(event.endpoint_owner), owner(own), owner(peer)),
            (event.flags & flag::FRAGMENT != 0, dropped),
        );
        let pod = Some(format!("pod {}", self.pod.pod));
        let right = (
            (verdict as u8, disposition as u8, KernelReason::ByPolicy as u8, expect::of(self.direction) as u8),
            (mode as u8, revision),
            (pod.clone(), pod, self.owner_of_peer(node)),
            (self.is_fragment(), drops),
        );
        (found != right).then(|| format!("recorded {found:?}, expected {right:?}; {event:?}"))
    }

    fn owner_of_peer(&self, node: &Node) -> Option<String> {
        let pods = node.topology.pods().iter();
        let at = |pod: &&PodNetwork| [pod.address(4), pod.address(6)].contains(&self.peer);
        let pod = pods.clone().find(at).map(|pod| format!("pod {}", pod.pod));
        pod.or_else(|| node.topology.node_addresses().contains(&self.peer).then(|| "node here".to_owned()))
    }
}

fn shown(owner: &Owner) -> String {
    match owner {
        Owner::Pod { key, .. } => format!("pod {key}"),
        Owner::Node { name } => format!("node {name}"),
        Owner::Service { key } => format!("Service {key}"),
    }
}
