//! Policies and labels change under traffic. Every packet must be judged by one state, the old or the new one, never by
//! a mixture.

mod traffic;

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use netverdict_abi::{Direction as AbiDirection, Disposition, KernelReason, Mode, Verdict as AbiVerdict, VerdictEvent};
use netverdict_policy::{AttributionId, Compiler, Direction, Snapshot, Verdict, model::Protocol};
use netverdict_tests::topology::PodNetwork;

use self::traffic::{Attempt, Clock, Receivers};
use crate::{
    cells::{Cell, FAMILIES},
    expect::{self, Expected, address},
    node::{Node, drain},
    table::{PODS, sets},
};

const SUBNET: u8 = 151;
const PUBLICATIONS: usize = 60;
/// The least number of rounds of new flows from every pod between two publications.
const ROUNDS_BETWEEN: u64 = 2;
/// The states in order. One set is followed by the same policies with other labels.
const STATES: [&str; 8] = [
    "01-open",
    "04-pod-selector",
    "18-relabelled",
    "12-both-directions",
    "03-deny-all",
    "11-blocks",
    "14-admin-and-baseline",
    "08-named-ports",
];
/// Port of the connections that are open during the whole test.
const KEPT_PORT: u16 = 9000;
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn no_packet_gets_a_verdict_that_neither_the_old_nor_the_new_state_gives() {
    let Some(mut node) = Node::start(SUBNET, Mode::Enforce, PODS) else { return };
    let pods = node.topology.pods().to_vec();
    let texts: BTreeMap<_, _> = sets().into_iter().collect();
    let states = STATES.map(|name| node.snapshot(&[PODS, &texts[name]]));

    let first = node.publish(1, &states[0]);
    let mut kept = Kept::open(&pods);
    node.events();

    let clock = Clock { committed: AtomicU64::new(first), begun: AtomicU64::new(first), over: AtomicBool::new(false) };
    let receivers = Receivers::start(&pods);
    let mut states_by_revision = BTreeMap::from([(first, 0)]);
    let mut began_at = BTreeMap::from([(first, 0)]);
    let Node { probe, compiler, readers, .. } = &mut node;
    let started = Instant::now();
    let (attempts, arrivals, mut events) = thread::scope(|scope| {
        let senders: Vec<_> = (0..pods.len())
            .map(|source| {
                let (pods, clock, receivers) = (&pods, &clock, &receivers);
                scope.spawn(move || pods[source].enter(|| traffic::send(source, pods, clock, receivers)).unwrap())
            })
            .collect();
        let receiving = scope.spawn(|| receivers.receive(&pods, &clock));
        let reading = scope.spawn(|| {
            let mut events = Vec::new();
            while !clock.over.load(Ordering::SeqCst) {
                events.extend(readers.iter_mut().flat_map(drain));
                thread::sleep(Duration::from_millis(5));
            }
            events
        });
        // The threads must end even if this panics.
        let edited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for publication in 1..=PUBLICATIONS {
                let state = publication % states.len();
                let change = compiler.compile(&states[state]);
                let revision = clock.begun.load(Ordering::SeqCst) + 1;
                clock.begun.store(revision, Ordering::SeqCst);
                began_at.insert(revision, since_boot());
                states_by_revision.insert(revision, state);
                assert_eq!(probe.publish(publication as u64 + 1, &change).unwrap(), revision);
                clock.committed.store(revision, Ordering::SeqCst);
                kept.speak();
                receivers.await_rounds(ROUNDS_BETWEEN);
            }
        }));
        clock.over.store(true, Ordering::SeqCst);
        let attempts: Vec<Attempt> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        let (arrivals, events) = (receiving.join().unwrap(), reading.join().unwrap());
        if let Err(panic) = edited {
            std::panic::resume_unwind(panic);
        }
        (attempts, arrivals, events)
    });
    let took = started.elapsed();
    events.extend(node.events());
    let lost: u64 = node.probe.counters().unwrap().lanes.iter().map(|lane| lane.lost).sum();
    assert_eq!(lost, 0, "the ring was too small for this test");

    let mut judge = Judge {
        compiler: &node.compiler,
        pods: &pods,
        states: &states,
        states_by_revision: &states_by_revision,
        began_at: &began_at,
        known: HashMap::new(),
        faults: Vec::new(),
        stale: 0,
    };
    let mut by_flow = HashMap::<FlowKey, Vec<VerdictEvent>>::new();
    for event in events {
        by_flow.entry(FlowKey::of(&event)).or_default().push(event);
    }
    for (cell, source_port) in &kept.flows {
        judge.kept(cell, &by_flow.remove(&FlowKey::at(&pods, cell, *source_port)).unwrap_or_default());
    }
    let mut never = 0;
    let mut torn_between = 0;
    for attempt in &attempts {
        let events = by_flow.remove(&FlowKey::at(&pods, &attempt.cell, attempt.source_port)).unwrap_or_default();
        let arrived = match attempt.connected {
            Some(connected) => connected.then_some(u64::MAX),
            None => arrivals.get(&(attempt.cell, attempt.source_port)).copied(),
        };
        let (egress, ingress) = judge.attempt(attempt, arrived, &events);
        torn_between += u32::from(ingress.is_some_and(|ingress| ingress != egress));
        let latest = egress.max(ingress.unwrap_or_default()).max(attempt.committed + 1);
        if judge.denied_throughout(&attempt.cell, attempt.committed..=latest) {
            never += 1;
            if arrived.is_some() {
                judge.faults.push(format!("{}: denied before and after, but arrived", attempt.cell.shown(&pods)));
            }
        }
    }
    judge.faults.extend(by_flow.into_values().flatten().map(|event| format!("nobody's event: {event:?}")));
    println!(
        "{PUBLICATIONS} publications in {} ms under {} flows: {} arrived, {never} denied before and after, {torn_between} judged \
         by one state at one end and by the next at the other, {} connections noted as stale",
        took.as_millis(),
        attempts.len(),
        arrivals.len() + attempts.iter().filter(|attempt| attempt.connected == Some(true)).count(),
        judge.stale
    );
    let count = judge.faults.len();
    judge.faults.truncate(20);
    assert!(count == 0, "{count} faults:\n  {}", judge.faults.join("\n  "));
    assert!(never > 0 && judge.stale > 0 && attempts.len() > 10 * PUBLICATIONS);
}

