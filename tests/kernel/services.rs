//! Connections through Services get the verdict of the backend that was chosen. nftables stands for kube-proxy, a network
//! namespace for the rest of the world, and routed pods for those of a CNI plugin without a bridge.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use netverdict_abi::{
    Direction, Disposition, KernelReason, Mode, Verdict, VerdictEvent,
    address::{Address, UNSPECIFIED},
};
use netverdict_policy::{
    AttributionId, Compiler, ObjectKey, Reason,
    build::{Cluster, accept, admin, cluster, deny, net, network_policy, nodes, pod, pods, tcp},
    tables::IdFloor,
};
use netverdict_probe::{BoundEndpoint, discover};
use netverdict_tests::topology::PodNetwork;

use crate::node::{Node, block_on, key};

/// How long to wait for denied traffic.
const PATIENCE: Duration = Duration::from_millis(400);
/// A namespace that is no pod: everything outside the node.
const WORLD: &str = "out/world";
/// Its second address of each family.
const OUTSIDE: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
/// Addresses of Services, with their backends in [`Lab::start`].
const OF_PG: [&str; 2] = ["10.96.0.1", "fd96::1"];
const OF_OTHER: [&str; 2] = ["10.96.0.2", "fd96::2"];
const OF_OUTSIDE: [&str; 2] = ["10.96.0.3", "fd96::3"];
const OF_NODE: [&str; 2] = ["10.96.0.4", "fd96::4"];
const OF_WEB: [&str; 2] = ["10.96.0.5", "fd96::5"];
/// Nothing translates it.
const OF_NOTHING: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
const NODE_PORT: u16 = 30_080;

/// A node with pods, the world, and Services.
struct Lab {
    node: Node,
    compiler: Compiler,
    snapshots: u64,
}

impl Lab {
    /// `policies` are added to a cluster of three pods: `shop/web`, `db/pg` and `db/other`.
    fn start(policies: impl FnOnce(Cluster) -> Cluster) -> Option<Self> {
        let mut node = Node::start(Mode::Enforce, &[])?;
        for pod in ["shop/web", "db/pg", "db/other", WORLD] {
            node.topology.routed_pod(pod).unwrap();
        }
        let mut lab = Self { node, compiler: Compiler::new("here", IdFloor::default()), snapshots: 0 };
        lab.translate();
        lab.publish(policies);
        for pod in lab.node.topology.pods().to_vec() {
            let ObjectKey { namespace, name } = key(&pod);
            if pod.pod != WORLD {
                let endpoint = BoundEndpoint { pod_uid: format!("uid-{namespace}-{name}"), ..lab.node.bound(&pod) };
                lab.node.probe().attach(&endpoint).unwrap();
            }
        }
        let uplinks = block_on(discover::uplinks()).unwrap();
        assert_eq!(lab.node.probe().follow_uplinks(&uplinks).unwrap(), Vec::<String>::new());
        assert_eq!(lab.node.probe().conntrack_trouble(), None);
        Some(lab)
    }

    fn publish(&mut self, policies: impl FnOnce(Cluster) -> Cluster) {
        let snapshot = policies(self.cluster()).snapshot();
        self.snapshots += 1;
        let change = self.compiler.compile(&Arc::new(snapshot));
        self.node.probe().publish(self.snapshots, &change).unwrap();
    }

    fn cluster(&self) -> Cluster {
        let at = |name: &str| {
            let network = self.pod(name);
            let labels = [("app", name.split_once('/').unwrap().1)];
            pod(name).at(&[&network.v4.to_string(), &network.v6.to_string()]).on("here").labels(&labels)
        };
        let own: Vec<_> = self.node_addresses().iter().map(ToString::to_string).collect();
        cluster()
            .namespace("shop", &[])
            .namespace("db", &[])
            .pod(at("shop/web"))
            .pod(at("db/pg"))
            .pod(at("db/other"))
            .node("here", &own.iter().map(String::as_str).collect::<Vec<_>>(), &[])
            .service("db/pg", &OF_PG)
            .service("db/other", &OF_OTHER)
            .service("evil/outside", &OF_OUTSIDE)
            .service("default/kubernetes", &OF_NODE)
            .service("shop/web", &OF_WEB)
            .service("evil/external", &[OF_NOTHING[0], OF_NOTHING[1], OUTSIDE[0], OUTSIDE[1]])
    }

