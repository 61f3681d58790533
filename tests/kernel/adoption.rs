//! Enforcement outlives the process: restarts adopt the pinned programs and maps, and only `detach_all` ends it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    process::Command,
};

use netverdict_abi::{ABI_VERSION, Mode, map::name};
use netverdict_policy::{AttributionId, tables::OwnerId};
use netverdict_probe::{Probe, ProbeError, detach_all, status};

use crate::{
    node::{Node, key, uid},
    tables::{ISOLATED, NO_POLICY, Plan, RULE},
    traffic::{arrives, udp},
};

#[test]
fn restarted_probe_adopts_pins_without_a_packet_passing_unjudged() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "shop/cart", "db/pg"]) else { return };
    let (web, cart, pg) = (node.pod("shop/web"), node.pod("shop/cart"), node.pod("db/pg"));
    let plan = Plan::new(1, node.topology.pods()).isolate("db/pg").accept("shop/web", "db/pg");
    let revision = node.publish_and_attach(&plan.complete());

    let receiver = udp(&pg, 4, 7000);
    let target = receiver.local_addr().unwrap();
    let (denied, allowed) = (udp(&cart, 4, 0), udp(&web, 4, 0));
    let mut sent = 0_u32;
    let restored = std::thread::scope(|scope| {
        let restart = scope.spawn(|| {
            node.stop();
            node.start_again()
        });
        while !restart.is_finished() || sent < 1_000 {
            denied.send_to(b"denied", target).unwrap();
            allowed.send_to(b"allowed", target).unwrap();
            sent += 1;
            let mut buffer = [0; 16];
            let length = receiver.recv(&mut buffer).expect("allowed packets keep arriving");
            assert_eq!(&buffer[..length], b"allowed");
        }
        restart.join().unwrap()
    });

    assert!(restored.adopted);
    assert_eq!(restored.revision, revision);
    assert_eq!(restored.snapshots, [(revision, 1)]);
    let known: Vec<_> = restored.attributions.keys().copied().collect();
    assert_eq!(known, [NO_POLICY, ISOLATED, RULE].map(AttributionId));
    assert!(restored.owners.contains_key(&OwnerId(plan.owner("db/pg"))));
    assert!(restored.floor.owner > plan.owner("db/pg"));
    let mut bound: Vec<_> = restored.bindings.iter().map(|endpoint| endpoint.pod.clone()).collect();
    bound.sort();
    assert_eq!(bound, [key(&pg), key(&cart), key(&web)]);
    assert!(restored.bindings.iter().any(|endpoint| endpoint.pod_uid == uid(&pg)));

    // Events of the time without a process are still in the ring, and the new process can continue.
    assert!(node.events_to(&pg, 7000).iter().any(|event| event.attribution == ISOLATED));
    node.attach_all();
    assert!(!arrives(&cart, &pg, 4, 7001), "attaching again before publishing changes nothing");
    assert!(arrives(&web, &pg, 4, 7002));
    let next = Plan::new(2, node.topology.pods()).isolate("db/pg").accept("shop/cart", "db/pg");
    assert_eq!(node.probe().publish(2, &next.complete()).unwrap(), revision + 1);
    assert!(arrives(&cart, &pg, 4, 7003));
    assert!(!arrives(&web, &pg, 4, 7004));
}

#[test]
fn other_programs_are_replaced_over_the_same_maps() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    node.publish_and_attach(&Plan::new(1, node.topology.pods()).isolate("db/pg").complete());
    let root = node.options.pin_root.clone();
    let state = node.options.state_dir.clone();
    let tags = || status(&root, &state).unwrap().programs.into_iter().map(|program| program.tag).collect::<Vec<_>>();
    let before = tags();
    node.stop();
    // As after an upgrade: another program is pinned under the name.
    let pins = root.join(format!("v{ABI_VERSION}/programs"));
    fs::remove_file(pins.join(name::TO_POD)).unwrap();
    fs::hard_link(pins.join(name::EMPTY), pins.join(name::TO_POD)).unwrap();
    assert_ne!(tags(), before);
    assert!(node.start_again().adopted);
    assert_eq!(tags(), before);
    assert!(!arrives(&web, &pg, 4, 7000));
}

#[test]
fn programs_of_another_abi_version_enforce_until_ours_are_ready() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let pods = node.topology.pods().to_vec();
    let revision = node.publish_and_attach(&Plan::new(1, &pods).isolate("db/pg").complete());
    node.stop();
    let root = node.options.pin_root.clone();
    fs::rename(root.join(format!("v{ABI_VERSION}")), root.join("v0")).unwrap();

    let restored = node.start_again();
    assert!(!restored.adopted);
    assert_eq!((restored.revision, restored.bindings.len()), (revision, 0), "revisions continue within a boot");
    assert!(!arrives(&web, &pg, 4, 7000), "the old programs still enforce");
    assert_eq!(status(&root, &node.options.state_dir).unwrap().other_versions, [root.join("v0").display().to_string()]);
    let next = Plan::new(2, &pods).complete();
    assert_eq!(node.publish_and_attach(&next), revision + 1);
    assert!(arrives(&web, &pg, 4, 7001), "only the new programs judge now");
    assert!(!root.join("v0").exists());
}