/// Compares the outcome of flows with the states.
struct Judge<'a> {
    compiler: &'a Compiler,
    pods: &'a [PodNetwork],
    states: &'a [Arc<Snapshot>],
    states_by_revision: &'a BTreeMap<u64, usize>,
    /// When the publication of each revision began, in nanoseconds since boot.
    began_at: &'a BTreeMap<u64, u64>,
    known: HashMap<(usize, Cell), Expected>,
    faults: Vec<String>,
    /// Connections that pass only because they are older than the policy.
    stale: u32,
}

impl Judge<'_> {
    /// Checks a flow of one packet. Returns the revisions that judged it.
    fn attempt(&mut self, attempt: &Attempt, arrived: Option<u64>, events: &[VerdictEvent]) -> (u64, Option<u64>) {
        let at = |direction: AbiDirection| -> Vec<&VerdictEvent> {
            events.iter().filter(|event| event.direction == direction as u8).collect()
        };
        let (egress, ingress) = (at(AbiDirection::Egress), at(AbiDirection::Ingress));
        let Some(left) = self.point(attempt, Direction::Egress, &egress, attempt.committed, arrived) else {
            return (0, None);
        };
        let entered = if left.1 == Verdict::Allowed {
            self.point(attempt, Direction::Ingress, &ingress, left.0, arrived)
        } else {
            if !ingress.is_empty() {
                self.fault(attempt, "dropped at its source, but judged at its destination");
            }
            None
        };
        let passes = entered.is_some_and(|(_, verdict)| verdict == Verdict::Allowed);
        if passes != arrived.is_some() {
            self.fault(attempt, &format!("arrived: {}, recorded: {events:?}", arrived.is_some()));
        }
        (left.0, entered.map(|(revision, _)| revision))
    }

    /// Checks the events of one end: one verdict by policy, and possibly one event that the connection is stale.
    fn point(
        &mut self,
        attempt: &Attempt,
        direction: Direction,
        events: &[&VerdictEvent],
        earliest: u64,
        arrived: Option<u64>,
    ) -> Option<(u64, Verdict)> {
        let (by_policy, later): (Vec<_>, Vec<_>) =
            events.iter().copied().partition(|event: &&VerdictEvent| event.reason == KernelReason::ByPolicy as u8);
        for event in later {
            self.stale(&attempt.cell, direction, event);
        }
        let [event] = by_policy[..] else {
            self.fault(attempt, &format!("{} events at {direction:?}, not 1: {events:?}", by_policy.len()));
            return None;
        };
        let revision = event.revision;
        if revision < earliest || arrived.is_some_and(|latest| revision > latest) {
            self.fault(attempt, &format!("revision {revision} at {direction:?}, expected {earliest} to {arrived:?}"));
        }
        let decision = self.expected(revision, &attempt.cell).map(|expected| expected.at(direction).clone());
        let Some(decision) = decision else {
            self.fault(attempt, &format!("revision {revision} was never published"));
            return None;
        };
        if event.boot_time < self.began_at[&revision] {
            self.fault(attempt, &format!("judged by revision {revision} before it began"));
        }
        let wrong = expect::fault(event, self.compiler, self.pods, &attempt.cell, direction, &decision);
        if let Some(wrong) = wrong {
            self.fault(attempt, &format!("revision {revision} at {direction:?}: {wrong}"));
        }
        Some((revision, decision.verdict))
    }

    /// Checks a connection that is older than all edits: it always passes, and its only events say that it is stale.
    fn kept(&mut self, cell: &Cell, events: &[VerdictEvent]) {
        if events.is_empty() {
            self.faults.push(format!("{}: never noted as stale", cell.shown(self.pods)));
        }
        for event in events {
            let ours = AbiDirection::try_from(event.direction).unwrap();
            let direction = if ours == AbiDirection::Egress { Direction::Egress } else { Direction::Ingress };
            self.stale(cell, direction, event);
        }
    }

    fn stale(&mut self, cell: &Cell, direction: Direction, event: &VerdictEvent) {
        self.stale += 1;
        let decision = self.expected(event.revision, cell).map(|expected| expected.at(direction).clone());
        let told = self.compiler.decision(AttributionId(event.attribution)).map(|decision| (**decision).clone());
        let right = decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::Denied)
            && told == decision
            && (event.reason, event.verdict, event.disposition)
                == (KernelReason::EstablishedStale as u8, AbiVerdict::Allowed as u8, Disposition::Forwarded as u8);
        if !right {
            let shown = cell.shown(self.pods);
            self.faults
                .push(format!("{shown} at {direction:?}: {event:?} tells {told:?}, the state says {decision:?}"));
        }
    }

    /// Whether one end denies the cell in all of these states. (If one end denies it in the old state and the other end
    /// in the new one, a packet may pass both.)
    fn denied_throughout(&mut self, cell: &Cell, revisions: RangeInclusive<u64>) -> bool {
        [Direction::Egress, Direction::Ingress].into_iter().any(|direction| {
            revisions.clone().all(|revision| {
                let expected = self.expected(revision, cell);
                expected.is_none_or(|expected| expected.at(direction).verdict == Verdict::Denied)
            })
        })
    }

    fn expected(&mut self, revision: u64, cell: &Cell) -> Option<&Expected> {
        let state = *self.states_by_revision.get(&revision)?;
        let (states, pods) = (self.states, self.pods);
        Some(self.known.entry((state, *cell)).or_insert_with(|| Expected::of(&states[state], pods, cell)))
    }

    fn fault(&mut self, attempt: &Attempt, what: &str) {
        self.faults.push(format!("{} from port {}: {what}", attempt.cell.shown(self.pods), attempt.source_port));
    }
}