    fn node_addresses(&self) -> Vec<IpAddr> {
        let topology = &self.node.topology;
        topology.node_addresses().into_iter().chain(topology.gateway_addresses()).collect()
    }

    /// Forwards, leads to the world, and translates as kube-proxy does.
    fn translate(&self) {
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
        }
        let world = self.pod(WORLD);
        let [gateway, _] = self.node.topology.gateway_addresses();
        run("ip", &["route", "add", "default", "via", &world.v4.to_string(), "dev", &world.host_interface]);
        run("ip", &["-6", "route", "add", "default", "via", &world.v6.to_string(), "dev", &world.host_interface]);
        let accept_dad = || std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0");
        world.enter(accept_dad).unwrap().unwrap();
        for address in OUTSIDE {
            run("ip", &["-n", &world.network_namespace, "address", "add", address, "dev", "eth0"]);
        }
        let (web, pg, other) = (self.pod("shop/web"), self.pod("db/pg"), self.pod("db/other"));
        let gateway_v6 = self.node.topology.gateway_addresses()[1];
        let backends = [
            (OF_PG, [IpAddr::from(pg.v4), pg.v6.into()], 8080),
            (OF_OTHER, [other.v4.into(), other.v6.into()], 8080),
            (OF_OUTSIDE, OUTSIDE.map(|address| address.parse().unwrap()), 8080),
            (OF_NODE, [gateway, gateway_v6], 6443),
            (OF_WEB, [web.v4.into(), web.v6.into()], 8080),
        ];
        let mut rules = String::new();
        for (addresses, to, port) in backends {
            for protocol in ["tcp", "udp"] {
                let [v4, v6] = addresses;
                rules += &format!("ip daddr {v4} {protocol} dport 80 dnat ip to {}:{port}\n", to[0]);
                rules += &format!("ip6 daddr {v6} {protocol} dport 80 dnat ip6 to [{}]:{port}\n", to[1]);
            }
        }
        nft(&format!(
            "table inet services {{
                chain prerouting {{ type nat hook prerouting priority dstnat
                    {rules}
                    ip daddr {gateway} tcp dport {NODE_PORT} dnat ip to {}:8080
                    ip6 daddr {gateway_v6} tcp dport {NODE_PORT} dnat ip6 to [{}]:8080
                }}
                chain postrouting {{ type nat hook postrouting priority srcnat
                    ct status dnat fib saddr type != local oifname {} ip saddr {} masquerade
                    ct status dnat fib saddr type != local oifname {} ip6 saddr {} masquerade
                    meta l4proto tcp ct original proto-dst {NODE_PORT} masquerade
                }}
            }}",
            pg.v4, pg.v6, web.host_interface, web.v4, web.host_interface, web.v6
        ));
    }

    fn pod(&self, name: &str) -> PodNetwork {
        self.node.pod(name)
    }

    /// The events since the last call, without those of neighbour discovery and the like.
    fn events(&mut self) -> Vec<VerdictEvent> {
        self.node.events().into_iter().filter(|event| matches!(event.protocol, 6 | 17)).collect()
    }

    fn reason(&self, event: &VerdictEvent) -> Reason {
        match KernelReason::try_from(event.reason).unwrap() {
            KernelReason::ByPolicy => self.compiler.decision(AttributionId(event.attribution)).unwrap().reason,
            KernelReason::SelfTraffic => Reason::SelfTraffic,
            KernelReason::ServiceNotResolved => Reason::ServiceNotResolved,
            KernelReason::EstablishedStale => Reason::EstablishedStale,
            other => panic!("{other:?}"),
        }
    }
}

