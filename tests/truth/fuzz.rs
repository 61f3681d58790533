//! Fuzzing: for truncated, corrupted and random packets the programs return a valid verdict, account for every event,
//! and judge the next valid packet correctly.

mod forge;
mod wire;

use std::{net::IpAddr, time::Instant};

use netverdict_abi::{
    ABI_VERSION, Direction, Disposition, EventKind, KernelReason, Lane, Mode, Verdict, VerdictEvent, map::name,
};
use netverdict_policy::{AttributionId, Reason};
use netverdict_probe::{Probe, RingBytes, test_run};

use self::forge::Forge;
use crate::{
    node::Node,
    packets::{ETHERNET, datagram, syn},
    table::PODS,
};

/// Packets in each of two modes; more than a million in total.
const PACKETS: usize = 520_000;
/// Packets between two checks of counters and events. They cause more denials than the ring can hold.
const BATCH: usize = 2_000;
/// The longest packet for `BPF_PROG_TEST_RUN`, which must fit into a page beside the kernel's own data. Longer ones are
/// in [`wire`].
const LONGEST: usize = 3_700;

const PASS: u32 = u32::MAX;
const DROP: u32 = 2;

/// `x/a` and `y/a` may reach each other on port 80, and no other pod.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: x, name: only-y}
spec:
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}], ports: [{port: 80}, {protocol: UDP, port: 80}]}]
  egress: [{to: [{namespaceSelector: {matchLabels: {ns: 'y'}}}], ports: [{port: 80}, {protocol: UDP, port: 80}]}]
";

#[test]
fn enforcing_programs_bear_any_packet() {
    fuzz(152, Mode::Enforce, 0x5eed_0001);
}

#[test]
fn observing_programs_bear_any_packet_and_drop_none() {
    fuzz(153, Mode::Observe, 0x5eed_0002);
}

fn fuzz(subnet: u8, mode: Mode, seed: u64) {
    let Some(mut node) = node_with_small_rings(subnet, mode) else { return };
    let snapshot = node.snapshot(&[PODS, POLICY]);
    node.publish(1, &snapshot);
    let [own, friend, stranger] = ["x/a", "y/a", "z/a"].map(|name| node.pod(name));
    let ifindex = node.ifindex(&own);
    let mut pairs = Vec::new();
    for family in [4, 6] {
        for other in [&friend, &stranger] {
            pairs.push((own.address(family), other.address(family)));
            pairs.push((other.address(family), own.address(family)));
        }
    }
    // A packet of another pod is judged as that pod's egress too.
    let ends: Vec<u32> = node.topology.pods().iter().map(|pod| node.ifindex(pod)).collect();
    let mut forge = Forge::new(seed, &pairs, LONGEST);
    let root = node.options.pin_root.clone();
    let run = |program: &str, packet: &[u8]| -> bool {
        let run = test_run(&root, program, packet, ifindex, 1).unwrap();
        assert!(
            matches!(run.return_value, PASS | DROP),
            "{program} returned {:#x} for {packet:02x?}",
            run.return_value
        );
        assert_eq!(run.data_out, packet, "{program} only looks");
        run.return_value == DROP
    };

    let started = Instant::now();
    let mut account = Account::of(&node.probe);
    let mut flooded_before = 0;
    let (mut dropped_in_all, mut lost_in_all, mut denied_in_all) = (0, 0, 0);
    for batch in 0..PACKETS / BATCH {
        let mut dropped = 0;
        for _ in 0..BATCH {
            let packet = next_taken(&mut forge);
            let program = if forge.random.below(2) == 0 { name::TO_POD } else { name::FROM_POD };
            dropped += u64::from(run(program, &packet));
        }
        let (denied, lost) =
            account.settle(&mut node, mode, &|event| assert!(ends.contains(&event.ifindex), "{event:?}"));
        let flooded = node.probe.counters().unwrap().flooded - flooded_before;
        flooded_before += flooded;
        match mode {
            Mode::Enforce => {
                let accounted_for = denied + flooded;
                assert_eq!(dropped, accounted_for, "each drop is told, in batch {batch} of seed {seed:#x}");
            }
            Mode::Observe | Mode::Audit => assert_eq!(dropped, 0, "in batch {batch} of seed {seed:#x}"),
        }
        dropped_in_all += dropped;
        lost_in_all += lost;
        denied_in_all += denied;

        // The point of the test: valid packets are judged correctly afterwards.
        let source_port = 0x5a00 + u16::try_from(batch).unwrap();
        for family in [4, 6] {
            let at = |pod: &netverdict_tests::topology::PodNetwork| pod.address(family);
            for (program, source, destination, allowed) in [
                (name::TO_POD, at(&friend), at(&own), true),
                (name::TO_POD, at(&stranger), at(&own), false),
                (name::FROM_POD, at(&own), at(&friend), true),
                (name::FROM_POD, at(&own), at(&stranger), false),
            ] {
                good(&mut node, mode, &run, (program, ifindex), (source, destination, source_port), allowed);
            }
        }
        account = Account::of(&node.probe);
    }
    println!(
        "{mode:?}: {} packets in {} ms: {denied_in_all} denied, {dropped_in_all} dropped, {lost_in_all} events found no room",
        PACKETS / BATCH * BATCH,
        started.elapsed().as_millis()
    );
    assert!(denied_in_all > 0 && lost_in_all > 0);
}

