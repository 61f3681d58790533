//! Fuzzing over a veth: frames of up to 9 000 bytes, and short ones that `BPF_PROG_TEST_RUN` refuses. `AF_PACKET`
//! places everything of a large frame after the link-layer header into separate pages, like drivers do with jumbo
//! frames.

use std::{
    net::{IpAddr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netverdict_abi::{Lane, Mode, VerdictEvent};
use netverdict_policy::{AttributionId, Reason};
use netverdict_tests::topology::PodNetwork;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket},
};
use rustix::fd::{AsRawFd, OwnedFd};

use super::{Account, forge::Forge};
use crate::{node::Node, packets::ETHERNET, table::PODS};

const SUBNET: u8 = 154;
const MTU: usize = 9_000;
const BATCHES: usize = 40;
const BATCH: usize = 250;
const PATIENCE: Duration = Duration::from_secs(5);

/// `x/a` may send to `z/b`, and to no other pod.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: x, name: to-z-b}
spec:
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Egress]
  egress: [{to: [{namespaceSelector: {matchLabels: {ns: z}}, podSelector: {matchLabels: {pod: b}}}], ports: [{protocol: UDP, port: 80}]}]
";

#[test]
fn large_and_short_frames_are_judged_on_the_wire_and_each_drop_is_recorded() {
    let node = Node::start_with(SUBNET, PODS, |options| {
        options.mode = Mode::Enforce;
        // Otherwise packets of unknown connections would pass as replies, because ingress of `x/a` is not restricted.
        options.midstream_window = Duration::ZERO;
    });
    let Some(mut node) = node else { return };
    let [sender, target, friend] = ["x/a", "y/a", "z/b"].map(|name| node.pod(name));
    widen(&node);
    let snapshot = node.snapshot(&[PODS, POLICY]);
    node.publish(1, &snapshot);

    let wire = Wire::into(&sender);
    let tap = Tap::at(&target);
    let [from, to] = [&sender, &target].map(hardware_address);
    let pairs = [4, 6].map(|family| (sender.address(family), target.address(family)));
    let mut forge = Forge::new(0x5eed_0003, &pairs, MTU);
    let mut link = [0; ETHERNET];
    link[..6].copy_from_slice(&to);
    link[6..12].copy_from_slice(&from);
    // Traffic with the own node is always allowed, so no corrupted address may be one of these.
    let mut may_be_reached = node.topology.node_addresses().to_vec();
    may_be_reached.extend([4, 6].map(|family| friend.address(family)));
    let (mut largest, mut shortest) = (0, usize::MAX);
    let mut account = Account::of(&node.probe);
    tap.arrived_from(from);
    for batch in 0..BATCHES {
        let mut sent = 0;
        while sent < BATCH {
            let mut frame = forge.next();
            // The others are not IP and pass.
            if !matches!(frame[12..ETHERNET], [0x08, 0x00] | [0x86, 0xdd])
                || is_discovery(&frame)
                || is_to(&frame, &may_be_reached)
            {
                continue;
            }
            frame[..12].copy_from_slice(&link[..12]);
            // Short frames are not padded: a veth has no minimum length.
            wire.send(&frame);
            largest = largest.max(frame.len());
            shortest = shortest.min(frame.len());
            sent += 1;
        }
        let ifindex = node.ifindex(&sender);
        let mut recorded = 0;
        let since = Instant::now();
        while recorded < sent as u64 && since.elapsed() < PATIENCE {
            recorded +=
                account.settle(&mut node, Mode::Enforce, &|event| assert_eq!(event.ifindex, ifindex, "{event:?}")).0;
        }
        assert_eq!(recorded, sent as u64, "one denial for each frame, in batch {batch}");
        assert_eq!(tap.arrived_from(from), 0, "and not one got through, in batch {batch}");
        good(&mut node, &sender, &friend, &target, u16::try_from(batch).unwrap());
        account = Account::of(&node.probe);
    }
    println!("wire: {} frames of {shortest} to {largest} bytes", BATCHES * BATCH);
    assert!(largest == MTU && shortest < ETHERNET + 20);
}

