//! Laws that hold for every cluster, tried on random ones.

mod clusters;
mod edits;
mod form;
mod kernel;
mod long;

use std::{net::IpAddr, sync::Arc};

use proptest::prelude::*;

use self::{
    clusters::{ADDRESSES, NODE, PORTS, PROTOCOLS, addresses, local_pods, mixed, put, renamed, snapshot},
    edits::edit,
    form::Form,
};
use crate::{
    build::address,
    compile::Compiler,
    decision::{AttributionId, Decision, Reason, Verdict},
    evaluate::{End, Family, evaluate_point},
    model::{Direction, ObjectKey, Peer, Pod, Policy, PortMatch, Protocol, Rule, Snapshot, Tier},
    tables::{IdFloor, Tables},
};

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// A question to both ways.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Probe {
    subject: ObjectKey,
    direction: Direction,
    peer: IpAddr,
    protocol: Protocol,
    port: Option<u16>,
}

impl Probe {
    fn evaluate(&self, snapshot: &Snapshot) -> Option<Decision> {
        let Self { subject, direction, peer, protocol, port } = self;
        let end = End::Address(*peer);
        evaluate_point(snapshot, subject, *direction, &end, None, Family::of(*peer), *protocol, *port)
    }

    fn look_up(&self, compiler: &Compiler) -> Option<(Verdict, AttributionId)> {
        compiler.lookup(&self.subject, self.direction, self.peer, self.protocol, self.port)
    }
}

fn probes(snapshot: &Snapshot) -> Vec<Probe> {
    let mut probes = Vec::new();
    for pod in local_pods(snapshot) {
        for direction in DIRECTIONS {
            for peer in addresses() {
                for (protocol, port) in ports() {
                    probes.push(Probe { subject: pod.key(), direction, peer, protocol, port });
                }
            }
        }
    }
    probes
}

fn ports() -> impl Iterator<Item = (Protocol, Option<u16>)> {
    PROTOCOLS.iter().flat_map(|protocol| {
        let ports = if protocol.has_ports() { PORTS } else { &PORTS[..1] };
        ports.iter().map(|port| (*protocol, *port))
    })
}

fn compile(snapshot: &Snapshot) -> Compiler {
    let mut compiler = Compiler::new(NODE, IdFloor::default());
    compiler.compile(&Arc::new(snapshot.clone()));
    compiler
}

/// The tables and the evaluator agree on verdict and attribution.
fn agrees(snapshot: &Snapshot, compiler: &Compiler) -> Result<(), TestCaseError> {
    for probe in probes(snapshot) {
        let evaluated = probe.evaluate(snapshot);
        let found = probe.look_up(compiler);
        prop_assert_eq!(found, kernel::conclude(compiler.tables(), compiler.tables(), &probe), "{:?}", probe);
        prop_assert!(found.is_some(), "{probe:?} has an answer");
        let Some((verdict, id)) = found else { continue };
        if evaluated.as_ref().is_some_and(|decision| decision.reason == Reason::ServiceNotResolved) {
            prop_assert_eq!((verdict, id), (Verdict::Unknown, AttributionId::NONE), "{:?}", probe);
            continue;
        }
        let decision = compiler.decision(id).map(|decision| Decision::clone(decision));
        prop_assert_eq!(&decision, &evaluated, "{:?}", probe);
        prop_assert_eq!(decision.map(|decision| decision.verdict), Some(verdict));
    }
    Ok(())
}

/// Takes a compiler to a new snapshot, and a kernel that held its tables with it.
fn follow(compiler: &mut Compiler, held: &mut Tables, old: &Snapshot, new: &Snapshot) -> Result<(), TestCaseError> {
    let before = held.clone();
    let change = compiler.compile(&Arc::new(new.clone()));
    prop_assert!(!change.complete);
    kernel::apply(held, &change)?;
    prop_assert_eq!(&*held, compiler.tables());
    kernel::keeps_meanings(&before, held)?;
    let probes: Vec<Probe> = probes(old).into_iter().chain(probes(new)).collect();
    kernel::publishes_unnoticed(&before, &change, held, &probes)?;
    kernel::is_lean(held)?;
    prop_assert!(compiler.compile(&Arc::new(new.clone())).is_empty(), "nothing changed, nothing is written");
    Ok(())
}

