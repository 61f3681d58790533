//! Egress policy holds through Services of every kind, whichever way kube-proxy translates their addresses.

use std::net::{IpAddr, SocketAddr, TcpListener};

use xtask::cluster::{Attempt, Cni, OUTSIDE_V4, OUTSIDE_V6, Proxy, Shape};

use crate::world::World;

/// Default deny for the client's egress, but for the server SERVER, which is on its own node (`near`) or the other (`far`).
const ONLY_TO: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: yahoo, name: egress}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: SERVER}}}]
      ports: [{port: 8080}]
";
const EXTERNAL: [[&str; 2]; 2] = [["192.0.2.80", "2001:db8:80::1"], ["192.0.2.81", "2001:db8:81::1"]];

#[test]
fn egress_policy_holds_through_services_with_nftables() {
    check("live-nft", Shape { nodes: 2, proxy: Proxy::Nftables, cni: Cni::Ptp, bare: false });
}

#[test]
fn egress_policy_holds_through_services_with_iptables_and_a_bridge() {
    check("live-ipt", Shape { nodes: 2, proxy: Proxy::Iptables, cni: Cni::Bridge, bare: false });
}

fn check(instance: &str, shape: Shape) {
    let manifest = |text: &str, nodes: [&str; 2]| {
        let filled = text.replace("NEAR", nodes[0]).replace("FAR", nodes[1]);
        filled.replace("OUTSIDE_V4", &OUTSIDE_V4.to_string()).replace("OUTSIDE_V6", &OUTSIDE_V6.to_string())
    };
    let Some(world) = World::start_with(instance, shape, |nodes| manifest(include_str!("services.yaml"), nodes)) else {
        return;
    };
    let outside: [IpAddr; 2] = [OUTSIDE_V4.into(), OUTSIDE_V6.into()];
    let _server = world.cluster.outside().enter_network(|| {
        let listener = TcpListener::bind("[::]:8080").expect("a port outside");
        let greeter = listener.try_clone().expect("a listener");
        std::thread::spawn(move || while greeter.accept().is_ok() {});
        listener
    });
    let client = world.pod("app=client");
    let of_service = |service: &str| world.addresses("service", service, ".spec.clusterIPs[*]");
    let node = world.node_addresses();
    let ways = |number: usize, node_port: u16| -> Vec<SocketAddr> {
        let name = ["default/near", "default/far"][number];
        let cluster = of_service(name).map(|address| SocketAddr::new(address, 80));
        let external = EXTERNAL[number].map(|address| SocketAddr::new(address.parse().expect("an address"), 80));
        let node_ports = node.map(|address| SocketAddr::new(address, node_port));
        cluster.into_iter().chain(external).chain(node_ports).collect()
    };
    let (near, far) = (ways(0, 30_080), ways(1, 30_081));
    let itself = of_service("yahoo/client").map(|address| SocketAddr::new(address, 80));
    let leading_out = of_service("yahoo/outside").map(|address| SocketAddr::new(address, 80));
    for to in near.iter().chain(&far).chain(&itself).chain(&leading_out) {
        world.until(Attempt::Answered, &client, to.ip(), to.port());
    }

    for (server, open, closed) in [("far", &far, &near), ("near", &near, &far)] {
        let policy = ONLY_TO.replace("SERVER", server);
        world.cluster.apply(&policy).expect("applied");
        world.until(Attempt::TimedOut, &client, closed[0].ip(), closed[0].port());
        for to in open.iter().chain(&itself) {
            assert_eq!(world.connect(&client, to.ip(), to.port()), Attempt::Answered, "{to}: {policy}");
        }
        for to in closed.iter().chain(&leading_out) {
            assert_eq!(world.connect(&client, to.ip(), to.port()), Attempt::TimedOut, "{to}: {policy}");
        }
        for address in outside {
            assert_eq!(world.connect(&client, address, 8080), Attempt::TimedOut, "{address}: {policy}");
        }
    }
    // The record names the backend that was denied, and the policy.
    let far_pod = world.pod("app=far");
    let answer = world.product.why(&client, &format!("{far_pod}:8080/TCP")).expect("an answer");
    assert_eq!(answer["points"][0]["verdict"], "denied", "{answer}");
    assert_eq!(answer["points"][0]["decided_by"][0]["name"], "egress", "{answer}");
}
