//! Publications are atomic: a change takes effect completely or not at all.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use netverdict_abi::{KernelReason, Mode, Verdict, VerdictEvent, map::name};
use netverdict_policy::{
    AttributionId, Change,
    tables::{ClassId, IdentityId},
};
use netverdict_probe::PublishError;

use crate::{
    node::Node,
    tables::{ISOLATED, NO_POLICY, Plan, RULE, allowed},
    traffic::{arrives, connects, udp},
};

/// How long to wait for a packet from a sender that never pauses.
const PATIENCE: Duration = Duration::from_millis(500);

#[test]
fn pod_is_denied_until_its_tables_are_complete() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    node.attach_all();
    node.forget_events();
    assert!(!arrives(&web, &pg, 4, 7000));
    let events = node.events_to(&web, 7000);
    assert_eq!(events[0].reason, KernelReason::PolicyNotReady as u8);

    let tables = Plan::new(1, node.topology.pods()).complete();
    node.probe().publish(1, &tables).unwrap();
    assert!(arrives(&web, &pg, 4, 7001), "attached before the tables came");
}

#[test]
fn each_revision_holds_from_its_commit_and_is_named_in_events() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let pods = node.topology.pods().to_vec();
    node.publish_and_attach(&Plan::new(1, &pods).isolate("db/pg").complete());
    for generation in 2..8_u32 {
        let open = generation % 2 == 0;
        let plan = Plan::new(generation, &pods).isolate("db/pg");
        let plan = if open { plan.accept("shop/web", "db/pg") } else { plan };
        let revision = node.probe().publish(generation.into(), &plan.complete()).unwrap();
        assert_eq!(revision, u64::from(generation));
        node.forget_events();
        let port = 7000 + u16::try_from(generation).unwrap();
        assert_eq!(arrives(&web, &pg, 6, port), open, "generation {generation}");
        let events = node.events_to(&pg, port);
        assert_eq!(events[0].revision, revision);
        assert_eq!(events[0].source_owner, plan.owner("shop/web"));
    }
}

#[test]
fn blocks_answer_for_addresses_that_are_no_pods_and_the_longest_wins() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let pods = node.topology.pods().to_vec();
    let plan = |generation| Plan::new(generation, &pods).isolate("db/pg").without("shop/web");
    node.probe().publish(1, &plan(1).complete()).unwrap();
    let pg_bound = node.bound(&pg);
    node.probe().attach(&pg_bound).unwrap();
    assert!(!connects(&web, &pg, 4, 80));

    // A block of all IPv6 addresses does not match IPv4.
    let everything = plan(2).block("::/0", allowed(RULE));
    node.probe().publish(2, &everything.complete()).unwrap();
    assert!(connects(&web, &pg, 6, 80));
    assert!(!connects(&web, &pg, 4, 80));

    let wide = plan(3).block("10.0.0.0/8", allowed(RULE)).block(&format!("{}/32", web.v4), crate::tables::denied(77));
    node.probe().publish(3, &wide.complete()).unwrap();
    assert!(!connects(&web, &pg, 4, 81));
    node.probe().publish(4, &plan(4).block("10.0.0.0/8", allowed(RULE)).complete()).unwrap();
    assert!(connects(&web, &pg, 4, 82));
}

#[test]
fn incremental_change_touches_only_what_it_names() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "shop/cart", "db/pg"]) else { return };
    let (web, cart, pg) = (node.pod("shop/web"), node.pod("shop/cart"), node.pod("db/pg"));
    let pods = node.topology.pods().to_vec();
    let before = Plan::new(1, &pods).isolate("db/pg").accept("shop/web", "db/pg");
    node.publish_and_attach(&before.complete());
    assert!(!arrives(&cart, &pg, 4, 7000));

    // `shop/cart` gets the identity of `shop/web`.
    let complete = before.complete();
    let entry = complete.put.addresses[&web.v4.into()];
    let owner = complete.put.addresses[&cart.v4.into()].owner;
    let mut change = Change::default();
    change.put.addresses.insert(cart.v4.into(), netverdict_policy::tables::PeerEntry { owner, ..entry });
    node.probe().publish(2, &change).unwrap();
    assert!(arrives(&cart, &pg, 4, 7001));
    assert!(arrives(&web, &pg, 4, 7002));
    assert!(!arrives(&cart, &pg, 6, 7003), "its other address was not in the change");

    let mut change = Change::default();
    change.delete.addresses.push(cart.v4.into());
    node.probe().publish(3, &change).unwrap();
    assert!(!arrives(&cart, &pg, 4, 7004));
}