/// Runs a test in a network namespace of its own, which stands for a node.
fn on_a_node(test: impl FnOnce() + Send) {
    let inside = || {
        if rustix::process::geteuid().is_root() {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            // A link-local address that is being checked cannot ask for neighbours.
            std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
        }
        test();
    };
    if let Err(panic) = std::thread::scope(|scope| scope.spawn(inside).join()) {
        std::panic::resume_unwind(panic);
    }
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

fn nft(rules: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nftables is installed");
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{rules}");
}

/// A server of one connection, which sends its name.
fn listen(at: &PodNetwork, address: SocketAddr) -> TcpListener {
    let listener = at.enter(|| TcpListener::bind(address)).unwrap().unwrap();
    greet(&listener);
    listener
}

fn greet(listener: &TcpListener) {
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            if stream.write_all(b"hello").is_err() {
                break;
            }
        }
    });
}

/// Whether a connection opens and its first bytes come back.
fn reaches(from: &PodNetwork, to: SocketAddr) -> bool {
    let stream = match from.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap() {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::TimedOut => return false,
        Err(error) => panic!("denied means silence, not {error}"),
    };
    is_answered(stream)
}

fn is_answered(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).is_ok() && &heard == b"hello"
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn octets(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// An end as an event has it; `None` where it is unspecified.
fn end(address: Address, port: u16) -> Option<SocketAddr> {
    (address != UNSPECIFIED).then(|| SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port))
}

/// Default deny for packets that `shop/web` sends; TCP 8080 of `db/pg` is allowed.
fn egress_of_web(cluster: Cluster) -> Cluster {
    let to_pg = accept().peer(pods(&[("kubernetes.io/metadata.name", "db")], &[("app", "pg")])).port(tcp(8080));
    cluster.policy(network_policy("shop/egress").egress(to_pg))
}

#[test]
fn verdict_is_the_chosen_backends_and_both_addresses_are_on_record() {
    on_a_node(|| {
        let Some(mut lab) = Lab::start(egress_of_web) else { return };
        let (web, pg, other) = (lab.pod("shop/web"), lab.pod("db/pg"), lab.pod("db/other"));
        for family in [4, 6] {
            let which = usize::from(family == 6);
            let _servers = [&pg, &other].map(|pod| listen(pod, SocketAddr::new(pod.address(family), 8080)));
            lab.node.forget_events();
            assert!(reaches(&web, at(OF_PG[which], 80)), "family {family}");
            let events = lab.events();
            let [egress, ingress] = &events[..] else { panic!("{events:?}") };
            let backend = SocketAddr::new(pg.address(family), 8080);
            for event in [egress, ingress] {
                assert_eq!(event.verdict, Verdict::Allowed as u8);
                assert_eq!(end(event.destination, event.destination_port), Some(backend));
                assert_eq!(
                    end(event.original_destination, event.original_destination_port),
                    Some(at(OF_PG[which], 80))
                );
                assert_eq!(event.translated_source, UNSPECIFIED);
                assert_eq!(event.source, octets(web.address(family)));
            }
            assert_eq!((egress.direction, ingress.direction), (Direction::Egress as u8, Direction::Ingress as u8));
            assert_eq!(egress.ifindex, lab.node.ifindex(&web), "the sender's endpoint");
            assert_eq!((lab.reason(egress), lab.reason(ingress)), (Reason::RuleMatch, Reason::NoPolicy));

            assert!(!reaches(&web, at(OF_OTHER[which], 80)), "family {family}");
            let events = lab.events();
            assert!(events.iter().all(|event| event.direction == Direction::Egress as u8), "{events:?}");
            let denied = events.first().expect("a denial is recorded");
            assert_eq!((denied.verdict, lab.reason(denied)), (Verdict::Denied as u8, Reason::IsolatedNoMatch));
            assert_eq!(denied.disposition, Disposition::Dropped as u8);
            assert_eq!(denied.destination, octets(other.address(family)));
            assert_eq!(
                end(denied.original_destination, denied.original_destination_port),
                Some(at(OF_OTHER[which], 80))
            );
        }
    });
}