fn verdicts(snapshot: &Snapshot, probes: &[Probe]) -> Vec<Option<Verdict>> {
    probes.iter().map(|probe| probe.evaluate(snapshot).map(|decision| decision.verdict)).collect()
}

fn each_rule(snapshot: &Snapshot, change: impl Fn(&Rule) -> Rule) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for policy in snapshot.policies.values_mut() {
        let policy = Arc::make_mut(policy);
        policy.rules = policy.rules.iter().map(&change).collect();
    }
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn evaluator_and_tables_agree(snapshot in snapshot()) {
        agrees(&snapshot, &compile(&snapshot))?;
    }

    #[test]
    fn a_compiler_that_followed_all_changes_agrees_too(
        clusters in prop::collection::vec(snapshot(), 2..4),
        takes in prop::collection::vec(prop_oneof![any::<u64>(), (0u32..20).prop_map(|bit| 1 << bit)], 1..6),
    ) {
        let mut compiler = Compiler::new(NODE, IdFloor::default());
        let mut now = clusters[0].clone();
        let mut held = compiler.compile(&Arc::new(now.clone())).put;
        for (step, take) in takes.iter().enumerate() {
            let next = mixed(&now, &clusters[(step + 1) % clusters.len()], *take);
            follow(&mut compiler, &mut held, &now, &next)?;
            agrees(&next, &compiler)?;
            now = next;
        }
    }

    #[test]
    fn a_compiler_that_followed_edits_holds_what_a_new_one_would(
        start in snapshot(),
        publications in prop::collection::vec(prop::collection::vec(edit(), 1..4), 1..8),
    ) {
        let mut compiler = compile(&start);
        let mut held = compiler.tables().clone();
        let mut now = start;
        for edits in publications {
            let mut next = now.clone();
            edits.iter().for_each(|edit| edit.apply(&mut next));
            follow(&mut compiler, &mut held, &now, &next)?;
            let anew = compile(&next);
            prop_assert_eq!(Form::of(&compiler), Form::of(&anew), "{:?}", edits);
            now = next;
        }
        agrees(&now, &compiler)?;
    }

    #[test]
    fn adding_an_accept_to_a_network_policy_never_denies(snapshot in snapshot(), extra in 0..ADDRESSES.len()) {
        let probes = probes(&snapshot);
        let mut more = snapshot.clone();
        for policy in more.policies.values_mut().filter(|policy| policy.tier == Tier::NetworkPolicy) {
            let policy = Arc::make_mut(policy);
            for direction in DIRECTIONS {
                let block = ipnet::IpNet::from(address(ADDRESSES[extra]));
                let peers = Some(vec![Peer::Block { cidr: block, except: Vec::new() }]);
                let template = Rule {
                    direction, index: 99, name: String::new(), action: crate::model::Action::Accept, peers, ports: None,
                    fault: None,
                };
                policy.rules.push(template);
            }
        }
        for (probe, (before, after)) in probes.iter().zip(verdicts(&snapshot, &probes).into_iter().zip(verdicts(&more, &probes))) {
            prop_assert!(!(before == Some(Verdict::Allowed) && after == Some(Verdict::Denied)), "{:?}", probe);
        }
    }

    #[test]
    fn splitting_a_network_policy_by_its_rules_changes_no_verdict(snapshot in snapshot()) {
        let probes = probes(&snapshot);
        let mut split = snapshot.clone();
        for policy in snapshot.policies.values().filter(|policy| policy.tier == Tier::NetworkPolicy) {
            let base = Policy { rules: Vec::new(), ..Policy::clone(policy) };
            put(&mut split, base.clone());
            for (at, rule) in policy.rules.iter().enumerate() {
                let part = Policy { rules: vec![rule.clone()], ..base.clone() };
                put(&mut split, renamed(part, &format!("{}-{at}", policy.key.name)));
            }
        }
        prop_assert_eq!(verdicts(&snapshot, &probes), verdicts(&split, &probes));
    }

    #[test]
    fn order_inside_a_network_policy_and_inside_lists_changes_no_verdict(snapshot in snapshot()) {
        let probes = probes(&snapshot);
        let mut other = each_rule(&snapshot, |rule| {
            let mut rule = rule.clone();
            rule.peers.iter_mut().for_each(|peers| peers.reverse());
            rule.ports.iter_mut().for_each(|ports| ports.reverse());
            rule
        });
        for policy in other.policies.values_mut().filter(|policy| policy.tier == Tier::NetworkPolicy) {
            Arc::make_mut(policy).rules.reverse();
        }
        prop_assert_eq!(verdicts(&snapshot, &probes), verdicts(&other, &probes));
    }

    #[test]
    fn a_number_is_a_range_of_one_and_a_name_that_resolves_to_it(snapshot in snapshot()) {
        // Every pod that could be a destination calls its TCP port 80 `eighty`; no other port has that name.
        let mut snapshot = snapshot;
        for pod in snapshot.pods.values_mut() {
            let port = crate::model::ContainerPort { name: "eighty".into(), port: 80, protocol: Protocol::TCP };
            Arc::make_mut(pod).container_ports = vec![port];
        }
        let with = |port: PortMatch| each_rule(&snapshot, |rule| Rule { ports: Some(vec![port.clone()]), ..rule.clone() });
        let number = with(PortMatch::Range { protocol: Protocol::TCP, first: 80, last: 80 });
        let name = with(PortMatch::Named { protocol: Some(Protocol::TCP), name: "eighty".into() });
        let to_pods = |probe: &Probe| probe.direction == Direction::Ingress
            || snapshot.pods.values().filter(|pod| pod.takes_part()).any(|pod| pod.addresses.contains(&probe.peer));
        let probes: Vec<Probe> = probes(&snapshot).into_iter().filter(to_pods).collect();
        let contested = |peer: IpAddr| snapshot.pods.values().filter(|pod| pod.addresses.contains(&peer)).count() > 1;
        let probes: Vec<Probe> = probes.into_iter().filter(|probe| !contested(probe.peer)).collect();
        prop_assert_eq!(verdicts(&number, &probes), verdicts(&name, &probes));
    }

    #[test]
    fn no_address_of_a_family_is_judged_otherwise_than_its_twin_without_blocks(snapshot in snapshot()) {
        let blockless = each_rule(&snapshot, |rule| {
            let peers = rule.peers.as_ref().map(|peers| {
                peers.iter().filter(|peer| matches!(peer, Peer::Pods { .. })).cloned().collect()
            });
            Rule { peers, ..rule.clone() }
        });
        let mut twins = blockless.clone();
        for (at, pod) in twins.pods.values_mut().enumerate() {
            let pod: &mut Pod = Arc::make_mut(pod);
            pod.addresses = vec![address(&format!("10.0.2.{at}")), address(&format!("fd00:2::{at}"))];
        }
        for pod in local_pods(&twins) {
            for peer in twins.pods.values() {
                for direction in DIRECTIONS {
                    for (protocol, port) in ports() {
                        let decisions = [peer.addresses[0], peer.addresses[1]].map(|peer| {
                            Probe { subject: pod.key(), direction, peer, protocol, port }.evaluate(&twins)
                        });
                        prop_assert_eq!(&decisions[0], &decisions[1]);
                    }
                }
            }
        }
    }
}