#[test]
fn publication_that_does_not_fit_is_undone_and_leaves_the_old_one_in_force() {
    let Some(mut node) = Node::start_with(&["shop/web", "db/pg"], |options| {
        options.mode = Mode::Enforce;
        options.max_pairs = 8;
    }) else {
        return;
    };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let pods = node.topology.pods().to_vec();
    let old = Plan::new(1, &pods).isolate("db/pg").accept("shop/web", "db/pg");
    let revision = node.publish_and_attach(&old.complete());
    let occupied = node.probe().occupancy();

    let mut too_much = Plan::new(2, &pods).isolate("db/pg").complete();
    let class = ClassId(50_000);
    too_much.put.pairs.extend((0..20).map(|n| ((class, IdentityId(50_000 + n)), allowed(RULE))));
    match node.probe().publish(2, &too_much) {
        Err(PublishError::MapFull { map, limit, in_force }) => {
            assert_eq!((map, limit, in_force), (name::PAIRS, 8, revision));
        }
        other => panic!("expected a full map, got {other:?}"),
    }
    assert_eq!(node.probe().revision(), revision);
    assert_eq!(node.probe().occupancy(), occupied, "everything was undone");
    assert!(arrives(&web, &pg, 4, 7000), "the old rule still holds");

    let new = Plan::new(3, &pods).isolate("db/pg");
    assert!(node.probe().floor().class > class.0, "ids of the failed attempt are not used again");
    node.probe().publish(3, &new.complete()).unwrap();
    assert!(!arrives(&web, &pg, 4, 7001));
}

#[test]
fn bad_ids_are_refused_before_they_hold() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let pods = node.topology.pods().to_vec();
    node.publish_and_attach(&Plan::new(1, &pods).complete());
    let mut bad = Plan::new(2, &pods).isolate("db/pg").complete();
    bad.put.pairs.insert((ClassId(7), IdentityId(7)), allowed(0));
    assert!(matches!(node.probe().publish(2, &bad), Err(PublishError::BadId { what: "attribution", .. })));
    assert!(arrives(&web, &pg, 4, 7000));
    assert_eq!(node.events_to(&pg, 7000)[0].attribution, AttributionId(NO_POLICY).0);
}

#[test]
fn replaced_tables_are_deleted_after_the_grace_period() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let pods = node.topology.pods().to_vec();
    let plan = |generation| {
        Plan::new(generation, &pods)
            .isolate("db/pg")
            .accept_tcp("shop/web", "db/pg", &[80, 81], &[(8080, 12)])
            .block("192.0.2.0/24", allowed(RULE))
    };
    node.publish_and_attach(&plan(1).complete());
    assert!(node.probe().collect_garbage().unwrap());
    let one_generation = node.probe().occupancy();
    node.probe().publish(2, &plan(2).without("shop/cart").complete()).unwrap();
    assert!(!node.probe().collect_garbage().unwrap(), "too soon");
    let both = node.probe().occupancy();
    assert_ne!(both, one_generation);
    while !node.probe().collect_garbage().unwrap() {
        std::thread::yield_now();
    }
    assert_eq!(node.probe().occupancy(), one_generation);
}

#[test]
fn no_packet_sees_half_of_a_change() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let pods = node.topology.pods().to_vec();
    // Every generation has new identities, classes and owners; the odd ones deny.
    let plan = |generation: u64| {
        let plan = Plan::new(u32::try_from(generation).unwrap(), &pods).isolate("db/pg");
        if generation.is_multiple_of(2) { plan.accept("shop/web", "db/pg") } else { plan }
    };
    node.publish_and_attach(&plan(1).complete());
    node.forget_events();
    let ifindex = node.ifindex(&pg);
    let (sender, stop) = (udp(&web, 4, 0), AtomicBool::new(false));
    let mut events: Vec<VerdictEvent> = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Another port each time, so that every datagram is judged as a new flow.
            for port in (1_024..u16::MAX).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                sender.send_to(b"x", (pg.v4, port)).unwrap();
            }
        });
        for generation in 2..30 {
            assert_eq!(node.probe().publish(generation, &plan(generation).complete()).unwrap(), generation);
            // A flow that an earlier use of the port opened keeps passing, with another reason.
            let anew = |event: &VerdictEvent| event.reason == KernelReason::ByPolicy as u8;
            let of_pg = |event: &VerdictEvent| event.ifindex == ifindex && event.protocol == 17;
            // The sender may not have been scheduled yet.
            let until = Instant::now() + PATIENCE;
            let mut judged = false;
            while !judged && Instant::now() < until {
                let new = node.events().into_iter().filter(|event| of_pg(event) && anew(event));
                let seen = events.len();
                events.extend(new);
                judged = events[seen..].iter().any(|event| event.revision == generation);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut revisions = BTreeSet::new();
    for event in events {
        revisions.insert(event.revision);
        let (verdict, attribution) =
            if event.revision % 2 == 0 { (Verdict::Allowed, RULE) } else { (Verdict::Denied, ISOLATED) };
        assert_eq!((event.verdict, event.attribution), (verdict as u8, attribution), "revision {}", event.revision);
        assert_eq!(event.source_owner, plan(event.revision).owner("shop/web"), "revision {}", event.revision);
        // The owner in an endpoint record has no version, so it may be the next one already. Both mean the same pod.
        let owners = [event.revision, event.revision + 1].map(|generation| plan(generation).owner("db/pg"));
        assert!(owners.contains(&event.destination_owner), "revision {}", event.revision);
    }
    assert!(revisions.len() > 10, "{revisions:?}");
}
