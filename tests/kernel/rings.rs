//! Events in the rings: each is delivered once and in order, and those for which the ring has no room are counted.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use netverdict_abi::{Lane, Mode, VerdictEvent};
use netverdict_probe::{ProbeError, RingBytes};

use crate::{
    node::{Node, events_of},
    tables::Plan,
    traffic::udp,
};

/// A node that denies everything from `shop/web` to `db/pg`, with rings of the smallest size.
fn denying_node() -> Option<Node> {
    let mut node = Node::start_with(&["shop/web", "db/pg"], |options| {
        options.mode = Mode::Enforce;
        options.ring_bytes = RingBytes { denied: RingBytes::SMALLEST, flow: RingBytes::SMALLEST };
    })?;
    let change = Plan::new(1, node.topology.pods()).isolate("db/pg").complete();
    node.publish_and_attach(&change);
    node.forget_events();
    Some(node)
}

/// Sends datagrams that are denied, each of another flow.
fn send_denied(node: &Node, ports: std::ops::Range<u16>) {
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let sender = udp(&web, 4, 0);
    for port in ports {
        sender.send_to(b"x", SocketAddr::new(pg.address(4), port)).unwrap();
    }
}

fn ports(events: &[VerdictEvent]) -> Vec<u16> {
    events.iter().map(|event| event.destination_port).collect()
}

#[test]
fn records_are_there_until_they_are_committed() {
    let Some(mut node) = denying_node() else { return };
    send_denied(&node, 7000..7010);
    let [denied, _] = node.readers();
    let first = denied.drain(usize::MAX).expect("ten records");
    assert_eq!(ports(&events_of(&first)), (7000..7010).collect::<Vec<_>>());
    assert_eq!(denied.drain(usize::MAX), None, "a batch hands out what the last one did not");
    assert!(denied.fill().0 > 0, "but the kernel has no room back yet");

    node.stop();
    node.start_again();
    let [denied, _] = node.readers();
    assert_eq!(denied.drain(usize::MAX).expect("the same ten"), first);
    denied.commit();
    assert_eq!(denied.fill().0, 0);
    assert_eq!(denied.drain(usize::MAX), None);
}

#[test]
fn batches_stay_within_the_bytes_asked_for_but_are_never_empty() {
    let Some(mut node) = denying_node() else { return };
    send_denied(&node, 7000..7010);
    let [denied, _] = node.readers();
    let record = 4 + size_of::<VerdictEvent>();
    let mut sizes = Vec::new();
    for limit in [0, 3 * record, 3 * record - 1, usize::MAX] {
        sizes.push(denied.drain(limit).expect("records are left").records);
    }
    assert_eq!(sizes, [1, 3, 2, 4]);
}

#[test]
fn sequence_goes_on_around_the_end_of_the_ring() {
    let Some(mut node) = denying_node() else { return };
    let mut last = BTreeMap::<(u8, u32), u64>::new();
    let mut seen = 0_u64;
    for round in 0..40_u16 {
        send_denied(&node, 10_000 + round * 100..10_100 + round * 100);
        for event in node.events() {
            let before = last.insert((event.lane, event.cpu), event.seq);
            assert!(before.is_none_or(|before| event.seq == before + 1), "{before:?} then {}", event.seq);
            seen += 1;
        }
    }
    assert_eq!(seen, 8_000, "each end of 4000 flows: more than seven times around either ring");
    assert_eq!(lost(&mut node), 0);
}

#[test]
fn full_ring_counts_what_it_has_no_room_for() {
    let Some(mut node) = denying_node() else { return };
    let already: u64 = account(&mut node).iter().map(|(seq, _)| seq).sum();
    send_denied(&node, 10_000..12_000);
    let ifindex = node.ifindex(&node.pod("db/pg"));
    let delivered = node.events().iter().filter(|event| event.lane == Lane::Denied as u8).count() as u64;
    let (seq, lost) = account(&mut node).into_iter().fold((0, 0), |(a, b), (seq, lost)| (a + seq, b + lost));
    assert!(lost > 0, "2000 records do not fit 64 KiB");
    assert_eq!(seq - already, delivered + lost);
    let losses = node.probe().counters().unwrap().losses;
    let of_pod: u64 =
        losses.iter().filter(|loss| loss.ifindex == ifindex && loss.lane == Lane::Denied).map(|loss| loss.lost).sum();
    assert_eq!(of_pod, lost);
}

#[test]
fn waiting_reader_wakes_for_a_record_and_only_for_one() {
    let Some(mut node) = denying_node() else { return };
    assert!(matches!(
        {
            node.readers();
            node.probe().rings()
        },
        Err(ProbeError::RingsTaken)
    ));
    assert!(!node.readers()[0].wait(Duration::from_millis(1)).unwrap());
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let [denied, _] = node.readers();
    let sender = udp(&web, 4, 0);
    for port in 7000..7050 {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                assert!(denied.wait(Duration::from_secs(10)).unwrap());
                let batch = denied.drain(usize::MAX).expect("what it woke for");
                denied.commit();
                batch.records
            });
            sender.send_to(b"x", SocketAddr::new(pg.address(4), port)).unwrap();
            assert_eq!(waiting.join().unwrap(), 1);
        });
    }
}

/// (seq, lost) of the denied lane for each CPU.
fn account(node: &mut Node) -> Vec<(u64, u64)> {
    let lanes = node.probe().counters().unwrap().lanes;
    lanes.iter().filter(|count| count.lane == Lane::Denied).map(|count| (count.seq, count.lost)).collect()
}

fn lost(node: &mut Node) -> u64 {
    account(node).iter().map(|(_, lost)| lost).sum()
}
