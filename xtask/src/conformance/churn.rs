//! A cluster in churn: pods, labels, policies and namespaces change every few seconds, and the API server, the kubelet, the
//! container runtime and the collector are killed in turns. Meanwhile every pod tries every other, and each attempt is
//! compared with what the policies of that moment ask for, and with the record.

mod model;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::Value;

use self::model::{Change, Direction, Model, PORTS, Step};
use super::{
    choice::Choice,
    probe::Probe,
    record::Denials,
    report::{Outcome, Report, Suite, few},
    world::World,
};
use crate::{
    cluster::{PodNetwork, Shape, agnhost},
    services::{Usage, wait},
    setup,
};

const SUITE: Suite = Suite {
    title: "A cluster in churn",
    about: "Written by `cargo xtask conformance churn`; not to be edited. The product enforces on a whole real cluster on which\n\
            pods, labels, policies and namespaces change, and programs are killed and started again. After each round of changes\n\
            every pod tries every other, also while a program is down. A round passes if every attempt fares as the policies ask,\n\
            and the record agrees: a denial with exactly the policies that deny for each that was blocked, none for another.",
    versions: &[("Kubernetes", setup::KUBERNETES_VERSION)],
};
/// How long changes may take to come into force.
const SETTLE: Duration = Duration::from_millis(1_000);
/// Of a connection. The kernel sends the first packet again after a second.
const PATIENCE: Duration = Duration::from_millis(1_300);
/// For a program that was killed to serve again, and a pod to run.
const BACK_WITHIN: Duration = Duration::from_secs(120);
const MOST_CHANGES: usize = 3;
/// Rounds from one program that is killed to the next.
const ROUNDS_BETWEEN: usize = 5;
/// Memory of a collector when it has served this long is what later figures are compared with.
const WARM: Duration = Duration::from_secs(45);
/// Private memory that may be added after that, in bytes: what allocators keep.
const MAY_GROW: u64 = 16 << 20;

const STALE: &str = "netverdict_collector_watch_stale_seconds";

#[derive(Args, Debug)]
pub struct Options {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Of the changes, which are random: the same changes are made again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    shape: Shape,
}

/// Programs that are killed, in this order.
#[derive(Clone, Copy, Debug)]
enum Victim {
    ApiServer,
    Collector,
    Kubelet,
    ContainerRuntime,
}

const VICTIMS: [Victim; 4] = [Victim::ApiServer, Victim::Kubelet, Victim::Collector, Victim::ContainerRuntime];

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::Collector => "netverdict-collector",
            Self::Kubelet => "kubelet",
            Self::ContainerRuntime => "containerd",
        }
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    let world = World::start("churn", options.shape, &[])?;
    let mut churn = Churn::start(world, options.seed)?;
    let (started, mut report) = (Instant::now(), Report::new(SUITE));
    let mut round = 0;
    while started.elapsed() < Duration::from_secs(options.minutes * 60) {
        round += 1;
        let victim = (round % ROUNDS_BETWEEN == 0).then(|| VICTIMS[round / ROUNDS_BETWEEN % VICTIMS.len()]);
        let (name, outcome) = churn.round(victim)?;
        let name = format!("{round:03} {name}");
        println!("[{} s] {outcome}: {name}", started.elapsed().as_secs());
        report.add(name, outcome);
    }
    let (told, memory) = churn.memory();
    println!("{told}");
    report.add(format!("memory stays flat: {told}"), memory);
    report.publish("churn", &Choice { focus: None, shape: options.shape })
}

struct Churn {
    world: World,
    model: Model,
    image: String,
    networks: BTreeMap<IpAddr, PodNetwork>,
    /// When the collector was started, and its memory since: with the time of each figure.
    began: Instant,
    figures: Vec<(Duration, Usage)>,
    /// Memory of each collector when it was warm, and the most since.
    lives: Vec<(u64, u64)>,
    attempts: Attempts,
}

#[derive(Debug, Default)]
struct Attempts {
    allowed: usize,
    denied: usize,
}

impl Churn {
    fn start(world: World, seed: u64) -> Result<Self> {
        let mut churn = Self {
            world,
            model: Model::new(seed),
            image: agnhost(),
            networks: BTreeMap::new(),
            began: Instant::now(),
            figures: Vec::new(),
            lives: Vec::new(),
            attempts: Attempts::default(),
        };
        for object in churn.model.objects(&churn.image) {
            churn.world.cluster.apply(&object.to_string())?;
        }
        churn.find_pods()?;
        Ok(churn)
    }

