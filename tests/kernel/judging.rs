//! The programs judge packets by the tables.

use netverdict_abi::{Direction, Disposition, KernelReason, Mode, Verdict, address::v4_mapped, map::name};
use netverdict_probe::test_run;

use crate::{
    node::Node,
    tables::{ISOLATED, NO_POLICY, Plan, RULE},
    traffic::{arrives, connects, udp},
};

#[test]
fn allowed_connection_passes_and_is_recorded_once_at_each_end() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let plan = Plan::new(1, node.topology.pods()).isolate("db/pg").accept("shop/web", "db/pg");
    let revision = node.publish_and_attach(&plan.complete());
    for (family, port) in [(4, 5432), (6, 5433)] {
        node.forget_events();
        assert!(connects(&web, &pg, family, port), "family {family}");
        let (web_ifindex, pg_ifindex) = (node.ifindex(&web), node.ifindex(&pg));
        let events: Vec<_> = node.events().into_iter().filter(|event| event.destination_port == port).collect();
        let seen: Vec<_> =
            events.iter().map(|event| (event.ifindex, event.direction, event.attribution, event.verdict)).collect();
        let allowed = Verdict::Allowed as u8;
        assert_eq!(
            seen,
            [
                (web_ifindex, Direction::Egress as u8, NO_POLICY, allowed),
                (pg_ifindex, Direction::Ingress as u8, RULE, allowed)
            ],
            "family {family}"
        );
        for event in events {
            assert_eq!((event.revision, event.family, event.protocol), (revision, family, 6));
            assert_eq!(event.disposition, Disposition::Forwarded as u8);
            assert_eq!((event.source_owner, event.destination_owner), (plan.owner("shop/web"), plan.owner("db/pg")));
            assert!(event.boot_time > 0);
        }
    }
}

#[test]
fn denied_connection_gets_no_answer_and_is_recorded_with_its_attribution() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    node.publish_and_attach(&Plan::new(1, node.topology.pods()).isolate("db/pg").complete());
    for family in [4, 6] {
        node.forget_events();
        assert!(!connects(&web, &pg, family, 5432), "family {family}");
        let events = node.events_to(&pg, 5432);
        let first = events.first().expect("a denial is recorded");
        assert_eq!((first.verdict, first.attribution), (Verdict::Denied as u8, ISOLATED));
        assert_eq!((first.disposition, first.reason), (Disposition::Dropped as u8, KernelReason::ByPolicy as u8));
        if family == 4 {
            assert_eq!(first.destination, v4_mapped(pg.v4.octets()));
        }
    }
    assert!(connects(&pg, &web, 4, 80), "isolated for ingress is not isolated for egress");
}

#[test]
fn observing_node_records_a_denial_and_drops_nothing_until_it_enforces() {
    let Some(mut node) = Node::start(Mode::Observe, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    node.publish_and_attach(&Plan::new(1, node.topology.pods()).isolate("db/pg").complete());
    node.forget_events();
    assert!(arrives(&web, &pg, 4, 7000));
    let events = node.events_to(&pg, 7000);
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].verdict, events[0].disposition), (Verdict::Denied as u8, Disposition::Forwarded as u8));
    assert_eq!(events[0].mode, Mode::Observe as u8);

    node.probe().set_mode(Mode::Enforce).unwrap();
    assert!(!arrives(&web, &pg, 4, 7001));
}

#[test]
fn single_ports_and_port_ranges_decide() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    // 8080 to 8095.
    let plan =
        Plan::new(1, node.topology.pods()).isolate("db/pg").accept_tcp("shop/web", "db/pg", &[443], &[(8080, 12)]);
    node.publish_and_attach(&plan.complete());
    for (port, passes) in [(443, true), (444, false), (8079, false), (8080, true), (8095, true), (8096, false)] {
        assert_eq!(connects(&web, &pg, 4, port), passes, "port {port}");
    }
    assert!(!arrives(&web, &pg, 4, 443), "a TCP port does not match UDP");
}