/// Checks that datagrams of the largest size are judged by the policy afterwards.
fn good(node: &mut Node, sender: &PodNetwork, friend: &PodNetwork, stranger: &PodNetwork, batch: u16) {
    node.events();
    for (family, headers) in [(4, 28), (6, 48)] {
        let payload: Vec<u8> = (0..MTU - headers).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let from = socket_at(sender, family, 30_000 + batch);
        for (to, allowed) in [(friend, true), (stranger, false)] {
            let receiver = socket_at(to, family, 80);
            from.send_to(&payload, receiver.local_addr().unwrap()).unwrap();
            let events = node_events_of(node, 80, if allowed { 2 } else { 1 });
            let mut received = vec![0; MTU];
            if allowed {
                let length = receiver.recv(&mut received).expect("an allowed datagram arrives");
                assert_eq!(received[..length], payload);
            } else {
                receiver.set_nonblocking(true).unwrap();
                assert!(receiver.recv(&mut received).is_err());
            }
            let lane = if allowed { Lane::Flow } else { Lane::Denied };
            let reason = if allowed { Reason::RuleMatch } else { Reason::IsolatedNoMatch };
            let told = events.iter().find(|event| event.ifindex == node.ifindex(sender)).expect("judged at its source");
            assert_eq!((told.lane, told.length as usize), (lane as u8, MTU + ETHERNET));
            let decision = node.compiler.decision(AttributionId(told.attribution));
            assert_eq!(decision.map(|decision| decision.reason), Some(reason));
        }
    }
}

/// Waits for this many events of flows to a port.
fn node_events_of(node: &mut Node, port: u16, count: usize) -> Vec<VerdictEvent> {
    let mut events = Vec::new();
    let since = Instant::now();
    while events.len() < count && since.elapsed() < PATIENCE {
        events.extend(node.events().into_iter().filter(|event| event.destination_port == port));
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}

fn socket_at(pod: &PodNetwork, family: u8, port: u16) -> UdpSocket {
    let socket = pod.enter(|| UdpSocket::bind((pod.address(family), port))).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Whether a frame is neighbour or multicast listener discovery, which always passes, also behind extension headers.
fn is_discovery(frame: &[u8]) -> bool {
    if frame[12..ETHERNET] != [0x86, 0xdd] {
        return false;
    }
    let mut kind = frame.get(20).copied();
    let mut at = ETHERNET + 40;
    loop {
        let length = usize::from(frame.get(at + 1).copied().unwrap_or_default());
        let skipped = match kind {
            Some(58) => return matches!(frame.get(at), Some(130..=137 | 143)),
            Some(0 | 43 | 60) => (length + 1) * 8,
            Some(51) => (length + 2) * 4,
            Some(44) => 8,
            Some(_) | None => return false,
        };
        kind = frame.get(at).copied();
        at += skipped;
    }
}

fn is_to(frame: &[u8], addresses: &[IpAddr]) -> bool {
    addresses.iter().any(|address| match address {
        IpAddr::V4(address) => frame.get(30..34) == Some(&address.octets()),
        IpAddr::V6(address) => frame.get(38..54) == Some(&address.octets()),
    })
}

/// Raises the MTU of every interface.
fn widen(node: &Node) {
    let mtu = MTU.to_string();
    let set = |command: &mut Command, interface: &str| {
        let done = command.args(["link", "set", interface, "mtu", &mtu]).status().unwrap();
        assert!(done.success(), "{interface}");
    };
    for pod in node.topology.pods() {
        set(Command::new("ip").args(["-n", &pod.network_namespace]), "eth0");
        set(&mut Command::new("ip"), &pod.host_interface);
    }
}

/// Sends raw frames from a pod's `eth0`.
struct Wire(OwnedFd);

impl Wire {
    fn into(pod: &PodNetwork) -> Self {
        pod.enter(|| {
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
            bind(socket.as_raw_fd(), &eth0()).unwrap();
            Self(socket)
        })
        .unwrap()
    }

    fn send(&self, frame: &[u8]) {
        assert_eq!(send(self.0.as_raw_fd(), frame, MsgFlags::empty()), Ok(frame.len()));
    }
}

/// Captures the frames that arrive at a pod.
struct Tap(OwnedFd);

impl Tap {
    fn at(pod: &PodNetwork) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let all = Some(SockProtocol::EthAll);
        Self(pod.enter(|| socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap()).unwrap())
    }

    /// IP frames from a hardware address since the last call, without discovery.
    fn arrived_from(&self, address: [u8; 6]) -> usize {
        let mut count = 0;
        let mut frame = [0; MTU + ETHERNET];
        while let Ok(length) = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            let frame = &frame[..length];
            let is_ip = matches!(frame[12..ETHERNET], [0x08, 0x00] | [0x86, 0xdd]);
            count += usize::from(frame[6..12] == address && is_ip && !is_discovery(frame));
        }
        count
    }
}

fn hardware_address(pod: &PodNetwork) -> [u8; 6] {
    pod.enter(|| eth0().addr().expect("it has one")).unwrap()
}

/// Index of `eth0` in the network namespace of this thread.
fn eth0() -> LinkAddr {
    let started = Instant::now();
    loop {
        let found = getifaddrs()
            .unwrap()
            .filter(|interface| interface.interface_name == "eth0")
            .find_map(|interface| interface.address?.as_link_addr().copied());
        match found {
            Some(address) => return address,
            None => assert!(started.elapsed() < PATIENCE, "no eth0"),
        }
        thread::yield_now();
    }
}
