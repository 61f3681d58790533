//! Every conformance case through the real programs: each node compiles and publishes snapshot after snapshot, and at
//! both ends of each flow the packets are judged by `BPF_PROG_TEST_RUN`. A packet to a Service is judged once more where it
//! leaves the node, with its backend's address. The event is compared, with the decision
//! that its attribution id stands for. Near misses are found in user space, and not asked for here.
//!
//! Needs root rights, a BPF file system and a BPF object. Without them the test says `SKIPPED datapath: <why>`, or fails
//! where `NETVERDICT_REQUIRE_KERNEL=1` is set.

#[path = "datapath/judged.rs"]
mod judged;
#[path = "datapath/node.rs"]
mod node;
#[path = "datapath/packet.rs"]
mod packet;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::IpAddr,
    sync::Arc,
};

use netverdict_policy::{Direction, End, Family, PointName, Reason, Snapshot, Verdict};
use netverdict_probe::ProbeError;
use netverdict_tests::conformance::{Case, ExpectedPoint, FlowCase, KERNEL_LACKS, State, cases, inexpressible};
use nix::sched::{CloneFlags, unshare};

use self::{
    judged::{differences, recorded_verdict},
    node::{Node, Run},
    packet::Talk,
};

#[test]
fn the_datapath_decides_as_expected() {
    let cases = cases().unwrap();
    let Some(outcomes) = judge_all(&cases) else { return };

    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.wrong.is_empty())
        .map(|outcome| format!("{} ({})\n    {}", outcome.case, outcome.case.says, outcome.wrong.join("\n    ")))
        .collect();
    let points: usize = outcomes.iter().map(|outcome| outcome.points).sum();
    println!(
        "{} of {} cases pass with all that can be sent, {points} points in all",
        cases.len() - failed.len(),
        cases.len()
    );
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), cases.len(), failed.join("\n"));

    // A case that the kernel's way can send now must leave the list of exceptions.
    for id in inexpressible().unwrap()["kernel"].keys() {
        let of_case = || outcomes.iter().filter(|outcome| outcome.case.id == *id);
        for reason in of_case().flat_map(|outcome| &outcome.missing) {
            println!("{id}: {reason}");
        }
        assert!(
            of_case().any(|outcome| !outcome.missing.is_empty()),
            "{id} passes, and is in conformance/inexpressible.yaml for the kernel all the same"
        );
    }
}

/// Result of a case.
struct Outcome<'a> {
    case: &'a Case,
    /// Points that were judged.
    points: usize,
    /// Differences in flows that can be sent.
    wrong: Vec<String>,
    /// Differences in the flows with needs that the kernel's way lacks, which are tried too.
    missing: Vec<String>,
}

