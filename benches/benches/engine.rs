//! Costs of the engine: compiling a large cluster for one node, following its changes, and answering single
//! questions. One run prints its tables; it needs no kernel and no rights.
//!
//! The cluster is dense on purpose: every namespace is isolated both ways and no policy is the copy of another.

use std::{hint::black_box, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Result;
use netverdict_benches::{Draws, median, memory, timed};
use netverdict_policy::{
    Change, Compiler, Direction, End, Family, Snapshot,
    build::{
        Cluster, PolicyBuilder, accept, admin, baseline, cluster, deny, key, net, network_policy, pass, pod, pods,
        pods_in, port_named, range, tcp,
    },
    evaluate_point,
    model::{Pod, Protocol},
    tables::IdFloor,
};

const PODS: usize = 10_000;
const NAMESPACES: usize = 500;
const NODES: usize = 40;
/// Has 250 of the pods.
const NODE: &str = "n3";

const COMPILATIONS: usize = 5;
const CHANGES: usize = 21;
const RUNS: usize = 7;
const LOOKUPS: usize = 300_000;
const EVALUATIONS: usize = 500;

fn main() -> Result<()> {
    let before = memory("VmRSS")?;
    let snapshot = Arc::new(snapshot());
    let with_snapshot = memory("VmRSS")?;
    let mut compiler = Compiler::new(NODE, IdFloor::default());
    let (_, first) = timed(|| compiler.compile(&snapshot));
    let with_tables = memory("VmRSS")?;
    let mut compilations = vec![first];
    for _ in 1..COMPILATIONS {
        let mut compiler = Compiler::new(NODE, IdFloor::default());
        compilations.push(timed(|| compiler.compile(&snapshot)).1);
    }

    let tables = compiler.tables();
    let sizes = [
        ("addresses", tables.addresses.len()),
        ("blocks", tables.blocks.len()),
        ("subjects", tables.subjects.len()),
        ("pairs", tables.pairs.len()),
        ("columns", tables.columns.len()),
    ];
    let counts = (snapshot.pods.len(), snapshot.policies.len(), tables.subjects.len());
    let lookup = lookup(&compiler);
    let evaluation = evaluation(&compiler, &snapshot);

    println!("{} pods, {NAMESPACES} namespaces, {} policies; node with {} pods", counts.0, counts.1, counts.2);
    println!("processor time, medians\n");
    line("full compile", median(compilations).as_secs_f64(), "s");
    line("lookup", nanoseconds(lookup, LOOKUPS), "ns");
    line("evaluate_point", nanoseconds(evaluation, EVALUATIONS) / 1e3, "µs");
    line("memory of the snapshot", mebibytes(with_snapshot.saturating_sub(before)), "MiB");
    line("memory of compiler and tables", mebibytes(with_tables.saturating_sub(with_snapshot)), "MiB");
    line("peak memory of this process", mebibytes(memory("VmHWM")?), "MiB");
    println!("\nentries");
    sizes.iter().for_each(|(table, entries)| println!("  {table:<32}{entries:>10}"));
    changes("dual stack", &mut compiler, &snapshot)?;
    let snapshot = Arc::new(without_v6(&snapshot));
    let mut compiler = Compiler::new(NODE, IdFloor::default());
    compiler.compile(&snapshot);
    changes("IPv4 only", &mut compiler, &snapshot)
}

/// A kind of change: an edit that is another each time, by its number.
type Kind = (&'static str, fn(&mut Snapshot, usize));

const KINDS: &[Kind] = &[
    ("pod of the node added", |snapshot, number| {
        let namespace = local(snapshot, number).namespace.clone();
        let new = pod(&format!("{namespace}/new")).labels(&[("app", "app-1")]).at(&["10.200.0.1"]).on(NODE).finish();
        snapshot.pods.insert(new.key(), Arc::new(new));
    }),
    ("pod of another node added", |snapshot, number| {
        let new = pod(&format!("ns-{number}/new")).labels(&[("app", "app-1")]).at(&["10.200.0.1"]).on("n4").finish();
        snapshot.pods.insert(new.key(), Arc::new(new));
    }),
    ("pod relabelled", |snapshot, number| {
        let changed = key(&format!("ns-{}/pod-{}", 7 + number * 11, number % 20));
        let app = format!("app-{}", (number + 1) % 4);
        let pod = Arc::make_mut(snapshot.pods.get_mut(&changed).expect("the pod is there"));
        pod.labels.insert("app".into(), app);
    }),
    ("namespace relabelled", |snapshot, number| {
        let namespace = snapshot.namespaces.get_mut(&format!("ns-{}", number * 13)).expect("the namespace is there");
        Arc::make_mut(namespace).labels.insert("team".into(), format!("t{}", number + 3));
    }),
    ("network policy for a few pods", |snapshot, number| {
        let Pod { namespace, labels, .. } = &**local(snapshot, number);
        let few = network_policy(&format!("{namespace}/new")).select(&[("app", &labels["app"])]);
        put(snapshot, few.ingress(accept().peer(pods(&[("team", "t1")], &[])).port(tcp(7_000))));
    }),
    ("network policy for its namespace", |snapshot, number| {
        let all = network_policy(&format!("{}/new", local(snapshot, number).namespace));
        put(snapshot, all.ingress(accept().peer(pods(&[], &[])).port(tcp(7_000))));
    }),
    ("network policy gets another peer", |snapshot, number| {
        let (namespace, own) = (local(snapshot, number).namespace.clone(), format!("t{}", number % 20));
        let policy = network_policy(&format!("{namespace}/team"))
            .ingress(accept().peer(pods(&[("team", &own)], &[])).port(port_named(Protocol::TCP, "http")))
            .ingress(accept().peer(pods_in("ns-1", &[("app", "app-3")])).port(tcp(9_000)));
        put(snapshot, policy);
    }),
    ("network policy, block without pods", |snapshot, number| {
        let policy = network_policy(&format!("{}/new", local(snapshot, number).namespace));
        put(snapshot, policy.egress(accept().peer(net("192.0.2.0/24", &[])).port(tcp(7_000))));
    }),
    ("network policy, block of all IPv4 pods", |snapshot, number| {
        let policy = network_policy(&format!("{}/new", local(snapshot, number).namespace));
        put(snapshot, policy.ingress(accept().peer(net("10.0.0.0/8", &[])).port(tcp(7_000))));
    }),
    ("network policy, block that parts the pods", |snapshot, number| {
        let policy = network_policy(&format!("{}/new", local(snapshot, number).namespace));
        put(snapshot, policy.ingress(accept().peer(net("10.1.0.0/20", &[])).port(tcp(7_000))));
    }),
    ("admin policy passes a team", |snapshot, number| {
        put(snapshot, admin("new", 10).ingress(pass().peer(pods(&[("team", &format!("t{}", 7 + number % 5))], &[]))));
    }),
    ("admin policy denies a block", |snapshot, _| {
        put(snapshot, admin("new", -1).egress(deny().peer(net("192.0.2.0/24", &[]))));
    }),
    ("admin policy, block that parts the pods", |snapshot, _| {
        put(snapshot, admin("new", 10).ingress(deny().peer(net("10.1.0.0/20", &[])).port(tcp(7))));
    }),
    ("admin policy isolates every pod", |snapshot, _| {
        let all = || deny().peer(pods(&[], &[]));
        put(snapshot, admin("new", 10).ingress(all()).egress(all()));
    }),
    ("admin policy, a port of every pod", |snapshot, _| {
        let all = || deny().peer(pods(&[], &[])).port(tcp(7));
        put(snapshot, admin("new", -1).ingress(all()).egress(all()));
    }),
    ("baseline policy isolates every pod", |snapshot, _| {
        put(snapshot, baseline("new", 0).ingress(deny()).egress(deny()));
    }),
];

/// One of the node's pods, another one for each number.
fn local(snapshot: &Snapshot, number: usize) -> &Arc<Pod> {
    let local = snapshot.pods.values().filter(|pod| pod.node == NODE);
    local.cycle().nth(number * 7).expect("the node has pods")
}

fn put(snapshot: &mut Snapshot, policy: PolicyBuilder) {
    let policy = policy.finish();
    snapshot.policies.insert(policy.key.clone(), Arc::new(policy));
}

/// Each kind of change, and back again.
fn changes(families: &str, compiler: &mut Compiler, base: &Arc<Snapshot>) -> Result<()> {
    println!("\nchanges, {families}: compile and difference, and entries written or deleted; then back again");
    for (title, edit) in KINDS {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for number in 0..CHANGES {
            let mut next = Snapshot::clone(base);
            edit(&mut next, number);
            anyhow::ensure!(next != **base, "{title} changes nothing");
            let next = Arc::new(next);
            there.push(follow(compiler, &next));
            back.push(follow(compiler, base));
        }
        let middle = |times: Vec<(Duration, usize)>| {
            let (times, writes): (Vec<_>, Vec<_>) = times.into_iter().unzip();
            format!("{:>9.2} ms{:>7}", milliseconds(median(times)), median(writes))
        };
        println!("  {title:<40}{}{}", middle(there), middle(back));
    }
    Ok(())
}

/// The time that a compiler takes, and how many entries of the tables are to be written or deleted. Copying
/// and dropping snapshots is their watcher's work, and not measured.
fn follow(compiler: &mut Compiler, next: &Arc<Snapshot>) -> (Duration, usize) {
    let (Change { put, delete, .. }, time) = timed(|| compiler.compile(next));
    let written = [put.addresses.len(), put.blocks.len(), put.subjects.len(), put.pairs.len(), put.columns.len()];
    let deleted =
        [delete.addresses.len(), delete.blocks.len(), delete.subjects.len(), delete.pairs.len(), delete.columns.len()];
    (time, written.into_iter().chain(deleted).sum())
}

/// A run of lookups in the tables, drawn over all subjects and addresses.
fn lookup(compiler: &Compiler) -> Duration {
    let subjects: Vec<_> = compiler.tables().subjects.keys().cloned().collect();
    let addresses: Vec<_> = compiler.tables().addresses.keys().copied().collect();
    let mut draws = Draws::new(1);
    let run = |_| {
        let work = || {
            for _ in 0..LOOKUPS {
                let (subject, peer) = (draws.of(&subjects), *draws.of(&addresses));
                let direction = [Direction::Egress, Direction::Ingress][draws.below(2)];
                black_box(compiler.lookup(subject, direction, peer, Protocol::TCP, Some(8_000)));
            }
        };
        timed(work).1
    };
    median((0..RUNS).map(run).collect())
}

/// A run of questions to the evaluator, drawn over the node's pods and all pods.
fn evaluation(compiler: &Compiler, snapshot: &Snapshot) -> Duration {
    let subjects: Vec<_> = compiler.tables().subjects.keys().cloned().collect();
    let peers: Vec<_> = snapshot.pods.keys().cloned().map(End::Pod).collect();
    let mut draws = Draws::new(2);
    let run = |_| {
        let work = || {
            for _ in 0..EVALUATIONS {
                let (subject, peer) = (draws.of(&subjects), draws.of(&peers));
                let (direction, family) = (Direction::Ingress, Family::V4);
                black_box(evaluate_point(snapshot, subject, direction, peer, None, family, Protocol::TCP, Some(8_000)));
            }
        };
        timed(work).1
    };
    median((0..RUNS).map(run).collect())
}

fn snapshot() -> Snapshot {
    let mut all = cluster().pod_range("10.0.0.0/8").pod_range("fd00::/32");
    for number in 0..NODES {
        let zone = ["a", "b", "c"][number % 3];
        let addresses = [format!("192.168.0.{number}"), format!("fd01::{number:x}")];
        all = all.node(&format!("n{number}"), &[&addresses[0], &addresses[1]], &[("zone", zone)]);
    }
    all = (0..NAMESPACES).fold(all, with_namespace);
    all = (0..PODS).fold(all, with_pod);
    for priority in 0..5 {
        all = all.policy(
            admin(&format!("tier-{priority}"), priority)
                .egress(deny().peer(net("169.254.169.254/32", &[])))
                .ingress(pass().peer(pods(&[("team", &format!("t{priority}"))], &[]))),
        );
    }
    all.snapshot()
}

fn without_v6(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    snapshot.pod_ranges.retain(|range| range.addr().is_ipv4());
    snapshot.pods.values_mut().for_each(|pod| Arc::make_mut(pod).addresses.retain(IpAddr::is_ipv4));
    snapshot.nodes.values_mut().for_each(|node| Arc::make_mut(node).addresses.retain(IpAddr::is_ipv4));
    snapshot
}

fn with_pod(all: Cluster, number: usize) -> Cluster {
    let (namespace, index) = (number % NAMESPACES, number / NAMESPACES);
    let (app, hash) = (format!("app-{}", index % 4), format!("hash-{namespace}-{}", index % 4));
    let v4 = format!("10.{}.{}.{}", 1 + number / 62_500, number / 250 % 250, number % 250);
    all.pod(
        pod(&format!("ns-{namespace}/pod-{index}"))
            .labels(&[("app", &app), ("pod-template-hash", &hash)])
            .at(&[&v4, &format!("fd00::{number:x}")])
            .on(&format!("n{}", (number * 7 + index) % NODES))
            .port("http", Protocol::TCP, if index % 2 == 0 { 8_000 } else { 8_001 }),
    )
}

fn with_namespace(all: Cluster, number: usize) -> Cluster {
    let namespace = format!("ns-{number}");
    let team = format!("t{}", number * 3 % 20);
    let policy = |name: &str| network_policy(&format!("{namespace}/{name}"));
    let friends = || accept().peer(pods(&[("team", &team)], &[])).port(port_named(Protocol::TCP, "http"));
    let names = ("kubernetes.io/metadata.name", namespace.as_str());
    all.namespace(&namespace, &[("team", &format!("t{}", number % 20)), names])
        .policy(policy("deny").isolate_ingress().isolate_egress())
        .policy(
            policy("web")
                .select(&[("app", "app-0")])
                .ingress(accept().peer(pods_in(&namespace, &[("app", "app-1")])).port(tcp(8_080)).port(tcp(9_090)))
                .ingress(accept().peer(net("203.0.113.0/24", &["203.0.113.7/32"]))),
        )
        .policy(policy("team").ingress(friends()))
        .policy(
            policy("out")
                .egress(
                    accept().peer(pods(&[("kubernetes.io/metadata.name", "ns-0")], &[("app", "app-2")])).port(range(
                        Protocol::UDP,
                        53,
                        53,
                    )),
                )
                .egress(friends())
                .egress(accept().peer(net(&format!("198.51.{}.0/24", number % 250), &[]))),
        )
}

fn line(title: &str, value: f64, unit: &str) {
    println!("  {title:<32}{value:>10.2} {unit}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of one of `times` that took `time` together.
fn nanoseconds(time: Duration, times: usize) -> f64 {
    time.as_secs_f64() * 1e9 / times as f64
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