#[test]
fn address_that_a_pod_adds_itself_is_spoofed_and_not_attributed_to_its_owner() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg", "db/client"]) else { return };
    let (web, pg, client) = (node.pod("shop/web"), node.pod("db/pg"), node.pod("db/client"));
    let plan = Plan::new(1, node.topology.pods()).isolate("db/pg").accept("db/client", "db/pg");
    node.publish_and_attach(&plan.complete());
    assert!(arrives(&client, &pg, 4, 7000));
    let add = format!("address add {}/32 dev eth0", client.v4);
    let added =
        std::process::Command::new("ip").args(["-n", &web.network_namespace]).args(add.split(' ')).status().unwrap();
    assert!(added.success());
    node.forget_events();
    let receiver = udp(&pg, 4, 7001);
    let sender = web.enter(|| std::net::UdpSocket::bind((client.v4, 0))).unwrap().unwrap();
    sender.send_to(b"i am the client", receiver.local_addr().unwrap()).unwrap();
    assert!(receiver.recv(&mut [0; 16]).is_err());
    let events = node.events_to(&web, 7001);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].reason, KernelReason::SpoofedSource as u8);
    assert_eq!(events[0].endpoint_owner, plan.owner("shop/web"), "the interface identifies the sender");
}

#[test]
fn flooded_frames_are_not_recorded_at_pods_that_they_are_not_addressed_to() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg", "shop/cart", "db/locked"]) else { return };
    let (web, pg, cart, locked) =
        (node.pod("shop/web"), node.pod("db/pg"), node.pod("shop/cart"), node.pod("db/locked"));
    node.publish_and_attach(&Plan::new(1, node.topology.pods()).isolate("db/locked").complete());
    assert!(arrives(&web, &pg, 4, 7000), "both have learned the other's hardware address");
    // The bridge forgets the port of that address, and does not learn it again.
    let learning_off = ["link", "set", pg.host_interface.as_str(), "type", "bridge_slave", "learning", "off"];
    assert!(std::process::Command::new("ip").args(learning_off).status().unwrap().success());
    let port = std::path::Path::new("/sys/class/net").join(&pg.host_interface).join("brport");
    std::fs::write(port.join("flush"), "1").unwrap();
    let sent_to = |pod: &netverdict_tests::topology::PodNetwork| {
        let count = format!("/sys/class/net/{}/statistics/tx_packets", pod.host_interface);
        std::fs::read_to_string(count).unwrap().trim().parse::<u64>().unwrap()
    };
    node.forget_events();
    let before = sent_to(&cart);
    assert!(arrives(&web, &pg, 4, 7001));
    assert!(sent_to(&cart) > before, "the bridge floods");
    let receivers: Vec<u32> = node.events().iter().filter(|e| e.destination_port == 7001).map(|e| e.ifindex).collect();
    assert_eq!(receivers, [node.ifindex(&web), node.ifindex(&pg)]);
    assert!(node.probe().counters().unwrap().flooded > 0, "frames that are dropped at the isolated pod are counted");
    assert!(!arrives(&web, &locked, 4, 7002), "packets that are addressed to the pod are judged");
    assert_eq!(node.events_to(&locked, 7002).len(), 1);
}

#[test]
fn test_runs_judge_like_traffic() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    node.publish_and_attach(&Plan::new(1, node.topology.pods()).isolate("db/pg").complete());
    let ifindex = node.ifindex(&pg);
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(web.v4.octets(), pg.v4.octets(), 64)
        .tcp(40_000, 5432, 1, 1_000)
        .syn()
        .write(&mut packet, &[])
        .unwrap();
    let run = |name| test_run(&node.options.pin_root, name, &packet, ifindex, 1).unwrap();
    assert_eq!(run(name::TO_POD).return_value, 2, "TCX_DROP");
    let empty = run(name::EMPTY);
    assert_eq!(empty.return_value, u32::MAX, "TCX_NEXT");
    assert_eq!(empty.data_out, packet);
    assert!(test_run(&node.options.pin_root, "no_such_program", &packet, ifindex, 1).is_err());
    assert!(test_run(&node.options.pin_root, name::TO_POD, &[0; 3], ifindex, 1).is_err());
}
