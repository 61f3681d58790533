//! The truth table: every ordered pair of nine pods in three namespaces, for every set of policies in `sets/`.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use netverdict_abi::{Mode, VerdictEvent, address::Address};
use netverdict_policy::{Direction, Verdict};
use netverdict_tests::topology::PodNetwork;

use crate::{
    attempts::{Servers, attempt, source_port},
    cells::{self, Cell},
    expect::{self, Expected},
    node::Node,
};

pub(crate) const PODS: &str = include_str!("pods.yaml");
const SUBNET: u8 = 150;
/// The least number of policy sets that must be found.
const FEWEST_SETS: usize = 12;
/// The most faults that are printed per set, because one mistake causes many.
const SHOWN: usize = 12;

#[test]
fn every_pair_meets_what_the_evaluator_says_and_the_record_agrees() {
    let Some(mut node) = Node::start(SUBNET, Mode::Enforce, PODS) else { return };
    let pods = node.topology.pods().to_vec();
    let cells = cells::all(pods.len());
    let servers = Servers::start(&pods);
    let sets = sets();
    assert!(sets.len() >= FEWEST_SETS && pods.len() == 9);

    let mut faults = Vec::new();
    for (round, (name, manifest)) in (0_u16..).zip(&sets) {
        let started = Instant::now();
        let snapshot = node.snapshot(&[PODS, manifest]);
        let expected: Vec<_> = cells.iter().map(|cell| Expected::of(&snapshot, &pods, cell)).collect();
        let reaches: Vec<_> = expected.iter().map(Expected::reaches).collect();
        let revision = node.publish(u64::from(round) + 1, &snapshot);
        node.events();
        let tried = Instant::now();
        let through = attempt(round, &cells, &pods, &servers, &reaches);
        let took = tried.elapsed();
        let events = node.events();
        let mut wrong = Vec::new();
        for ((cell, through), expected) in cells.iter().zip(&through).zip(&expected) {
            if *through != expected.reaches() {
                wrong.push(format!("{}: got through: {through}; {expected:?}", cell.shown(&pods)));
            }
        }
        wrong.extend(faults_of_record(&node, &pods, &cells, &expected, (round, revision), &events));
        print_summary(name, &reaches, events.len(), took, started.elapsed());
        if !wrong.is_empty() {
            let more = wrong.len().saturating_sub(SHOWN);
            wrong.truncate(SHOWN);
            faults.push(format!("{name}:\n  {}\n  and {more} more", wrong.join("\n  ")));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Checks that each point which a packet of a cell reached has its event, and that there is no other event.
fn faults_of_record(
    node: &Node,
    pods: &[PodNetwork],
    cells: &[Cell],
    expected: &[Expected],
    (round, revision): (u16, u64),
    events: &[VerdictEvent],
) -> Vec<String> {
    let mut seen = HashMap::<Key, Vec<&VerdictEvent>>::new();
    for event in events {
        seen.entry(Key::of(event)).or_default().push(event);
    }
    let mut faults = Vec::new();
    for (cell, expected) in cells.iter().zip(expected) {
        let alone = cell.source == cell.destination;
        for direction in [Direction::Egress, Direction::Ingress] {
            let found = seen.remove(&Key::at(node, pods, cell, direction, round)).unwrap_or_default();
            let decision = expected.at(direction);
            let wanted = match direction {
                // Traffic of a pod to itself does not leave the pod.
                _ if alone => 0,
                Direction::Ingress if expected.egress.verdict == Verdict::Denied => 0,
                Direction::Egress | Direction::Ingress => 1,
            };
            // TCP may retransmit the SYN of a denied connection.
            let again = wanted == 1 && decision.verdict == Verdict::Denied && found.len() > 1;
            if found.len() != wanted && !again {
                faults.push(format!("{} at {direction:?}: {} events, not {wanted}", cell.shown(pods), found.len()));
            }
            for event in found {
                if event.revision != revision {
                    faults.push(format!("revision {} of {revision}", event.revision));
                }
                let fault = expect::fault(event, &node.compiler, pods, cell, direction, decision);
                faults.extend(fault.map(|fault| format!("{} at {direction:?}: {fault}", cell.shown(pods))));
            }
        }
    }
    faults.extend(seen.into_values().flatten().map(|event| format!("nobody's event: {event:?}")));
    faults
}

/// The point and the flow of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    ifindex: u32,
    direction: u8,
    source: Address,
    destination: Address,
    protocol: u8,
    source_port: u16,
    port: u16,
}

impl Key {
    fn of(event: &VerdictEvent) -> Self {
        let VerdictEvent { ifindex, direction, source, destination, protocol, .. } = *event;
        let VerdictEvent { source_port, destination_port: port, .. } = *event;
        Self { ifindex, direction, source, destination, protocol, source_port, port }
    }

    fn at(node: &Node, pods: &[PodNetwork], cell: &Cell, direction: Direction, round: u16) -> Self {
        let (source, destination) = (&pods[cell.source], &pods[cell.destination]);
        Self {
            ifindex: node.ifindex(if direction == Direction::Egress { source } else { destination }),
            direction: expect::of(direction) as u8,
            source: expect::address(source, cell.family),
            destination: expect::address(destination, cell.family),
            protocol: cell.protocol.0,
            source_port: source_port(round),
            port: cell.port,
        }
    }
}

/// (file name, text) of every set, in order.
pub(crate) fn sets() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("truth/sets");
    let mut sets: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    sets.sort();
    sets
}

fn print_summary(name: &str, reaches: &[bool], events: usize, attempts: Duration, whole: Duration) {
    let allowed = reaches.iter().filter(|reaches| **reaches).count();
    println!(
        "{name:28} {allowed:4} of {} cells allowed, {events:5} events, attempts {} ms, whole {} ms",
        reaches.len(),
        attempts.as_millis(),
        whole.as_millis()
    );
}