#[test]
fn owner_of_a_service_cannot_open_an_outside_address() {
    on_a_node(|| {
        let Some(mut lab) = Lab::start(egress_of_web) else { return };
        let (web, other, world) = (lab.pod("shop/web"), lab.pod("db/other"), lab.pod(WORLD));
        for which in [0, 1] {
            let _servers = [at(OUTSIDE[which], 8080), at(OUTSIDE[which], 80)].map(|address| listen(&world, address));
            assert!(reaches(&other, at(OF_OUTSIDE[which], 80)), "nothing isolates db/other");
            for (asked, real) in [
                // A backend that is no pod, as an EndpointSlice without a selector names it.
                (at(OF_OUTSIDE[which], 80), at(OUTSIDE[which], 8080)),
                // An external address, at a port that the Service does not have.
                (at(OUTSIDE[which], 80), at(OUTSIDE[which], 80)),
                // An address that nothing translates.
                (at(OF_NOTHING[which], 80), at(OF_NOTHING[which], 80)),
                // A port that nothing translates.
                (at(OF_PG[which], 81), at(OF_PG[which], 81)),
            ] {
                lab.node.forget_events();
                assert!(!reaches(&web, asked), "{asked}");
                let events = lab.events();
                let denied = events.first().unwrap_or_else(|| panic!("{asked}: a denial is recorded"));
                assert!(events.iter().all(|event| event.verdict == Verdict::Denied as u8), "{asked}: {events:?}");
                assert_eq!(lab.reason(denied), Reason::IsolatedNoMatch, "{asked}");
                assert_eq!(end(denied.destination, denied.destination_port), Some(real));
                let original = (asked != real).then_some(asked);
                assert_eq!(end(denied.original_destination, denied.original_destination_port), original);
            }
        }
    });
}

#[test]
fn backend_on_the_node_itself_is_judged_by_its_first_answer() {
    on_a_node(|| {
        let Some(mut lab) = Lab::start(egress_of_web) else { return };
        let web = lab.pod("shop/web");
        let gateways = lab.node.topology.gateway_addresses();
        for which in [0, 1] {
            let server = TcpListener::bind(SocketAddr::new(gateways[which], 6443)).unwrap();
            greet(&server);
            lab.publish(egress_of_web);
            lab.node.forget_events();
            assert!(reaches(&web, at(OF_NODE[which], 80)));
            let events = lab.events();
            let [event] = &events[..] else { panic!("{events:?}") };
            assert_eq!((event.direction, event.verdict), (Direction::Egress as u8, Verdict::Allowed as u8));
            assert_eq!(lab.reason(event), Reason::NodeLocalExempt);
            assert_eq!(end(event.destination, event.destination_port), Some(SocketAddr::new(gateways[which], 6443)));
            assert_eq!(end(event.original_destination, event.original_destination_port), Some(at(OF_NODE[which], 80)));
            assert_eq!(event.source, octets(web.address(if which == 0 { 4 } else { 6 })));

            lab.publish(|cluster| cluster.policy(admin("/no-nodes", 1).egress(deny().peer(nodes(&[])))));
            lab.node.forget_events();
            assert!(!reaches(&web, at(OF_NODE[which], 80)), "its answer is dropped");
            let denied = lab.events();
            assert!(
                !denied.is_empty() && denied.iter().all(|event| event.verdict == Verdict::Denied as u8),
                "{denied:?}"
            );
            assert_eq!(lab.reason(&denied[0]), Reason::ExplicitDeny);
        }
    });
}

