//! Endpoint records that are rewritten while a program reads them. The kernel hands the memory of a replaced record to
//! the next write at once, and a lookup may miss both the old and the new record (ADR 7). This test provokes both about
//! a hundred thousand times as often as they happen on a node.

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

/// Interfaces that get the freed memory in turn, so that it takes long to return to the judged interface.
const OTHERS: u32 = 64;
/// All interfaces; each round judges the next. With so many, a lookup passes other records in the bucket first.
const PRESENT: u32 = 400;
/// The first interface index.
const FIRST: u32 = 1_000_000;
/// Packets between two checks.
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
    // A datagram: once it has passed, its connection is known and passes without a lookup.
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
    // The egress of the sender, which is a local pod too, is judged at the same hook, as another endpoint's.
    let mut of_pg = events.iter().filter(|event| event.ifindex == ifindex);
    let wrong = of_pg.find(|event| event.endpoint_owner != plan.owner("db/pg") || event.attribution != ISOLATED);
    assert!(wrong.is_none(), "judged by another's record, or by none: {wrong:?}");
    assert!(rounds > 1_000 && !events.is_empty());
}

/// Opens the map directly, because no publication writes fast enough.
fn records(node: &Node) -> Records {
    let versions = fs::read_dir(&node.options.pin_root).unwrap();
    let mut pins = versions.map(|version| version.unwrap().path().join("maps").join(name::ENDPOINTS));
    let pin = pins.find(|pin| pin.exists()).expect("the map is pinned");
    Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap().try_into().unwrap()
}

/// Pins the thread to a CPU: the writer and the programs must run on different ones.
fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu % thread::available_parallelism().map_or(1, usize::from));
    sched_setaffinity(None, &set).unwrap();
}