#[test]
fn pins_that_another_user_could_replace_are_refused() {
    let Some(mut node) = Node::start(Mode::Enforce, &["db/pg"]) else { return };
    let root = node.options.pin_root.clone();
    node.stop();
    let refused = |probe: Result<_, ProbeError>| matches!(probe, Err(ProbeError::NotOurs { path }) if path == root);
    chown(&root, Some(65_534), None).unwrap();
    assert!(refused(Probe::start(node.options.clone()).map(drop)), "another user owns it");
    chown(&root, Some(0), None).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused(Probe::start(node.options.clone()).map(drop)), "every user can write to it");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(node.start_again().adopted);
}

#[test]
fn second_probe_is_refused_while_the_first_lives() {
    let Some(mut node) = Node::start(Mode::Observe, &[]) else { return };
    assert!(matches!(Probe::start(node.options.clone()), Err(ProbeError::Locked { .. })));
    assert!(matches!(detach_all(&node.options.pin_root), Err(ProbeError::Locked { .. })));
    assert!(status(&node.options.pin_root, &node.options.state_dir).unwrap().running);
    node.stop();
    assert!(!status(&node.options.pin_root, &node.options.state_dir).unwrap().running);
    assert!(node.start_again().adopted);
}

#[test]
fn interface_that_was_deleted_meanwhile_is_removed() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    node.publish_and_attach(&Plan::new(1, node.topology.pods()).complete());
    let gone = node.ifindex(&web);
    node.stop();
    let deleted = Command::new("ip").args(["link", "delete", &web.host_interface]).status().unwrap();
    assert!(deleted.success());
    let restored = node.start_again();
    let bound: Vec<_> = restored.bindings.iter().map(|endpoint| endpoint.pod.clone()).collect();
    assert_eq!(bound, [key(&pg)]);
    let status = status(&node.options.pin_root, &node.options.state_dir).unwrap();
    assert!(status.endpoints.iter().all(|endpoint| endpoint.ifindex != gone), "{:?}", status.endpoints);
    assert_eq!(status.endpoints.len(), 1);
}

#[test]
fn a_binding_ends_with_detach_and_a_later_uid_takes_its_place() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    node.publish_and_attach(&Plan::new(1, node.topology.pods()).isolate("db/pg").complete());
    let right = node.bound(&web);
    let mut other = right.clone();
    other.pod_uid = "another".to_owned();
    node.probe().attach(&other).unwrap();
    assert!(!node.probe().is_ready(right.ifindex).unwrap(), "nobody has tables for the other pod");
    assert_eq!(node.probe().bindings().find(|bound| bound.ifindex == right.ifindex), Some(&other));
    node.probe().attach(&right).unwrap();
    assert!(node.probe().is_ready(right.ifindex).unwrap());
    let mut nowhere = node.bound(&web);
    nowhere.ifindex = u32::from(u16::MAX);
    assert!(matches!(node.probe().attach(&nowhere), Err(ProbeError::NoInterface { .. })));

    assert!(!arrives(&web, &pg, 4, 7000));
    let ifindex = node.ifindex(&pg);
    node.probe().detach(ifindex).unwrap();
    assert!(arrives(&web, &pg, 4, 7001));
    node.attach_all();
    assert!(!arrives(&web, &pg, 4, 7002));
}

#[test]
fn detaching_everything_leaves_nothing() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    node.publish_and_attach(&Plan::new(1, node.topology.pods()).isolate("db/pg").complete());
    let root = node.options.pin_root.clone();

    let report = status(&root, &node.options.state_dir).unwrap();
    assert_eq!((report.abi_version, report.mode, report.revision), (ABI_VERSION, "enforce", 1));
    assert_eq!(report.endpoints.len(), 2);
    assert!(report.endpoints.iter().all(|endpoint| endpoint.ready && endpoint.from_pod && endpoint.to_pod));
    assert!(report.endpoints.iter().all(|endpoint| endpoint.interface.is_some()));
    let mut pods: Vec<_> = report.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_deref()).collect();
    pods.sort_unstable();
    assert_eq!(pods, ["db/pg", "shop/web"]);
    assert!(report.maps.iter().any(|map| map.map == "ADDRESSES" && map.used == Some(4)));
    serde_json::to_string(&report).unwrap();

    assert!(!arrives(&web, &pg, 4, 7000));
    node.stop();
    assert!(!arrives(&web, &pg, 4, 7001), "enforcement outlives the process");
    let removed = detach_all(&root).unwrap();
    assert_eq!((removed.links, removed.programs), (4, 5));
    assert!(arrives(&web, &pg, 4, 7002));
    assert!(!root.exists());
    assert!(matches!(status(&root, &node.options.state_dir), Err(ProbeError::NothingPinned { .. })));
    assert_eq!(detach_all(&root).unwrap(), netverdict_probe::Removed::default(), "nothing left to remove");
}