/// `None`, loudly, where the kernel cannot be reached.
fn judge_all(cases: &[Case]) -> Option<Vec<Outcome<'_>>> {
    if !rustix::process::geteuid().is_root() {
        return skip("it takes root rights");
    }
    let judge = || {
        // The programs sit on a loopback interface that carries no other traffic.
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let mut lab = Lab::default();
        cases.iter().map(|case| lab.judge(case)).collect::<Result<Vec<_>, _>>()
    };
    match std::thread::scope(|scope| scope.spawn(judge).join()) {
        Ok(Ok(outcomes)) => Some(outcomes),
        Ok(Err(error @ (ProbeError::NoObject | ProbeError::NoBpfFileSystem { .. }))) => skip(&error.to_string()),
        Ok(Err(error)) => panic!("the probe does not start: {error}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Every node that any case has. They stay from case to case: loading programs takes its time.
#[derive(Default)]
struct Lab {
    nodes: BTreeMap<String, Node>,
    /// No two talks have the same, so that no connection is known from an earlier one.
    last_port: u16,
}

/// A connection that was opened before a step.
struct Opened {
    talk: Talk,
    run: Run,
}

impl Lab {
    fn judge<'a>(&mut self, case: &'a Case) -> Result<Outcome<'a>, ProbeError> {
        let mut outcome = Outcome { case, points: 0, wrong: Vec::new(), missing: Vec::new() };
        let nodes = nodes(case);
        for name in &nodes {
            if !self.nodes.contains_key(name) {
                self.nodes.insert(name.clone(), Node::start(name)?);
            }
            self.node(name).begin();
        }
        let mut before: Option<&Arc<Snapshot>> = None;
        for step in &case.steps {
            let mut opened =
                step.flows.iter().map(|flow| self.open_before(before, flow)).collect::<Vec<_>>().into_iter();
            for name in &nodes {
                self.node(name).publish(&step.snapshot);
            }
            for flow in &step.flows {
                let lacks = flow.needs().iter().any(|need| KERNEL_LACKS.contains(need));
                let found = self.flow(&step.snapshot, flow, opened.next().unwrap_or_default());
                outcome.points += flow.points.len();
                let bin = if lacks { &mut outcome.missing } else { &mut outcome.wrong };
                bin.extend(found.into_iter().map(|what| format!("{}: {what}", flow.text)));
            }
            before = Some(&step.snapshot);
        }
        Ok(outcome)
    }

    /// Differences between the verdicts at a flow's points, taken together or one by one, and the expected ones.
    fn flow(&mut self, snapshot: &Snapshot, flow: &FlowCase, opened: Vec<Option<Opened>>) -> Vec<String> {
        if flow.points.is_empty() {
            return vec!["there is no pod's interface on the way".to_owned()];
        }
        let mut wrong = Vec::new();
        let mut verdicts = BTreeSet::new();
        let mut opened = opened.into_iter();
        for point in &flow.points {
            match self.point(snapshot, flow, point, opened.next().flatten()) {
                Ok((verdict, differences)) => {
                    verdicts.insert(verdict);
                    wrong.extend(differences);
                }
                Err(why) => wrong.push(format!("{}: {why}", point.name)),
            }
        }
        // The strictest: denied, else unknown.
        let verdict = [Verdict::Denied, Verdict::Unknown].into_iter().find(|verdict| verdicts.contains(verdict));
        let verdict = verdict.unwrap_or(Verdict::Allowed);
        if wrong.is_empty() && verdict != flow.verdict {
            wrong.push(format!("verdict: expected {}, found {verdict}", flow.verdict));
        }
        wrong
    }

    /// The verdict at a point, and its differences from the expected one.
    fn point(
        &mut self,
        snapshot: &Snapshot,
        flow: &FlowCase,
        point: &ExpectedPoint,
        opened: Option<Opened>,
    ) -> Result<(Verdict, Vec<String>), String> {
        let direction = point.name.direction();
        if flow.state == State::Established {
            let Some(Opened { talk, run: before }) = opened else {
                return Err("the connection could not be opened before".to_owned());
            };
            let node = self.bound(snapshot, point);
            let run = node.run(direction, &talk.going_on());
            // Without a new event, the earlier record stands.
            let run = if run.events.is_empty() { Run { dropped: run.dropped, ..before } } else { run };
            return Ok((recorded_verdict(&run)?, differences(point, node, &run)));
        }
        let talk = self.talk(snapshot, flow, point.name)?;
        let backend = address(snapshot, &flow.flow.destination, flow.flow.family);
        let node = self.bound(snapshot, point);
        match flow.state {
            State::New => {
                let run = match flow.via {
                    Some(_) if point.name == PointName::SourceEgress => {
                        node.run_translated(&talk.opening(), &talk.to(backend?, flow.flow.port).opening())
                    }
                    _ => node.run(direction, &talk.opening()),
                };
                // Behind the translation it is known; a packet that reaches no backend is never judged.
                if point.reason == Reason::ServiceNotResolved && !run.dropped && run.events.is_empty() {
                    return Ok((Verdict::Unknown, Vec::new()));
                }
                Ok((recorded_verdict(&run)?, differences(point, node, &run)))
            }
            State::NeighbourDiscovery => unrecorded(&node.run(direction, &talk.solicitation())),
            State::Reply | State::Related => {
                let first = node.run(direction, &talk.opening());
                if recorded_verdict(&first)? == Verdict::Denied {
                    return Err("what is to be answered is denied".to_owned());
                }
                let (packet, reason) = match flow.state {
                    State::Reply => (talk.reply(), Reason::Reply),
                    _ => (talk.error(), Reason::Related),
                };
                if point.reason != reason {
                    return Err(format!("reason: expected {}, found {reason}", point.reason));
                }
                unrecorded(&node.run(opposite(direction), &packet))
            }
            State::Established => unreachable!("answered above"),
        }
    }

    /// For each point of a flow that is established by now: its connection, as it was opened in the step before.
    fn open_before(&mut self, before: Option<&Arc<Snapshot>>, flow: &FlowCase) -> Vec<Option<Opened>> {
        let Some(before) = before.filter(|_| flow.state == State::Established) else { return Vec::new() };
        let mut open = |point: &ExpectedPoint| {
            let talk = self.talk(before, flow, point.name).ok()?;
            let direction = point.name.direction();
            let node = self.bound(before, point);
            let run = node.run(direction, &talk.opening());
            let answer = node.run(opposite(direction), &talk.reply());
            (!run.dropped && !answer.dropped && answer.events.is_empty()).then_some(Opened { talk, run })
        };
        flow.points.iter().map(&mut open).collect()
    }

    /// The ends as the packet has them at a point, from a port of their own.
    fn talk(&mut self, snapshot: &Snapshot, flow: &FlowCase, point: PointName) -> Result<Talk, String> {
        let source = address(snapshot, &flow.flow.source, flow.flow.family)?;
        let mut destination = address(snapshot, &flow.flow.destination, flow.flow.family)?;
        let mut destination_port = flow.flow.port.unwrap_or_default();
        // The pod itself sends to the Service.
        if let Some(via) = flow.via.filter(|_| point == PointName::SourceEgress) {
            (destination, destination_port) = (via.ip(), via.port());
        }
        self.last_port = self.last_port.checked_add(1).expect("fewer talks than there are ports").max(10_000);
        let protocol = flow.flow.protocol;
        Ok(Talk { source, destination, protocol, source_port: self.last_port, destination_port })
    }

    /// The point's node, with the subject behind its interface.
    fn bound(&mut self, snapshot: &Snapshot, point: &ExpectedPoint) -> &mut Node {
        let pod = &snapshot.pods[&point.subject];
        let node = self.node(&pod.node);
        node.bind(pod);
        node
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).expect("a node of the case")
    }
}

