//! Records that are rewritten under the eyes of a program. The kernel gives the memory of a replaced one to the next write
//! at once; here that comes a hundred thousand times as often as in the life of a node.

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

use crate::{node::Node, tables::Plan};

type Records = HashMap<MapData, u32, [u8; size_of::<Endpoint>()]>;

/// Interfaces that take the memory in turn, so that it is a long time before it comes back to the one that is judged.
const OTHERS: u32 = 64;
/// Between two looks.
const JUDGEMENTS: u32 = 20_000;
const HAMMERED: Duration = Duration::from_secs(3);
/// `TCX_DROP`.
const DROP: u32 = 2;

#[test]
fn endpoint_is_never_judged_by_the_record_of_another() {
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
    let stop = AtomicBool::new(false);
    let (mut looks, mut events) = (0_u32, Vec::new());
    let rounds = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            stay_on(1);
            let mut rounds = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                records.insert(ifindex, own, 0).unwrap();
                for other in 0..OTHERS {
                    records.insert(1_000_000 + other, lets_all_in, 0).unwrap();
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
    println!("{} judgements while {} records were written {rounds} times", looks * JUDGEMENTS, OTHERS + 1);
    let names_other = events.iter().find(|event| event.endpoint_owner != plan.owner("db/pg"));
    assert!(names_other.is_none(), "a record names the pod of another interface: {names_other:?}");
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
