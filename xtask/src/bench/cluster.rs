//! The product on a whole real cluster: how soon a policy that was applied is in force, and what a node pays, with many
//! pods and at several rates of new flows.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt::Linger};

use crate::{
    cluster::{Cluster, PodNetwork, Product, Shape, agnhost},
    ebpf,
    services::{self, Profile, Usage, wait},
    setup,
};

/// New flows a second.
const RATES: [u32; 3] = [0, 100, 1_000];
/// For each rate: first to come to rest, then to measure.
const SETTLE: Duration = Duration::from_secs(15);
const MEASURE: Duration = Duration::from_secs(60);
/// Policies that are applied, half of them to deny and half to allow.
const CHANGES: usize = 200;
/// Of one connection; an answer takes a fraction of a millisecond.
const ATTEMPT: Duration = Duration::from_millis(20);
const IN_FORCE_WITHIN: Duration = Duration::from_secs(30);
const START_WITHIN: Duration = Duration::from_secs(600);
const PORT: u16 = 8080;

/// `count` pods, with the client, the server and the cluster's DNS server.
pub(super) fn run(count: usize) -> Result<()> {
    let programs = setup::cluster_programs()?;
    let object = ebpf::build()?;
    services::build(Profile::Release)?;
    println!("starting Kubernetes {} with {count} pods, and the product on it", setup::KUBERNETES_VERSION);
    let cluster = Cluster::start("bench", Shape::default(), programs, |step| println!("  {step}"))?;
    let product = Product::start_mirroring(&cluster, &object, Profile::Release)?;
    let pods = Pods::start(&cluster, count)?;
    product.wait_for_endpoints(count)?;

    println!("\n| program | new flows a second | CPU, % of a core | private, MiB | resident, MiB |");
    println!("|---|---|---|---|---|");
    for rate in RATES {
        for (program, cpu, usage) in pods.under_load(rate, || cost(&product))? {
            let mebibytes = |bytes: u64| bytes >> 20;
            println!(
                "| {program} | {rate} | {cpu:.2} | {} | {} |",
                mebibytes(usage.private),
                mebibytes(usage.resident)
            );
        }
    }
    let latencies = pods.latencies(&cluster)?;
    println!("\n| from | p50 | p90 | p99 | most |\n|---|---|---|---|---|");
    print_row("`kubectl apply` begins", latencies.iter().map(|latency| latency.from_begin).collect());
    print_row("`kubectl apply` has returned", latencies.iter().map(|latency| latency.from_return).collect());
    Ok(())
}