/// The next packet that `BPF_PROG_TEST_RUN` accepts. It refuses a packet that announces IP and ends inside the fixed
/// header, unless a VLAN tag comes first. Such packets are sent over the wire instead.
fn next_taken(forge: &mut Forge) -> Vec<u8> {
    loop {
        let packet = forge.next();
        let least = ETHERNET
            + match packet[12..ETHERNET] {
                [0x08, 0x00] => 20,
                [0x86, 0xdd] => 40,
                _ => 0,
            };
        if packet.len() >= least {
            return packet;
        }
    }
}

/// Checks that a new TCP connection and a new UDP flow are judged by the policy.
fn good(
    node: &mut Node,
    mode: Mode,
    run: &dyn Fn(&str, &[u8]) -> bool,
    (program, ifindex): (&str, u32),
    (source, destination, source_port): (IpAddr, IpAddr, u16),
    allowed: bool,
) {
    for packet in
        [syn(source, destination, source_port, 80), datagram(source, destination, source_port, 80, LONGEST - 100)]
    {
        let dropped = run(program, &packet);
        assert_eq!(dropped, !allowed && mode == Mode::Enforce, "{program} {source} -> {destination}");
        let mut events = node.events();
        events.retain(|event| event.ifindex == ifindex);
        let [event] = &events[..] else {
            panic!(
                "{program} {source} -> {destination} from port {source_port}, {} bytes: one event, not {events:?}; {:?}",
                packet.len(),
                node.probe.counters()
            )
        };
        let reason = node.compiler.decision(AttributionId(event.attribution)).map(|decision| decision.reason);
        let (verdict, expected) =
            if allowed { (Verdict::Allowed, Reason::RuleMatch) } else { (Verdict::Denied, Reason::IsolatedNoMatch) };
        assert_eq!((event.verdict, reason), (verdict as u8, Some(expected)), "{event:?}");
        assert_eq!((event.source_port, event.length as usize), (source_port, packet.len()));
    }
}

/// The counters of each lane and CPU at the last check.
struct Account(Vec<(Lane, u64, u64)>);

impl Account {
    fn of(probe: &Probe) -> Self {
        Self(probe.counters().unwrap().lanes.iter().map(|count| (count.lane, count.seq, count.lost)).collect())
    }

    /// Reads all events, and asserts that `seq` grew by the delivered and the lost ones. Returns (denied, lost) since
    /// the last check.
    fn settle(&mut self, node: &mut Node, mode: Mode, look: &dyn Fn(&VerdictEvent)) -> (u64, u64) {
        let events = node.events();
        for event in &events {
            check(event, mode);
            look(event);
        }
        let now = Self::of(&node.probe);
        let (mut denied, mut lost) = (0, 0);
        for lane in [Lane::Denied, Lane::Flow] {
            let sum = |account: &Self| {
                let lanes = account.0.iter().filter(|(of, _, _)| *of == lane);
                lanes.fold((0, 0), |(seq, lost), (_, more_seq, more_lost)| (seq + more_seq, lost + more_lost))
            };
            let ((seq, lost_now), (seq_before, lost_before)) = (sum(&now), sum(self));
            let delivered = events.iter().filter(|event| event.lane == lane as u8).count() as u64;
            assert_eq!(seq - seq_before, delivered + (lost_now - lost_before), "{lane:?}");
            lost += lost_now - lost_before;
            if lane == Lane::Denied {
                denied = seq - seq_before;
            }
        }
        *self = now;
        (denied, lost)
    }
}

/// Asserts that an event is valid, for any packet.
fn check(event: &VerdictEvent, mode: Mode) {
    assert_eq!((event.kind, event.abi_version, event.mode), (EventKind::Verdict as u8, ABI_VERSION, mode as u8));
    assert!(Direction::try_from(event.direction).is_ok() && KernelReason::try_from(event.reason).is_ok(), "{event:?}");
    assert!(matches!(event.family, 0 | 4 | 6) && event.seq > 0 && event.length as usize >= ETHERNET, "{event:?}");
    let dropped = event.disposition == Disposition::Dropped as u8;
    assert!(dropped || event.disposition == Disposition::Forwarded as u8, "{event:?}");
    let denied = event.verdict == Verdict::Denied as u8;
    assert_eq!(denied, event.lane == Lane::Denied as u8, "{event:?}");
    assert_eq!(dropped, denied && mode == Mode::Enforce, "{event:?}");
    let by_policy = event.reason == KernelReason::ByPolicy as u8;
    assert!(!by_policy || event.attribution != 0, "{event:?}");
}

fn node_with_small_rings(subnet: u8, mode: Mode) -> Option<Node> {
    Node::start_with(subnet, PODS, |options| {
        options.mode = mode;
        options.ring_bytes = RingBytes { denied: RingBytes::SMALLEST, flow: RingBytes::SMALLEST };
        // Small, so that entries are evicted all the time.
        options.max_connections = 8_192;
        options.max_fragments = 256;
    })
}