/// Nodes on which a point of the case is judged.
fn nodes(case: &Case) -> BTreeSet<String> {
    let subjects = |flow: &FlowCase| flow.points.iter().map(|point| point.subject.clone()).collect::<Vec<_>>();
    let of_step = case
        .steps
        .iter()
        .flat_map(|step| step.flows.iter().flat_map(subjects).map(|subject| step.snapshot.pods[&subject].node.clone()));
    of_step.collect()
}

/// A packet that has to pass by an earlier decision.
fn unrecorded(run: &Run) -> Result<(Verdict, Vec<String>), String> {
    match (run.dropped, &run.events[..]) {
        (false, []) => Ok((Verdict::Allowed, Vec::new())),
        (dropped, events) => Err(format!("expected to pass without a record: dropped {dropped}, {events:?}")),
    }
}

fn address(snapshot: &Snapshot, end: &End, family: Family) -> Result<IpAddr, String> {
    let found = match end {
        End::Address(address) => Some(*address),
        End::Pod(key) => {
            let pod = snapshot.pods.get(key);
            pod.and_then(|pod| pod.addresses.iter().copied().find(|address| Family::of(*address) == family))
        }
    };
    found.ok_or_else(|| format!("{end} has no address"))
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}

/// Says that the test did not run.
///
/// # Panics
/// Where kernel tests are required.
fn skip<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("NETVERDICT_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(!required, "kernel tests are required but cannot run: {why}");
    // Not by `eprintln!`: the harness captures such output of a passing test.
    let _ = writeln!(std::io::stderr(), "SKIPPED datapath: {why}");
    None
}