/// Of the collector and of a query service that copies its files and is asked nothing: percent of a core over a while, and
/// memory at its end.
fn cost(product: &Product) -> Result<[(&'static str, f64, Usage); 2]> {
    thread::sleep(SETTLE);
    let used = || anyhow::Ok([product.usage()?, product.query_usage()?]);
    let (before, began) = (used()?, Instant::now());
    thread::sleep(MEASURE);
    let (after, took) = (used()?, began.elapsed());
    let cpu = |of: usize| (after[of].cpu - before[of].cpu).as_secs_f64() / took.as_secs_f64() * 100.0;
    Ok([("collector", cpu(0), after[0]), ("query", cpu(1), after[1])])
}

/// From a policy that is applied to the first connection that fares as it says.
struct Latency {
    from_begin: Duration,
    from_return: Duration,
}

struct Pods {
    client: PodNetwork,
    server: SocketAddr,
}

impl Pods {
    fn start(cluster: &Cluster, count: usize) -> Result<Self> {
        // Others than the client, the server and the DNS server.
        let others = count - 3;
        let manifest = include_str!("cluster/pods.yaml").replace("AGNHOST", &agnhost());
        cluster.apply(&manifest.replace("OTHERS", &others.to_string()))?;
        let started = Instant::now();
        wait("every pod runs", START_WITHIN, || {
            let path = "jsonpath={.items[*].status.readyReplicas}";
            let ready = cluster.ask(&["get", "deployments", "-A", "-o", path])?;
            let ready: usize = ready.split_whitespace().map(|number| number.parse().unwrap_or(0)).sum();
            Ok(ready >= count)
        })?;
        println!("  {count} pods run after {} s", started.elapsed().as_secs());
        let address = |app: &str| -> Result<IpAddr> {
            let pod = cluster.pod(&format!("app={app}"))?;
            cluster.pod_addresses(&pod)?.first().copied().with_context(|| format!("{app} has no address"))
        };
        let client = address("client")?;
        let client = cluster.pod_networks()?.remove(&client).context("the client has no network")?;
        Ok(Self { client, server: SocketAddr::new(address("server")?, PORT) })
    }

    /// Does `work` while so many connections a second are opened.
    fn under_load<R: Send>(&self, rate: u32, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let load = scope.spawn(|| self.client.enter(|| open(self.server, rate, &done)));
            let result = work();
            done.store(true, Ordering::Relaxed);
            load.join().map_err(|_| anyhow!("the load panicked"))???;
            result
        })
    }

    fn latencies(&self, cluster: &Cluster) -> Result<Vec<Latency>> {
        let mut found = Vec::new();
        for number in 0..CHANGES {
            let denies = number % 2 == 0;
            let manifest =
                include_str!("cluster/policy.yaml").replace("TYPES", if denies { "Ingress" } else { "Egress" });
            let (began, is_so) = (Instant::now(), AtomicBool::new(false));
            let (returned, in_force) = thread::scope(|scope| {
                let watching = scope.spawn(|| self.client.enter(|| self.until(denies, &is_so)));
                let applied = cluster.apply(&manifest).map(|()| Instant::now());
                if applied.is_err() {
                    is_so.store(true, Ordering::Relaxed);
                }
                let in_force = watching.join().map_err(|_| anyhow!("an attempt panicked"))??;
                anyhow::Ok((applied?, in_force?))
            })?;
            found.push(Latency {
                from_begin: in_force - began,
                from_return: in_force.saturating_duration_since(returned),
            });
        }
        Ok(found)
    }

    /// When connections first fare so.
    fn until(&self, denied: bool, given_up: &AtomicBool) -> Result<Instant> {
        let started = Instant::now();
        loop {
            let tried = Instant::now();
            let fared = TcpStream::connect_timeout(&self.server, ATTEMPT);
            match (&fared, denied) {
                (Err(error), true) if error.kind() == io::ErrorKind::TimedOut => return Ok(tried),
                (Ok(_), false) => return Ok(Instant::now()),
                _ => {}
            }
            close(fared);
            ensure!(!given_up.load(Ordering::Relaxed), "the policy was not applied");
            ensure!(started.elapsed() < IN_FORCE_WITHIN, "not in force after {IN_FORCE_WITHIN:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Opens connections, so many a second and each closed at once, until it is done.
fn open(server: SocketAddr, rate: u32, done: &AtomicBool) -> Result<()> {
    let started = Instant::now();
    let mut opened = 0;
    while !done.load(Ordering::Relaxed) {
        let due = started.elapsed().as_millis() * u128::from(rate) / 1_000;
        while opened < due {
            let connection = TcpStream::connect_timeout(&server, Duration::from_secs(2));
            ensure!(connection.is_ok(), "connection {opened}: {connection:?}");
            close(connection);
            opened += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// At once, by a reset: ports in TIME-WAIT would be used up.
fn close(connection: io::Result<TcpStream>) {
    if let Ok(connection) = connection {
        // Without it the connection lingers, which does no harm for once.
        let _ = setsockopt(&connection, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
    }
}

fn print_row(from: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_millis();
    println!("| {from} | {} ms | {} ms | {} ms | {} ms |", at(50), at(90), at(99), at(100));
}