#[test]
fn pod_reaches_itself_through_a_service() {
    on_a_node(|| {
        let locked =
            |cluster: Cluster| cluster.policy(network_policy("shop/locked").isolate_ingress().isolate_egress());
        let Some(mut lab) = Lab::start(locked) else { return };
        let web = lab.pod("shop/web");
        for family in [4, 6] {
            let _server = listen(&web, SocketAddr::new(web.address(family), 8080));
            lab.node.forget_events();
            assert!(reaches(&web, at(OF_WEB[usize::from(family == 6)], 80)), "family {family}");
            let events = lab.events();
            let [egress, ingress] = &events[..] else { panic!("{events:?}") };
            for event in [egress, ingress] {
                assert_eq!(lab.reason(event), Reason::SelfTraffic);
                assert_eq!(
                    (event.source, event.destination),
                    (octets(web.address(family)), octets(web.address(family)))
                );
                assert_ne!(event.translated_source, UNSPECIFIED, "it was masqueraded");
            }
        }
    });
}

#[test]
fn masqueraded_source_is_judged_as_who_it_was() {
    on_a_node(|| {
        let from_outside = |cluster: Cluster| {
            let [v4, v6] = [format!("{}/32", OUTSIDE[0]), format!("{}/128", OUTSIDE[1])];
            let rule = accept().peer(net(&v4, &[])).peer(net(&v6, &[]));
            cluster.policy(network_policy("db/pg").select(&[("app", "pg")]).ingress(rule))
        };
        let Some(mut lab) = Lab::start(from_outside) else { return };
        let (pg, world, web) = (lab.pod("db/pg"), lab.pod(WORLD), lab.pod("shop/web"));
        let gateways = lab.node.topology.gateway_addresses();
        for family in [4, 6] {
            let which = usize::from(family == 6);
            let node_port = SocketAddr::new(gateways[which], NODE_PORT);
            let _server = listen(&pg, SocketAddr::new(pg.address(family), 8080));
            for (source, passes) in [(OUTSIDE[which].parse().unwrap(), true), (world.address(family), false)] {
                lab.node.forget_events();
                assert_eq!(connects_from(&world, source, node_port), passes, "from {source}");
                let events = lab.events();
                let event = events.first().expect("it is recorded");
                assert_eq!(event.direction, Direction::Ingress as u8);
                assert_eq!(event.source, octets(source), "who sent it");
                assert_eq!(event.translated_source, octets(gateways[which]), "who the pod sees");
                let verdict = if passes { Verdict::Allowed } else { Verdict::Denied };
                assert_eq!(event.verdict, verdict as u8, "from {source}");
            }
            lab.node.forget_events();
            assert!(!reaches(&web, node_port), "a pod on the node is no exception");
            assert!(lab.events().iter().any(|event| {
                (event.direction, event.verdict) == (Direction::Ingress as u8, Verdict::Denied as u8)
                    && event.source == octets(web.address(family))
            }));
        }
    });
}

fn connects_from(world: &PodNetwork, source: IpAddr, to: SocketAddr) -> bool {
    let connect = || {
        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
        };
        use std::os::fd::AsRawFd;
        let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
        let timeout = nix::sys::time::TimeVal::new(0, 400_000);
        setsockopt(&socket, sockopt::SendTimeout, &timeout).unwrap();
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0))).unwrap();
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).ok().map(|()| TcpStream::from(socket))
    };
    world.enter(connect).unwrap().is_some_and(is_answered)
}

