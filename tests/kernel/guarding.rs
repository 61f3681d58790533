//! Programs are attached before the pod is known, even if maps are full, and without a running probe.

use std::process::Command;

use netverdict_abi::{KernelReason, Mode};
use netverdict_probe::{ProbeError, are_attached, attach_pinned};

use crate::{
    node::{Node, skip},
    tables::Plan,
    traffic::arrives,
};

#[test]
fn a_pod_that_nobody_knows_is_denied_in_enforce_mode_and_recorded_in_any() {
    for (mode, passes) in [(Mode::Enforce, false), (Mode::Observe, true)] {
        let Some(mut node) = Node::start(mode, &["shop/web", "db/pg"]) else { return };
        let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
        let found = node.discovered(&pg);
        node.probe().guard(found.ifindex, found.netns_cookie).unwrap();
        assert_eq!(arrives(&web, &pg, 4, 7000), passes, "{mode:?}");
        let events = node.events_to(&pg, 7000);
        assert!(!events.is_empty() && events.iter().all(|event| event.reason == KernelReason::PolicyNotReady as u8));
        // Another look changes nothing.
        node.probe().guard(found.ifindex, found.netns_cookie).unwrap();
        assert_eq!(arrives(&web, &pg, 4, 7001), passes, "{mode:?}");
    }
}

#[test]
fn a_full_disk_leaves_no_new_pod_without_programs() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("state");
    std::fs::create_dir(&folder).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&folder).status().unwrap();
    if !mounted.success() {
        return skip("no small disk can be mounted").unwrap_or(());
    }
    let unmount = Unmount(folder.clone());
    let state = folder.clone();
    let Some(mut node) = Node::start_with(&["shop/web", "db/pg"], |options| {
        options.mode = Mode::Enforce;
        options.state_dir = state;
    }) else {
        return;
    };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let change = Plan::new(1, node.topology.pods()).isolate("db/pg").complete();
    node.probe().publish(1, &change).unwrap();
    std::fs::write(folder.join("of-a-pod"), vec![0; 1 << 20]).unwrap_err();
    let mut bound = node.bound(&pg);
    // The file's last page still has room for some lines.
    let refused = (0..64).any(|last| {
        bound.own_addresses.push(std::net::IpAddr::from([10, 236, 0, last]));
        matches!(node.probe().attach(&bound), Err(ProbeError::State { .. }))
    });
    assert!(refused, "it is told");
    assert!(node.probe().is_ready(bound.ifindex).unwrap(), "and the pod is judged by its policy all the same");
    assert!(!arrives(&web, &pg, 4, 7000));

    std::fs::remove_file(folder.join("of-a-pod")).unwrap();
    node.probe().attach(&bound).unwrap();
    node.stop();
    let restored = node.start_again();
    assert!(restored.bindings.contains(&bound), "written once there was room");
    drop(node);
    drop(unmount);
}

#[test]
fn a_full_map_denies_the_pod_that_has_no_room_and_no_other() {
    let Some(mut node) = Node::start_with(&["shop/web", "db/pg"], |options| {
        options.mode = Mode::Enforce;
        options.max_endpoints = 1;
    }) else {
        return;
    };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let change = Plan::new(1, node.topology.pods()).complete();
    node.probe().publish(1, &change).unwrap();
    let (first, second) = (node.bound(&web), node.bound(&pg));
    node.probe().attach(&first).unwrap();
    assert!(matches!(node.probe().attach(&second), Err(ProbeError::MapFull { .. })));
    assert!(node.probe().is_ready(first.ifindex).unwrap());
    assert!(!arrives(&web, &pg, 4, 7000), "nothing judges it, so it is denied");
    let root = node.options.pin_root.clone();
    assert!(are_attached(&root, &[first.ifindex, second.ifindex]).unwrap());
}

#[test]
fn while_no_probe_runs_the_pinned_programs_are_attached_and_the_next_one_adopts_them() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let root = node.options.pin_root.clone();
    let change = Plan::new(1, node.topology.pods()).complete();
    node.probe().publish(1, &change).unwrap();
    let found = node.discovered(&pg);
    node.stop();
    assert!(!are_attached(&root, &[found.ifindex]).unwrap());
    assert!(arrives(&web, &pg, 4, 7000));
    let attach = || attach_pinned(&root, &[found.ifindex]).unwrap();
    // A container runtime may call twice, and many at once.
    std::thread::scope(|scope| {
        let plugins: Vec<_> = (0..4).map(|_| scope.spawn(attach)).collect();
        plugins.into_iter().for_each(|plugin| assert_eq!(plugin.join().unwrap(), "enforce"));
    });
    assert!(are_attached(&root, &[found.ifindex]).unwrap());
    assert!(!arrives(&web, &pg, 4, 7001), "not ready");

    node.start_again();
    assert!(!arrives(&web, &pg, 4, 7002), "still");
    let bound = node.bound(&pg);
    node.probe().attach(&bound).unwrap();
    node.probe().publish(2, &change).unwrap();
    assert!(arrives(&web, &pg, 4, 7003), "judged by its policy");
    assert!(matches!(attach_pinned(&root.join("elsewhere"), &[1]), Err(ProbeError::NothingPinned { .. })));
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
