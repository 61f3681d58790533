//! The node reaches its pods under a default deny, from any of its addresses, and no other host does.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use xtask::services::wait;

use crate::node::{NODE, Node, PATIENCE};

/// No policy allows it.
const PROBE_PORT: u16 = 8080;

#[test]
fn probe_of_the_kubelet_passes_a_default_deny_and_is_recorded_as_its_node() {
    let mut node = Node::new();
    node.add_routed_pod("db/routed");
    node.start_collector("enforce", &[]);
    node.start_query();
    node.wait_until_attached();
    let (bridge, gateway) = (node.topology.node_addresses(), node.topology.gateway_addresses());
    for (pod, name, addresses) in [("db/pg", "pg", bridge), ("db/routed", "routed", gateway)] {
        for (family, own) in [(4, addresses[0]), (6, addresses[1])] {
            let receiver = receiver(&node, pod, family);
            // Like the kubelet it lets the kernel choose the source.
            let sender = UdpSocket::bind((unspecified(family), 0)).expect("a socket");
            sender.send_to(b"probe", receiver.local_addr().expect("an address")).expect("sent");
            let (_, from) = receiver.recv_from(&mut [0; 16]).expect("the probe arrives");
            assert_eq!(from.ip(), own);
            node.wait_for(
                1,
                &format!(
                    "select count(*) from flows where destination_pod = '{name}' and source_ip = '{own}' \
                     and source_port = {} and source_kind = 'node' and source_node = '{NODE}' \
                     and verdict = 'allowed' and reason = 'node_local_exempt'",
                    from.port()
                ),
            );
        }
    }

    // The same datagram from a pod, from outside the cluster, and from another node.
    node.topology.pod("out/side").expect("a host that is no pod of the cluster");
    node.topology.pod("out/node").expect("a host that is another node");
    let other = node.pod("out/node").v4;
    node.write_manifest("other-node.yaml", &format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: other}}\nstatus: {{addresses: [{{type: InternalIP, address: {other}}}]}}\n"
    ));
    node.wait_for(1, "select count(*) from endpoints where kind = 'node' and name = 'other' and valid_to is null");
    let receiver = receiver(&node, "db/pg", 4);
    node.send_from_ports("shop/jobs", "db/pg", PROBE_PORT, 27_000..27_001);
    node.send_from_ports("out/side", "db/pg", PROBE_PORT, 27_001..27_002);
    node.send_from_ports("out/node", "db/pg", PROBE_PORT, 27_002..27_003);
    for (port, kind) in [(27_000, "pod"), (27_001, "external"), (27_002, "node")] {
        node.wait_for(
            1,
            &format!(
                "select count(*) from flows where source_port = {port} and direction = 'ingress' and verdict = 'denied' \
                 and source_kind = '{kind}'"
            ),
        );
    }
    receiver.set_read_timeout(Some(Duration::from_millis(10))).expect("a time limit");
    assert!(receiver.recv(&mut [0; 16]).is_err(), "a denied datagram arrived");
}

#[test]
fn address_that_the_node_gets_and_loses_is_followed_and_the_record_stays_as_of_then() {
    let mut node = Node::started("enforce");
    let moving = IpAddr::from([10, 235, node.topology.subnet(), 1]);
    let bridge = node.topology.bridge();
    let receiver = receiver(&node, "db/pg", 4);
    receiver.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
    let to = receiver.local_addr().expect("an address");
    ip(&["address", "add", &format!("{moving}/32"), "dev", &bridge]);
    let sender = UdpSocket::bind((moving, 0)).expect("the node has the address");
    wait("a probe from the new address arrives", PATIENCE, || {
        sender.send_to(b"probe", to)?;
        Ok(receiver.recv_from(&mut [0; 16]).is_ok_and(|(_, from)| from.ip() == moving))
    })
    .expect("the address is followed");
    let of_the_node = format!(
        "select count(*) from flows where source_ip = '{moving}' and source_kind = 'node' and verdict = 'allowed'"
    );
    wait("it is on record", PATIENCE, || Ok(node.number(&of_the_node) > 0)).expect("recorded as the node");

    // A host outside the cluster has it now.
    ip(&["address", "delete", &format!("{moving}/32"), "dev", &bridge]);
    node.topology.pod("out/side").expect("a host that is no pod of the cluster");
    let outside = node.pod("out/side").clone();
    ip(&["-n", &outside.network_namespace, "address", "add", &format!("{moving}/32"), "dev", "eth0"]);
    let denied = format!(
        "select count(*) from flows where source_ip = '{moving}' and source_kind = 'external' and verdict = 'denied'"
    );
    wait("its datagrams are denied", PATIENCE, || {
        // From another port each time: a flow that passed before the change goes on (E-10).
        let sender = outside.enter(|| UdpSocket::bind((moving, 0)))??;
        sender.send_to(b"probe", to)?;
        Ok(node.number(&denied) > 0)
    })
    .expect("the address is not the node's any more");
    assert!(node.number(&of_the_node) > 0, "as of then it was the node's");
}

fn receiver(node: &Node, pod: &str, family: u8) -> UdpSocket {
    let pod = node.pod(pod);
    let address = SocketAddr::new(pod.address(family), PROBE_PORT);
    let socket = pod.enter(|| UdpSocket::bind(address).expect("a socket")).expect("in the pod");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    socket
}

fn unspecified(family: u8) -> IpAddr {
    if family == 4 { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("ip runs");
    assert!(status.success(), "ip {arguments:?}");
}