#[test]
fn established_connection_outlives_a_policy_and_says_so_once() {
    on_a_node(|| {
        let Some(mut lab) = Lab::start(|cluster| cluster) else { return };
        let (web, pg, world) = (lab.pod("shop/web"), lab.pod("db/pg"), lab.pod(WORLD));
        let denied = |cluster: Cluster| cluster.policy(network_policy("shop/locked").isolate_egress());
        for (host, backend, asked) in
            [(&pg, SocketAddr::new(pg.v4.into(), 8080), OF_PG[0]), (&world, at(OUTSIDE[0], 8080), OF_OUTSIDE[0])]
        {
            lab.publish(|cluster| cluster);
            let listener = host.enter(|| TcpListener::bind(backend)).unwrap().unwrap();
            let mut client = web.enter(|| TcpStream::connect_timeout(&at(asked, 80), PATIENCE)).unwrap().unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"hello").unwrap();
            server.read_exact(&mut [0; 5]).unwrap();
            lab.publish(denied);
            lab.node.forget_events();
            for _ in 0..2 {
                client.write_all(b"again").unwrap();
                server.read_exact(&mut [0; 5]).unwrap();
            }
            let events = lab.events();
            let stale: Vec<_> = events.iter().filter(|e| e.reason == KernelReason::EstablishedStale as u8).collect();
            assert_eq!(stale.len(), 1, "{events:?}");
            assert_eq!(end(stale[0].destination, stale[0].destination_port), Some(backend));
            assert!(!reaches(&web, at(asked, 80)), "a new connection meets the new policy");
        }
    });
}

#[test]
fn datagrams_and_their_fragments_follow_the_backend() {
    on_a_node(|| {
        let only_other = |cluster: Cluster| {
            let to_other = accept().peer(pods(&[("kubernetes.io/metadata.name", "db")], &[("app", "other")]));
            cluster.policy(network_policy("shop/egress").egress(to_other))
        };
        let Some(mut lab) = Lab::start(only_other) else { return };
        let (web, pg, other) = (lab.pod("shop/web"), lab.pod("db/pg"), lab.pod("db/other"));
        for family in [4, 6] {
            let which = usize::from(family == 6);
            for (pod, service, passes) in [(&other, OF_OTHER, true), (&pg, OF_PG, false)] {
                for size in [5, 4_000] {
                    let receiver = pod.enter(|| UdpSocket::bind((pod.address(family), 8080))).unwrap().unwrap();
                    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
                    let sender = web.enter(|| UdpSocket::bind((web.address(family), 0))).unwrap().unwrap();
                    sender.set_read_timeout(Some(PATIENCE)).unwrap();
                    sender.send_to(&vec![7; size], at(service[which], 80)).unwrap();
                    let mut datagram = vec![0; 8_000];
                    let heard = receiver.recv_from(&mut datagram);
                    assert_eq!(heard.is_ok(), passes, "{size} bytes to {}: {:?}", pod.pod, lab.events());
                    let Ok((length, from)) = heard else { continue };
                    assert_eq!(length, size);
                    receiver.send_to(&datagram[..length], from).unwrap();
                    assert_eq!(sender.recv(&mut datagram).unwrap(), size, "the answer, which is in fragments too");
                }
            }
        }
        let events = lab.events();
        assert!(events.iter().any(|event| event.verdict == Verdict::Denied as u8));
        assert!(
            events
                .iter()
                .all(|event| event.direction == Direction::Egress as u8 || event.verdict == Verdict::Allowed as u8)
        );
    });
}

#[test]
fn request_that_no_backend_gets_is_recorded_as_unresolved() {
    on_a_node(|| {
        let Some(mut lab) = Lab::start(egress_of_web) else { return };
        let web = lab.pod("shop/web");
        nft(&format!(
            "table inet refusal {{\nchain forward {{\ntype filter hook forward priority 0\nip daddr {} drop\n}}\n}}",
            OF_PG[0]
        ));
        lab.node.forget_events();
        let refused =
            web.enter(|| TcpStream::connect_timeout(&at(OF_PG[0], 81), Duration::from_millis(1_500))).unwrap();
        assert!(refused.is_err());
        let events = lab.events();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.verdict, lab.reason(event)), (Verdict::Unknown as u8, Reason::ServiceNotResolved));
        assert_eq!(end(event.destination, event.destination_port), Some(at(OF_PG[0], 81)));
    });
}
