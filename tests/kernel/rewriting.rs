//! Records that are rewritten under the eyes of a program: the kernel gives the memory of a replaced one to the next write
//! at once, and a search may come too late for the old one and too early for the new one. Here that comes a hundred
//! thousand times as often as in the life of a node.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use netverdict_abi::{Endpoint, Mode, map::name};
use netverdict_probe::test_run;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    node::Node,
    tables::{ISOLATED, Plan},
};

type Records = HashMap<MapData, u32, [u8; size_of::<Endpoint>()]>;

/// Interfaces that take the memory in turn, so that it is a long time before it comes back to the one that is judged.
const OTHERS: u32 = 64;
/// Interfaces in all, of which every round takes the next: with so many, a search comes by others first.
const PRESENT: u32 = 400;
/// The first of their indices.
const FIRST: u32 = 1_000_000;
/// Between two looks.
const JUDGEMENTS: u32 = 20_000;
const HAMMERED: Duration = Duration::from_secs(3);
/// `TCX_DROP`.
const DROP: u32 = 2;

#[test]
fn endpoint_is_always_judged_by_its_own_record() {
    let Some(mut node) = Node::start(Mode::Enforce, &["db/pg", "shop/web"]) else { return };
    let (pg, web) = (node.pod("db/pg"), node.pod("shop/web"));
    let plan = Plan::new(1, node.topology.pods()).isolate("db/pg");
    node.publish_and_attach(&plan.complete());
    node.forget_events();
    let ifindex = node.ifindex(&pg);
    let mut packet = Vec::new();
    // A datagram: what passes once is known, and passes from then on.
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(web.v4.octets(), pg.v4.octets(), 64)
        .udp(40_000, 53)
        .write(&mut packet, b"hello")
        .unwrap();

    let mut records = records(&node);
    let own = records.get(&ifindex, 0).unwrap();
    let lets_all_in = records.get(&node.ifindex(&web), 0).unwrap();
    for other in 0..PRESENT {
        records.insert(FIRST + other, lets_all_in, 0).unwrap();
    }
    let stop = AtomicBool::new(false);
    let (mut looks, mut events) = (0_u32, Vec::new());
    let rounds = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            stay_on(1);
            let mut rounds = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                records.insert(ifindex, own, 0).unwrap();
                for other in 0..OTHERS {
                    let other = (rounds * OTHERS + other) % PRESENT;
                    records.insert(FIRST + other, lets_all_in, 0).unwrap();
                }
                rounds += 1;
            }
            rounds
        });
        let anywhere = sched_getaffinity(None).unwrap();
        stay_on(0);
        let (started, mut dropped) = (Instant::now(), true);
        while dropped && started.elapsed() < HAMMERED {
            let run = test_run(&node.options.pin_root, name::TO_POD, &packet, ifindex, JUDGEMENTS).unwrap();
            dropped = run.return_value == DROP;
            events.extend(node.events());
            looks += 1;
        }
        stop.store(true, Ordering::Relaxed);
        sched_setaffinity(None, &anywhere).unwrap();
        assert!(dropped, "let in by another's record, in one of {} judgements", looks * JUDGEMENTS);
        writing.join().unwrap()
    });
    println!("{} judgements while {} of {PRESENT} records were written {rounds} times", looks * JUDGEMENTS, OTHERS + 1);
    let wrong =
        events.iter().find(|event| event.endpoint_owner != plan.owner("db/pg") || event.attribution != ISOLATED);
    assert!(wrong.is_none(), "judged by another's record, or by none: {wrong:?}");
    assert!(rounds > 1_000 && !events.is_empty());
}

/// The map itself: nothing that publishes writes as fast.
fn records(node: &Node) -> Records {
    let versions = fs::read_dir(&node.options.pin_root).unwrap();
    let mut pins = versions.map(|version| version.unwrap().path().join("maps").join(name::ENDPOINTS));
    let pin = pins.find(|pin| pin.exists()).expect("the map is pinned");
    Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap().try_into().unwrap()
}

/// The writer on one processor, the programs on another.
fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu % thread::available_parallelism().map_or(1, usize::from));
    sched_setaffinity(None, &set).unwrap();
}
