//! The cost of judging a packet: nanoseconds per packet for each path through the programs, compared with an empty
//! program, with 10, 1 000 and 10 000 policies. It uses `BPF_PROG_TEST_RUN`: programs and maps are real, packets are
//! synthetic, and the times exclude drivers, bridges and sockets.
//!
//! Needs root, a BPF file system and a BPF object; prints `SKIPPED` without them, or fails if
//! `NETVERDICT_REQUIRE_KERNEL=1` is set. The engine compiles the tables, and the loader publishes them.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use etherparse::{PacketBuilder, PacketBuilderStep};
use netverdict_abi::{Lane, Mode, map::name};
use netverdict_policy::{
    Compiler, Direction, End, Family, ObjectKey, Reason, Snapshot,
    build::{Cluster, accept, cluster, net, network_policy, pod, pods, pods_in, port_named, range, tcp},
    evaluate_point,
    model::Protocol,
    tables::IdFloor,
};
use netverdict_probe::{MapOccupancy, Probe, ProbeOptions, RingBytes, bind, detach_all, discover, test_run};
use xtask::topology::{PodNetwork, Topology};

const POLICIES: [usize; 3] = [10, 1_000, 10_000];
/// Policies of one namespace.
const POLICIES_EACH: usize = 10;
const PODS_EACH: usize = 5;
/// Pods on the measured node, which are policy subjects.
const LOCAL: usize = 50;

/// Runs, of which the median is reported, and packets in each run.
const RUNS: usize = 7;
const PACKETS: u32 = 50_000;

const SUBNET: u8 = 199;
/// Source port of the first connection; each further one takes the next port.
const FIRST_PORT: u16 = 20_000;

fn main() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return skip("it takes root rights");
    }
    let mut topology = Topology::new("nvbench", SUBNET)?;
    let own = topology.pod("ns-0/web")?;
    let mut columns = Vec::new();
    for policies in POLICIES {
        match measure(policies, &own)? {
            Some(column) => columns.push(column),
            None => return Ok(()),
        }
    }
    print_table(&columns);
    Ok(())
}