    /// Some changes, and then attempts between all pods: while a victim is down, if there is one. The collector also misses
    /// some changes then.
    fn round(&mut self, victim: Option<Victim>) -> Result<(String, Outcome)> {
        let started = Instant::now();
        let mut told = self.make_changes()?;
        thread::sleep(SETTLE);
        if let Some(victim) = victim {
            told.push(format!("{} killed", victim.name()));
            self.kill(victim)?;
        }
        let began = now();
        let probes = self.attempt_all()?;
        let ended = now();
        let mut faults = judged(&probes);
        if let Some(victim) = victim {
            if matches!(victim, Victim::Collector) {
                told.extend(self.make_changes()?.into_iter().map(|change| format!("{change} meanwhile")));
            }
            self.restart(victim)?;
        }
        if faults.is_empty() {
            faults = Denials::until_complete(&self.world.product, began, ended, &probes)?;
        }
        let denied = probes.iter().filter(|probe| probe.denial().is_some()).count();
        self.attempts.denied += denied;
        self.attempts.allowed += probes.len() - denied;
        self.figures.push((self.began.elapsed(), self.world.product.usage()?));
        told.push(format!("{} of {} attempts denied", denied, probes.len()));
        let outcome = match faults.is_empty() {
            true => Outcome::Passed(started.elapsed()),
            false => Outcome::Failed(started.elapsed(), few(faults).join("; ")),
        };
        Ok((told.join(", "), outcome))
    }

    /// The kinds of changes that were made.
    fn make_changes(&mut self) -> Result<Vec<String>> {
        let number = self.model.chance().usize(1..=MOST_CHANGES);
        let mut told = Vec::new();
        for _ in 0..number {
            let Change { kind, steps } = self.model.change(&self.image);
            told.push(kind.to_owned());
            for step in steps {
                self.make(step)?;
            }
        }
        self.find_pods()?;
        Ok(told)
    }

    fn make(&self, step: Step) -> Result<()> {
        match step {
            Step::Apply(object) => self.world.cluster.apply(&object.to_string()),
            Step::Delete(kind, key) => {
                let (namespace, name) = key.split_once('/').unwrap_or(("default", &key));
                self.world.cluster.ask(&["-n", namespace, "delete", kind, name]).map(drop)
            }
        }
    }

    /// Waits until every pod runs, and finds its addresses and its network.
    fn find_pods(&mut self) -> Result<()> {
        if self.model.pods.values().all(|pod| !pod.addresses.is_empty()) {
            return Ok(());
        }
        let mut addresses = BTreeMap::new();
        wait("every pod runs", BACK_WITHIN, || {
            let objects = self.world.cluster.ask(&["get", "pods", "-A", "-o", "json"])?;
            addresses = running(&serde_json::from_str(&objects).context("kubectl wrote no JSON")?);
            Ok(self.model.pods.keys().all(|key| addresses.get(key).is_some_and(|found| found.len() == 2)))
        })?;
        for (key, pod) in &mut self.model.pods {
            pod.addresses = addresses.remove(key).context("it was found")?;
        }
        self.networks = self.world.cluster.pod_networks()?;
        Ok(())
    }