/// The flow of an event, the same for both ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    source_port: u16,
    port: u16,
}

impl FlowKey {
    fn of(event: &VerdictEvent) -> Self {
        let VerdictEvent { source, destination, protocol, source_port, destination_port: port, .. } = *event;
        Self { source, destination, protocol, source_port, port }
    }

    fn at(pods: &[PodNetwork], cell: &Cell, source_port: u16) -> Self {
        Self {
            source: address(&pods[cell.source], cell.family),
            destination: address(&pods[cell.destination], cell.family),
            protocol: cell.protocol.0,
            source_port,
            port: cell.port,
        }
    }
}

/// Connections from each pod to the next, opened before the first edit.
struct Kept {
    flows: Vec<(Cell, u16)>,
    connections: Vec<(TcpStream, TcpStream)>,
}

impl Kept {
    fn open(pods: &[PodNetwork]) -> Self {
        let mut kept = Self { flows: Vec::new(), connections: Vec::new() };
        for (source, pod) in pods.iter().enumerate() {
            let destination = (source + 1) % pods.len();
            let family = FAMILIES[source % FAMILIES.len()];
            let to = SocketAddr::new(pods[destination].address(family), KEPT_PORT);
            let listener = pods[destination].enter(|| TcpListener::bind(to)).unwrap().unwrap();
            let client = pod.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
            let (server, from) = listener.accept().unwrap();
            for end in [&client, &server] {
                end.set_nodelay(true).unwrap();
                end.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            let cell = Cell { source, destination, protocol: Protocol::TCP, family, port: KEPT_PORT };
            kept.flows.push((cell, from.port()));
            kept.connections.push((client, server));
        }
        kept
    }

    /// Sends a byte in both directions on each connection.
    fn speak(&mut self) {
        for (client, server) in &mut self.connections {
            client.write_all(b"?").unwrap();
            server.read_exact(&mut [0]).expect("a connection goes on through all edits");
            server.write_all(b"!").unwrap();
            client.read_exact(&mut [0]).expect("and so do its answers");
        }
    }
}

/// `CLOCK_BOOTTIME` in nanoseconds, like the time of events.
fn since_boot() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}
