//! What the engine costs: compiling a large cluster for one node, following its changes, and answering single
//! questions. One run prints one table; it needs no kernel and no rights.
//!
//! The cluster is dense on purpose: every namespace is isolated both ways and no policy is the copy of another.

use std::{hint::black_box, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use netverdict_benches::{Draws, median, memory, timed};
use netverdict_policy::{
    Change, Compiler, Direction, End, Family, ObjectKey, Snapshot,
    build::{
        Cluster, accept, admin, cluster, deny, key, net, network_policy, pass, pod, pods, pods_in, port_named, range,
        tcp,
    },
    evaluate_point,
    model::Protocol,
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
    let mut snapshot = Arc::new(snapshot());
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
    let relabelled = relabelled(&mut compiler, &mut snapshot)?;
    let policy_changed = policy_changed(&mut compiler, &mut snapshot)?;
    let lookup = lookup(&compiler);
    let evaluation = evaluation(&compiler, &snapshot);

    println!("{} pods, {NAMESPACES} namespaces, {} policies; node with {} pods", counts.0, counts.1, counts.2);
    println!("processor time, medians\n");
    line("full compile", median(compilations).as_secs_f64(), "s");
    line("one pod relabelled", milliseconds(relabelled), "ms");
    line("one policy changed", milliseconds(policy_changed), "ms");
    line("lookup", nanoseconds(lookup, LOOKUPS), "ns");
    line("evaluate_point", nanoseconds(evaluation, EVALUATIONS) / 1e3, "µs");
    line("memory of the snapshot", mebibytes(with_snapshot.saturating_sub(before)), "MiB");
    line("memory of compiler and tables", mebibytes(with_tables.saturating_sub(with_snapshot)), "MiB");
    line("peak memory of this process", mebibytes(memory("VmHWM")?), "MiB");
    println!("\nentries");
    sizes.iter().for_each(|(table, entries)| println!("  {table:<32}{entries:>10}"));
    Ok(())
}

/// Pods of all nodes in turn get the labels of another workload of their namespace.
fn relabelled(compiler: &mut Compiler, snapshot: &mut Arc<Snapshot>) -> Result<Duration> {
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let changed = key(&format!("ns-{}/pod-{}", 7 + number * 11, number % 20));
        let mut next = Snapshot::clone(snapshot);
        let pod = Arc::make_mut(next.pods.get_mut(&changed).context("the pod is there")?);
        let app = format!("app-{}", (number + 1) % 4);
        let app = if pod.labels.get("app") == Some(&app) { "app-of-nobody".to_owned() } else { app };
        pod.labels.insert("app".into(), app);
        times.push(follow(compiler, snapshot, next).0);
    }
    Ok(median(times))
}

/// Policies that select pods of the node get one more peer.
fn policy_changed(compiler: &mut Compiler, snapshot: &mut Arc<Snapshot>) -> Result<Duration> {
    let local: Vec<ObjectKey> = compiler.tables().subjects.keys().cloned().collect();
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let namespace = &local[number * 7 % local.len()].namespace;
        let name = format!("{namespace}/team");
        let own = format!("t{}", number % 20);
        let policy = network_policy(&name)
            .ingress(accept().peer(pods(&[("team", &own)], &[])).port(port_named(Protocol::TCP, "http")))
            .ingress(accept().peer(pods_in("ns-1", &[("app", "app-3")])).port(tcp(9_000)))
            .finish();
        let mut next = Snapshot::clone(snapshot);
        next.policies.insert(policy.key.clone(), Arc::new(policy)).context("the policy was there")?;
        let (time, change) = follow(compiler, snapshot, next);
        anyhow::ensure!(!change.is_empty(), "policy {name} changed and the tables did not");
        times.push(time);
    }
    Ok(median(times))
}

/// Copying the snapshot is its watcher's work, and not measured.
fn follow(compiler: &mut Compiler, snapshot: &mut Arc<Snapshot>, next: Snapshot) -> (Duration, Change) {
    let next = Arc::new(next);
    let (change, time) = timed(|| compiler.compile(&next));
    *snapshot = next;
    (time, change)
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
