//! Discovery of interfaces and of the pods behind them.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command},
    sync::Arc,
    time::{Duration, SystemTime},
};

use netverdict_abi::Mode;
use netverdict_policy::{Pod, Snapshot};
use netverdict_probe::{Sighting, Watch, bind, discover};
use netverdict_tests::topology::PodNetwork;

use crate::node::{Node, block_on, key, skip, uid};

const PATIENCE: Duration = Duration::from_secs(10);

fn snapshot(pods: &[PodNetwork]) -> Snapshot {
    let pod = |network: &PodNetwork| Pod {
        namespace: key(network).namespace,
        name: key(network).name,
        uid: uid(network),
        addresses: vec![network.v4.into(), network.v6.into()],
        ..Pod::default()
    };
    Snapshot {
        pods: pods.iter().map(|network| (key(network), Arc::new(pod(network)))).collect(),
        ..Snapshot::default()
    }
}

#[test]
fn interface_is_found_with_its_namespace_and_addresses_and_bound_by_uid() {
    let Some(node) = Node::start(Mode::Observe, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let found = node.discovered(&web);
    assert_eq!(found.addresses, [web.address(4), web.address(6)]);
    assert_eq!(found.pod_uid, None);
    assert_eq!(found.link_local.len(), 1, "{:?}", found.link_local);
    assert_ne!(found.netns_cookie, node.discovered(&pg).netns_cookie);
    assert_eq!(found, node.discovered(&web), "another look sees the same");

    assert!(!found.has_processes);
    let bound = bind(&found, &uid(&web), &snapshot(node.topology.pods())).expect("the cluster has it");
    assert_eq!((bound.pod, bound.pod_uid, bound.ifindex), (key(&web), uid(&web), found.ifindex));
    assert_eq!(bound.own_addresses.len(), 3, "both families and the link-local one");
    assert_eq!(bind(&found, &uid(&web), &snapshot(&[pg])), None, "the cluster does not know it yet");
    let there = discover::behind(&web.path()).unwrap();
    assert_eq!((there.netns_cookie, there.found), (found.netns_cookie, vec![found]), "as the CNI plugin sees it");
    assert!(discover::behind(&PathBuf::from("/dev/null")).is_err());
}

#[test]
fn processes_in_a_pods_cgroup_say_whose_the_interface_is() {
    let Some(node) = Node::start(Mode::Observe, &["shop/web", "db/pg"]) else { return };
    let (web, pg) = (node.pod("shop/web"), node.pod("db/pg"));
    let known = "0b6f5a0e-54a1-4f8c-9d3e-1f2a3b4c5d6e";
    let Some(_process) = PodProcess::start(&web, known) else { return };
    let found = node.discovered(&web);
    assert_eq!(found.pod_uid.as_deref(), Some(known));
    assert!(found.has_processes);
    assert_eq!(node.discovered(&pg).pod_uid, None);

    // The addresses are those of shop/web, which proves nothing: an address may still be known as its last owner's.
    let mut cluster = snapshot(node.topology.pods());
    assert_eq!(bind(&found, known, &cluster), None);
    let mut pod = Pod::clone(&cluster.pods[&key(&pg)]);
    pod.uid = known.to_owned();
    cluster.pods.insert(key(&pg), Arc::new(pod));
    assert_eq!(bind(&found, known, &cluster).expect("by uid").pod, key(&pg));
}

#[test]
fn watch_reports_existing_interfaces_then_changes() {
    let Some(mut node) = Node::start(Mode::Observe, &["shop/web"]) else { return };
    let web = node.pod("shop/web");
    block_on(async {
        // Longer than the test, so that everything is found by an event.
        let mut watch = Watch::start(Duration::from_secs(3_600)).await.unwrap();
        let first = found(&mut watch, &web.host_interface).await;
        assert_eq!(first.born, None, "it was there before");

        let before = SystemTime::now();
        let pg = node.topology.pod("db/pg").unwrap();
        let mut second = found(&mut watch, &pg.host_interface).await;
        assert!(second.born.is_some_and(|born| born >= before && born <= SystemTime::now()), "{:?}", second.born);
        while second.addresses.len() < 2 {
            second = found(&mut watch, &pg.host_interface).await;
        }

        let deleted = Command::new("ip").args(["link", "delete", &pg.host_interface]).status().unwrap();
        assert!(deleted.success());
        let gone = async {
            loop {
                match watch.next().await.unwrap() {
                    Sighting::Gone { ifindex } if ifindex == second.ifindex => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it is told that the interface is gone");
    });
}

#[test]
fn an_interface_that_leaves_its_bridge_is_still_there() {
    let Some(mut node) = Node::start(Mode::Observe, &["shop/web"]) else { return };
    let web = node.pod("shop/web");
    block_on(async {
        let mut watch = Watch::start(Duration::from_secs(3_600)).await.unwrap();
        let first = found(&mut watch, &web.host_interface).await;
        ip(&["link", "set", &web.host_interface, "nomaster"]);
        // Events come in order: any event of the next interface comes after all events of this one.
        let next = node.topology.pod("db/pg").unwrap();
        let told = async {
            loop {
                match watch.next().await.unwrap() {
                    Sighting::Found(found) if found.name == next.host_interface => return,
                    sighting => assert_ne!(sighting, Sighting::Gone { ifindex: first.ifindex }),
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("the next interface is told");
    });
}

#[test]
fn interfaces_of_a_pod_that_no_program_covers_are_told() {
    let Some(node) = Node::start(Mode::Observe, &["shop/web"]) else { return };
    let web = node.pod("shop/web");
    let bridge = node.topology.bridge();
    let made = Command::new("ip").args(["link", "add", "nvkmac", "link", &bridge, "type", "macvlan"]).status().unwrap();
    if !made.success() {
        return skip("this kernel has no macvlan").unwrap_or(());
    }
    ip(&["link", "set", "nvkmac", "netns", &web.network_namespace]);
    ip(&["-n", &web.network_namespace, "link", "set", "nvkmac", "up"]);
    let uid = "7c6f5a0e-54a1-4f8c-9d3e-1f2a3b4c5d6e";
    let Some(_process) = PodProcess::start(&web, uid) else { return };
    block_on(async {
        let mut watch = Watch::start(Duration::from_millis(50)).await.unwrap();
        let told = async {
            loop {
                if let Sighting::Uncovered(uncovered) = watch.next().await.unwrap()
                    && let Some(one) = uncovered.into_iter().find(|one| one.pod_uid == uid)
                {
                    return one;
                }
            }
        };
        let told = tokio::time::timeout(PATIENCE, told).await.expect("it is told");
        assert_eq!((told.interface.as_str(), told.kind), ("nvkmac", "macvlan"), "and not eth0, which is covered");
    });
}

#[test]
fn watch_follows_the_nodes_own_addresses() {
    let Some(node) = Node::start(Mode::Observe, &["shop/web"]) else { return };
    let web = node.pod("shop/web");
    let later: IpAddr = IpAddr::from([10, 235, node.topology.subnet(), 9]);
    let on_a_link = IpAddr::from([10, 235, node.topology.subnet(), 10]);
    block_on(async {
        // Longer than the test, so that everything is found by an event.
        let mut watch = Watch::start(Duration::from_secs(3_600)).await.unwrap();
        let first = watch.own_addresses().clone();
        assert!(node.topology.node_addresses().iter().all(|address| first.contains(address)), "{first:?}");
        assert!(!first.contains(&web.address(4)) && !first.contains(&web.address(6)), "those are the pod's");
        assert!(first.iter().all(|address| !address.is_loopback()));
        let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        assert!(first.iter().any(is_link_local), "{first:?}");
        ip(&["address", "add", &format!("{later}/32"), "dev", &node.topology.bridge()]);
        own_addresses(&mut watch, |addresses| addresses.contains(&later)).await;
        ip(&["address", "delete", &format!("{later}/32"), "dev", &node.topology.bridge()]);
        own_addresses(&mut watch, |addresses| !addresses.contains(&later)).await;
        ip(&["address", "add", &format!("{on_a_link}/32"), "dev", &web.host_interface]);
        own_addresses(&mut watch, |addresses| addresses.contains(&on_a_link)).await;
        ip(&["link", "delete", &web.host_interface]);
        own_addresses(&mut watch, |addresses| !addresses.contains(&on_a_link)).await;
    });
}

/// Waits until the node's addresses are as expected.
async fn own_addresses(watch: &mut Watch, expected: impl Fn(&BTreeSet<IpAddr>) -> bool) {
    let sighting = async {
        loop {
            match watch.next().await.unwrap() {
                Sighting::OwnAddresses(addresses) if expected(&addresses) => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, sighting).await.expect("the node's addresses are followed");
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

async fn found(watch: &mut Watch, name: &str) -> discover::Discovered {
    let sighting = async {
        loop {
            match watch.next().await.unwrap() {
                Sighting::Found(found) if found.name == name => return found,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, sighting).await.unwrap_or_else(|_| panic!("{name} is not told"))
}

/// A process in a pod's namespace and in a cgroup like those of the kubelet.
struct PodProcess {
    process: Child,
    cgroup: PathBuf,
}

impl PodProcess {
    /// Prints a message and returns `None` if no cgroup can be created.
    fn start(pod: &PodNetwork, uid: &str) -> Option<Self> {
        let Some(root) = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .find(|root| PathBuf::from(root).join("cgroup.procs").exists())
        else {
            return skip("no cgroup file system of version 2 is mounted");
        };
        let cgroup =
            PathBuf::from(format!("{root}/kubepods-netverdict-test-{}", std::process::id())).join(format!("pod{uid}"));
        if let Err(error) = fs::create_dir_all(&cgroup) {
            return skip(&format!("no cgroup can be made at {}: {error}", cgroup.display()));
        }
        let process =
            Command::new("ip").args(["netns", "exec", &pod.network_namespace, "sleep", "1000"]).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).unwrap();
        let started = Self { process, cgroup };
        started.wait_until_inside(pod);
        Some(started)
    }

    /// Waits for `ip` to enter the namespace, which it does before it executes the command.
    fn wait_until_inside(&self, pod: &PodNetwork) {
        use std::os::unix::fs::MetadataExt;
        let namespace = fs::metadata(pod.path()).unwrap().ino();
        let inside = PathBuf::from(format!("/proc/{}/ns/net", self.process.id()));
        while fs::metadata(&inside).unwrap().ino() != namespace {
            std::thread::yield_now();
        }
    }
}

impl Drop for PodProcess {
    fn drop(&mut self) {
        // Both may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.cgroup);
        let _ = self.cgroup.parent().map(fs::remove_dir);
    }
}