/// The measurements for one number of policies.
struct Column {
    policies: usize,
    pods: usize,
    compiled_in: Duration,
    published_in: Duration,
    /// Nanoseconds per packet.
    empty: u128,
    paths: Vec<(&'static str, u128)>,
    occupancy: Vec<MapOccupancy>,
}

/// `None` if the bench cannot run here.
fn measure(policies: usize, own: &PodNetwork) -> Result<Option<Column>> {
    let state = tempfile::tempdir()?;
    let options = ProbeOptions {
        pin_root: PathBuf::from(format!("/sys/fs/bpf/netverdict-bench-{}", std::process::id())),
        state_dir: state.path().to_owned(),
        mode: Mode::Enforce,
        ring_bytes: RingBytes { denied: 1 << 25, flow: 1 << 25 },
        lock_wait: Duration::ZERO,
        ..ProbeOptions::default()
    };
    let _pins = Pins(options.pin_root.clone());
    let mut probe = match Probe::start(options.clone()) {
        Ok((probe, _)) => probe,
        Err(
            error @ (netverdict_probe::ProbeError::NoObject | netverdict_probe::ProbeError::NoBpfFileSystem { .. }),
        ) => {
            skip(&error.to_string())?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let snapshot = Arc::new(snapshot(policies, own));
    let mut compiler = Compiler::new("here", IdFloor::default());
    let started = Instant::now();
    let change = compiler.compile(&snapshot);
    let compiled_in = started.elapsed();
    let started = Instant::now();
    probe.publish(1, &change)?;
    let published_in = started.elapsed();
    let found = scan()?;
    let found = found.iter().find(|found| found.name == own.host_interface).context("the interface is not found")?;
    let endpoint = bind(found, "uid-ns-0-web", &snapshot).context("the pod is in the snapshot")?;
    probe.attach(&endpoint)?;

    let mut bench =
        Bench { root: options.pin_root, ifindex: endpoint.ifindex, probe, own: own.clone(), port: FIRST_PORT };
    let empty = bench.time(name::EMPTY, &bench.syn(FRIEND, 80, 1), &mut |_| Ok(()))?;
    let paths = bench.paths(&snapshot)?;
    let occupancy = bench.probe.occupancy();
    Ok(Some(Column { policies, pods: snapshot.pods.len(), compiled_in, published_in, empty, paths, occupancy }))
}

/// A pod in the namespace of the measured pod, allowed on all ports.
const FRIEND: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// A pod in a namespace that is allowed on single ports.
const BY_PORT: Ipv4Addr = Ipv4Addr::new(10, 128, 255, 1);
/// A pod in a namespace that is allowed on a range of ports.
const BY_RANGE: Ipv4Addr = Ipv4Addr::new(10, 128, 255, 2);
/// A pod that no policy allows.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 128, 255, 3);
/// An address that is not a pod, in a block that a policy allows.
const IN_BLOCK: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 7);

/// A cluster of namespaces with ten typical policies and five pods each; `own` is the measured pod.
fn snapshot(policies: usize, own: &PodNetwork) -> Snapshot {
    let mut all = cluster().pod_range("10.128.0.0/9");
    for (namespace, label, at) in
        [("clients", "clients", BY_PORT), ("monitoring", "monitoring", BY_RANGE), ("strangers", "strangers", STRANGER)]
    {
        all = all
            .namespace(namespace, &[("ns", label)])
            .pod(pod(&format!("{namespace}/pod")).at(&[&at.to_string()]).on("elsewhere"));
    }
    for number in 0..policies / POLICIES_EACH {
        all = with_namespace(all, number);
    }
    let mut snapshot = all.snapshot();
    let measured = pod("ns-0/web")
        .labels(&[("role", "web"), ("app", "app-0")])
        .at(&[&own.v4.to_string(), &own.v6.to_string()])
        .on("here")
        .port("http", Protocol::TCP, 8_080)
        .finish();
    snapshot.pods.insert(measured.key(), Arc::new(measured));
    snapshot
}

fn with_namespace(mut all: Cluster, number: usize) -> Cluster {
    let namespace = format!("ns-{number}");
    let team = format!("team-{}", number % 20);
    all = all.namespace(&namespace, &[("ns", &namespace), ("team", &team)]);
    for index in 0..PODS_EACH {
        let place = number * PODS_EACH + index;
        let [_, _, high, low] = u32::try_from(place + 1).expect("few pods").to_be_bytes();
        let node = if place < LOCAL { "here" } else { "elsewhere" };
        let role = ["web", "api", "db", "cache", "job"][index % 5];
        all = all.pod(
            pod(&format!("{namespace}/pod-{index}"))
                .labels(&[("role", role), ("app", &format!("app-{}", number % 50))])
                .at(&[&format!("10.128.{high}.{low}"), &format!("fd80::{high:x}:{low:x}")])
                .on(node)
                .port("http", Protocol::TCP, 8_080),
        );
    }
    let policy = |name: &str| network_policy(&format!("{namespace}/{name}"));
    let next = format!("ns-{}", number + 1);
    let block = format!("198.18.{}.0/24", number % 256);
    let outside = format!("172.{}.{}.0/24", 16 + number / 256 % 16, number % 256);
    all.policy(policy("deny-all").isolate_ingress().isolate_egress())
        .policy(policy("own-namespace").ingress(accept().peer(pods_in(&namespace, &[]))))
        .policy(policy("clients").ingress(accept().peer(pods(&[("ns", "clients")], &[])).port(tcp(80)).port(tcp(443))))
        .policy(policy("monitoring").ingress(accept().peer(pods(&[("ns", "monitoring")], &[])).port(range(
            Protocol::TCP,
            8_000,
            8_999,
        ))))
        .policy(policy("from-block").ingress(accept().peer(net(&block, &[]))))
        .policy(policy("team").ingress(
            accept().peer(pods(&[("team", &team)], &[("role", "web")])).port(port_named(Protocol::TCP, "http")),
        ))
        .policy(policy("to-own").egress(accept().peer(pods_in(&namespace, &[]))))
        .policy(
            policy("to-database")
                .select(&[("role", "api")])
                .egress(accept().peer(pods(&[("ns", &next)], &[("role", "db")])).port(tcp(5_432))),
        )
        .policy(
            policy("to-outside").select(&[("role", "job")]).egress(accept().peer(net(&outside, &[])).port(tcp(443))),
        )
        .policy(policy("dns").egress(accept().port(range(Protocol::UDP, 53, 53))))
}

struct Bench {
    root: PathBuf,
    ifindex: u32,
    probe: Probe,
    own: PodNetwork,
    port: u16,
}

impl Bench {
    fn paths(&mut self, snapshot: &Snapshot) -> Result<Vec<(&'static str, u128)>> {
        let own = self.own.v4;
        let mut paths = Vec::new();

        // An established connection.
        let port = self.next_port();
        let forth = segment(FRIEND, own, (port, 80));
        let back = segment(own, FRIEND, (80, port));
        self.pass(name::TO_POD, &self.syn(FRIEND, 80, port))?;
        self.pass(name::FROM_POD, &back)?;
        paths.push(("known connection, to the pod", self.time(name::TO_POD, &forth, &mut |_| Ok(()))?));
        paths.push(("known connection, from the pod", self.time(name::FROM_POD, &back, &mut |_| Ok(()))?));

        // A retransmitted request is judged like a new one, but is not recorded as a new flow.
        for (title, peer, port) in [
            ("judged: peer is a pod, no port matters", FRIEND, 80),
            ("judged: column of single ports", BY_PORT, 443),
            ("judged: column of port ranges", BY_RANGE, 8_500),
            ("judged: peer is in a CIDR block", IN_BLOCK, 80),
        ] {
            self.expect(snapshot, peer, port, Reason::RuleMatch)?;
            let source_port = self.next_port();
            let packet = self.syn(peer, port, source_port);
            paths.push((title, self.time(name::TO_POD, &packet, &mut |_| Ok(()))?));
        }

        // SYN with FIN opens a connection that is closing already, so each packet is a new flow, with an entry and an event.
        let port = self.next_port();
        let anew = built(ip(FRIEND, own).tcp(port, 80, 1, 1_000).syn().fin())?;
        paths.push(("new flow: judged, remembered, recorded", self.time(name::TO_POD, &anew, &mut Self::empty_rings)?));

        self.expect(snapshot, STRANGER, 80, Reason::IsolatedNoMatch)?;
        let source_port = self.next_port();
        let denied = self.syn(STRANGER, 80, source_port);
        paths.push(("denied, recorded", self.time(name::TO_POD, &denied, &mut Self::empty_rings)?));
        let cut = &denied[..denied.len() - 8];
        paths.push(("malformed, recorded", self.time(name::TO_POD, cut, &mut Self::empty_rings)?));

        let lost = |bench: &Self| -> Result<u64> {
            let counters = bench.probe.counters()?;
            Ok(counters.lanes.iter().filter(|lane| lane.lane == Lane::Denied).map(|lane| lane.lost).sum())
        };
        let before = lost(self)?;
        while lost(self)? == before {
            test_run(&self.root, name::TO_POD, &denied, self.ifindex, 10_000)?;
        }
        paths.push(("denied, ring full", self.time(name::TO_POD, &denied, &mut |_| Ok(()))?));

        let mut arp = denied[..14].to_vec();
        arp[12..].copy_from_slice(&[0x08, 0x06]);
        arp.resize(42, 0);
        paths.push(("ARP", self.time(name::TO_POD, &arp, &mut |_| Ok(()))?));
        Ok(paths)
    }

    /// The median of [`RUNS`] runs in nanoseconds per packet. `between` is called after each run.
    fn time(&mut self, program: &str, packet: &[u8], between: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<u128> {
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..=RUNS {
            times.push(test_run(&self.root, program, packet, self.ifindex, PACKETS)?.duration.as_nanos());
            between(self)?;
        }
        // The first run warms the caches.
        times.remove(0);
        times.sort_unstable();
        Ok(times[RUNS / 2])
    }

    fn empty_rings(&mut self) -> Result<()> {
        for reader in &mut self.probe.rings()? {
            while reader.drain(1 << 24).is_some() {
                reader.commit();
            }
        }
        Ok(())
    }

    fn pass(&self, program: &str, packet: &[u8]) -> Result<()> {
        let code = test_run(&self.root, program, packet, self.ifindex, 1)?.return_value;
        ensure!(code == u32::MAX, "{program} returned {code} for a packet that should pass");
        Ok(())
    }

    /// Checks that a row measures the path in its title.
    fn expect(&self, snapshot: &Snapshot, peer: Ipv4Addr, port: u16, expected: Reason) -> Result<()> {
        let own = ObjectKey::new("ns-0", "web");
        let peer = IpAddr::V4(peer);
        let (end, port) = (End::Address(peer), Some(port));
        let decision =
            evaluate_point(snapshot, &own, Direction::Ingress, &end, Some(peer), Family::V4, Protocol::TCP, port);
        let found = decision.map(|decision| decision.reason);
        ensure!(found == Some(expected), "{peer}: expected {expected}, found {found:?}");
        Ok(())
    }

    fn next_port(&mut self) -> u16 {
        self.port += 1;
        self.port
    }

    /// A TCP connection request to the pod.
    fn syn(&self, source: Ipv4Addr, port: u16, source_port: u16) -> Vec<u8> {
        built(ip(source, self.own.v4).tcp(source_port, port, 1, 1_000).syn()).expect("a plain packet")
    }
}

fn segment(source: Ipv4Addr, destination: Ipv4Addr, (source_port, port): (u16, u16)) -> Vec<u8> {
    built(ip(source, destination).tcp(source_port, port, 2, 1_000).ack(1)).expect("a plain packet")
}

fn ip(source: Ipv4Addr, destination: Ipv4Addr) -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(source.octets(), destination.octets(), 64)
}

fn built(step: PacketBuilderStep<etherparse::TcpHeader>) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    step.write(&mut packet, &[])?;
    Ok(packet)
}

fn print_table(columns: &[Column]) {
    let line = |title: &str, cells: Vec<String>| {
        print!("{title:42}");
        cells.iter().for_each(|cell| print!("{cell:>18}"));
        println!();
    };
    let row = |title: &str, cell: &dyn Fn(&Column) -> String| line(title, columns.iter().map(cell).collect());
    println!(
        "\nnanoseconds per packet, and the factor over `empty` (BPF_PROG_TEST_RUN, median of {RUNS} × {PACKETS})\n"
    );
    row("policies", &|column| column.policies.to_string());
    row("pods", &|column| column.pods.to_string());
    row("compiled in", &|column| format!("{} ms", column.compiled_in.as_millis()));
    row("published in", &|column| format!("{} ms", column.published_in.as_millis()));
    println!();
    row("empty", &|column| format!("{} ns        ", column.empty));
    for (index, (title, _)) in columns[0].paths.iter().enumerate() {
        row(title, &|column| {
            let nanoseconds = column.paths[index].1;
            let tenths = nanoseconds * 10 / column.empty.max(1);
            format!("{nanoseconds} ns {:>3}.{}×", tenths / 10, tenths % 10)
        });
    }
    println!("\nentries (without the connection table and the rings)");
    for (index, occupancy) in columns[0].occupancy.iter().enumerate() {
        if occupancy.used.is_some() && !occupancy.map.starts_with("RING") {
            row(occupancy.map, &|column| column.occupancy[index].used.unwrap_or_default().to_string());
        }
    }
}

/// Removes all pins when the probe has ended.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = detach_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn scan() -> Result<Vec<discover::Discovered>> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(discover::scan())?)
}

fn skip(why: &str) -> Result<()> {
    if std::env::var_os("NETVERDICT_REQUIRE_KERNEL").is_some_and(|value| value == "1") {
        bail!("kernel benches are required but cannot run: {why}");
    }
    println!("SKIPPED probe bench: {why}");
    Ok(())
}