    fn kill(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Collector => {
                self.end_life();
                self.world.product.kill_collectors()
            }
            Victim::ApiServer | Victim::Kubelet | Victim::ContainerRuntime => self.world.cluster.kill(victim.name()),
        }
    }

    fn restart(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Collector => {
                self.world.product.restart_collectors()?;
                self.began = Instant::now();
                Ok(())
            }
            Victim::ApiServer => {
                self.world.cluster.restart(victim.name())?;
                wait("the API server is back", BACK_WITHIN, || Ok(self.world.cluster.is_ready()))?;
                // Until then the record says that the source is stale, which is not under test here.
                wait("the collector sees changes", BACK_WITHIN, || Ok(self.world.product.metric(STALE)? == 0.0))
            }
            Victim::Kubelet | Victim::ContainerRuntime => self.world.cluster.restart(victim.name()),
        }
    }

    /// Each pod tries each other, all at once, over one family and to one port each.
    fn attempt_all(&mut self) -> Result<Vec<Probe>> {
        let keys: Vec<String> = self.model.pods.keys().cloned().collect();
        let mut plans: Vec<(&PodNetwork, Vec<(Probe, SocketAddr)>)> = Vec::new();
        for from in &keys {
            let network = self.networks.get(&self.model.pods[from].addresses[0]);
            let network = network.with_context(|| format!("{from} has no network"))?;
            let mut probes = Vec::new();
            for to in keys.iter().filter(|to| *to != from) {
                let family = self.model.chance().usize(0..2);
                let port = PORTS[self.model.chance().usize(0..PORTS.len())];
                let to_address = SocketAddr::new(self.model.pods[to].addresses[family], port);
                probes.push((self.probe(from, to, to_address), to_address));
            }
            plans.push((network, probes));
        }
        thread::scope(|scope| {
            let pods: Vec<_> =
                plans.into_iter().map(|(network, probes)| scope.spawn(|| network.enter(|| attempt(probes)))).collect();
            let mut all = Vec::new();
            for pod in pods {
                all.extend(pod.join().map_err(|_| anyhow!("an attempt panicked"))??);
            }
            Ok(all)
        })
    }

    fn probe(&self, from: &str, to: &str, address: SocketAddr) -> Probe {
        let denying = |direction| self.model.denying(direction, from, to, address.port());
        let (egress, ingress) = (denying(Direction::Egress), denying(Direction::Ingress));
        let expected = if egress.is_empty() && ingress.is_empty() { "allowed" } else { "blocked" };
        Probe {
            from: from.to_owned(),
            to: to.to_owned(),
            host: address.ip().to_string(),
            port: address.port(),
            protocol: "TCP".to_owned(),
            expected: expected.to_owned(),
            observed: String::new(),
            unserved: false,
            egress,
            ingress,
        }
    }

    fn end_life(&mut self) {
        let warm = self.figures.iter().filter(|(age, _)| *age >= WARM).map(|(_, usage)| usage.private);
        let warm: Vec<u64> = warm.collect();
        if let (Some(first), Some(most)) = (warm.first(), warm.iter().max()) {
            self.lives.push((*first, *most));
        }
        self.figures.clear();
    }

    /// In words, and whether it grows.
    fn memory(&mut self) -> (String, Outcome) {
        self.end_life();
        let mebibytes = |bytes: u64| bytes >> 20;
        let life = |(warm, most): &(u64, u64)| format!("{} MiB warm, {} at most", mebibytes(*warm), mebibytes(*most));
        let lives: Vec<String> = self.lives.iter().map(life).collect();
        let Attempts { allowed, denied } = self.attempts;
        let told = format!("{} ({allowed} attempts allowed, {denied} denied)", lives.join("; "));
        let grown = self.lives.iter().find(|(warm, most)| *most > warm + MAY_GROW);
        let outcome = match (grown, self.lives.is_empty()) {
            (Some(life_of), _) => Outcome::Failed(Duration::ZERO, life(life_of)),
            (None, true) => Outcome::NotRun(format!("no collector served {} s", WARM.as_secs())),
            (None, false) => Outcome::Passed(Duration::ZERO),
        };
        (told, outcome)
    }
}

/// The addresses of pods that are ready.
fn running(list: &Value) -> BTreeMap<String, Vec<IpAddr>> {
    let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let read = |pod: &Value| {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        let addresses = pod["status"]["podIPs"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        let addresses = addresses.filter_map(|it| it["ip"].as_str()?.parse().ok()).collect();
        (format!("{}/{}", text("namespace"), text("name")), addresses)
    };
    pods.filter(is_ready).map(read).collect()
}

fn attempt(probes: Vec<(Probe, SocketAddr)>) -> Vec<Probe> {
    thread::scope(|scope| {
        let connect = |mut probe: Probe, to: SocketAddr| {
            probe.observed = match TcpStream::connect_timeout(&to, PATIENCE) {
                Ok(_) => "allowed".to_owned(),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => "blocked".to_owned(),
                Err(error) => error.to_string(),
            };
            probe
        };
        let all = probes.into_iter().map(|(probe, to)| scope.spawn(move || connect(probe, to))).collect::<Vec<_>>();
        all.into_iter().map(|one| one.join().expect("a connection does not panic")).collect()
    })
}

fn judged(probes: &[Probe]) -> Vec<String> {
    let wrong = probes.iter().filter(|probe| probe.expected != probe.observed);
    wrong.map(|probe| format!("{probe} was {}, not {}", probe.observed, probe.expected)).collect()
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
