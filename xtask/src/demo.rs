//! The demo: connections between pods are denied in the kernel, and a moment later `netverdict why` names the policy.
//! Nothing is mocked: the probes, sockets, network namespaces and programs are those that users have.

pub mod cluster;
mod expected;
mod shop;
mod steps;
mod traffic;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use self::{
    expected::{Expectation, compare, policy_names},
    shop::{NODE, PODS, port_of},
    steps::{VISIBLE_WITHIN, say},
    traffic::WAYS,
};
use crate::{
    command::output,
    ebpf, machine, progress,
    services::{self, Profile, RunFolder, Serving, usual, wait},
    setup,
    topology::{PodNetwork, Topology},
};

/// Source ports of the datagrams sent while the collector is killed: each identifies one.
const NUMBERED: std::ops::Range<u16> = 20_000..20_300;
/// Their destination port. Nothing listens there, and policy denies it.
const NUMBERED_PORT: u16 = 9;

const DENIALS: &str = "select policies, source_namespace, count(*) as rows, sum(count) as packets from denials \
                       group by 1, 2 order by packets desc limit 6";
/// The ring contents of one run of this demo, made with `--record`, and a time before its first event.
const RECORDING: &[u8] = include_bytes!("demo/shop.recording");
const RECORDED_AT: &str = "2026-11-21T00:00:00Z";

#[derive(Debug, Args)]
pub struct Options {
    /// Keep everything running until Ctrl-C, to look around with psql, netverdict or Grafana.
    #[arg(long)]
    keep: bool,
    /// Replay the recorded events instead of attaching probes. This is the default without root or BPF.
    #[arg(long)]
    recorded: bool,
    /// Tell a shorter story on a whole real Kubernetes, which is built from source the first time (minutes).
    #[arg(long, conflicts_with_all = ["keep", "recorded", "record"])]
    cluster: bool,
    /// Record the events of the probes to this file, and stop before the collector is killed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recorded", "keep"])]
    record: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<()> {
    if options.cluster {
        return cluster::run();
    }
    let obstacle = match options.recorded {
        true => Some("asked for with --recorded".to_owned()),
        false => setup::network_tools().map_err(|error| format!("{error:#}")).and_then(|_| machine::kernel()).err(),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).context("could not listen for Ctrl-C")?;
    match obstacle {
        None => live(options, &interrupted),
        Some(obstacle) => {
            println!("No probes can be attached here: {obstacle}.");
            println!("Playing a recorded event file through the same pipeline instead.\n");
            recorded(options, &interrupted)
        }
    }
}

fn live(options: &Options, interrupted: &AtomicBool) -> Result<()> {
    let object = build()?;
    let folder = RunFolder::new("demo")?;
    let shop = Shop { folder, object, interrupted };
    let result = shop.play(options);
    let cleaned = shop.folder.clean_up();
    result.and(cleaned)
}

/// Builds the programs. At the same time it installs the BPF toolchain and the Parquet readers, which mostly waits for the
/// network, and builds the BPF object.
fn build() -> Result<PathBuf> {
    std::thread::scope(|scope| {
        let object = scope.spawn(ebpf::build);
        // Without it the demo runs too, and says so there.
        let readers = scope.spawn(|| setup::reader_tools().ok());
        let built = services::build(Profile::Dev);
        let object = progress::join(object);
        progress::join(readers);
        built?;
        object
    })
}

/// The running demo. Dropping it removes what it made.
struct Shop<'a> {
    folder: RunFolder,
    object: PathBuf,
    interrupted: &'a AtomicBool,
}

impl Shop<'_> {
    fn play(&self, options: &Options) -> Result<()> {
        say("A node with eight pods, each in a network namespace of its own, IPv4 and IPv6");
        let mut topology = Topology::new("nvdemo", 77)?;
        for (pod, _) in PODS {
            topology.pod(pod)?;
        }
        shop::write_manifests(&self.folder.manifests(), &topology)?;
        println!("  {}", PODS.map(|(pod, port)| format!("{pod}:{port}")).join("  "));
        for pod in topology.pods() {
            self.folder.announce(pod)?;
        }
        println!("  manifests and policies: {}", self.folder.manifests().display());
        let pods = topology.pods().to_vec();
        for pod in &pods {
            traffic::serve(pod)?;
        }

        say("The collector attaches its probes, in enforce mode; the query service starts beside it");
        let collector = self.collector(&usual(9470), &usual(9471), options.record.as_deref())?;
        let query = self.folder.query(Some(&collector.url("rows")?), &usual(9480), &usual(9432));
        let query = Serving::start(&self.folder, "query", query)?;
        self.wait_until_attached(&query, pods.len())?;
        self.check_interrupt()?;

        say("Every pod tries every other: TCP over IPv4, TCP over IPv6, UDP over IPv4, UDP over IPv6");
        let expected = self.expected(&pods)?;
        let cells = traffic::try_all(&pods)?;
        print!("{}", traffic::table(&pods, &cells));
        compare(&cells, &expected)?;
        let denied = expected.iter().filter(|expectation| !expectation.allowed).count();
        println!("  all {} cells are what the policies say; {denied} attempts were denied", cells.len() * WAYS.len());
        self.check_interrupt()?;

        say("Which policy denied this?");
        show(&self.folder, &query, &["why", "shop/jobs", "db/pg:5432/TCP"])?;
        show(&self.folder, &query, &["why", "shop/web", "db/pg:5432/TCP"])?;
        let asked = self.ask_about_all_denied(&query, &expected)?;
        println!("  netverdict why names the right policies for all {asked} denied pairs and protocols");
        self.check_interrupt()?;

        if let Some(file) = &options.record {
            collector.stop()?;
            println!("  recorded: {}", file.display());
            return Ok(());
        }

        say("kill -9 the collector in the middle of denied traffic, and start it again");
        let collector = self.crash(collector, &pods, &query)?;
        self.check_interrupt()?;

        say("The same log as SQL");
        show(&self.folder, &query, &["sql", DENIALS])?;
        print_connections(&self.folder, &query)?;
        if options.keep {
            wait_for_interrupt(self.interrupted);
            // Ctrl-C reached the services too: they stop by themselves.
            return Ok(());
        }

        say("A clean stop, and DuckDB reads the files with no help from us");
        let rows = self.folder.sql_number(&query, "select count(*) from flows where time < now()")?;
        collector.stop()?;
        let rows_after = self.folder.sql_number(&query, "select count(*) from flows where time < now()")?;
        query.stop()?;
        println!("  rows in the log before and after the stop: {rows}, {rows_after}");
        self.read_with_duckdb(rows_after)
    }

    fn collector(&self, admin: &str, rows: &str, record: Option<&Path>) -> Result<Serving> {
        let mut command = self.folder.collector(NODE, "enforce", admin, rows);
        // Other namespaces of this machine are no pods of the shop.
        command.args(["--unannounced", "ignore"]);
        if let Some(file) = record {
            command.arg("--record").arg(file);
        }
        command.env("NETVERDICT_BPF_OBJECT", &self.object);
        Serving::start(&self.folder, "collector", command)
    }

    fn wait_until_attached(&self, query: &Serving, pods: usize) -> Result<()> {
        wait("all pods have probes", Duration::from_secs(20), || Ok(self.folder.ready_endpoints()? >= pods))?;
        // The log knows the pods too: a question by name can be answered from here on.
        wait("the log knows the pods", VISIBLE_WITHIN, || {
            Ok(self.folder.sql_number(query, "select count(distinct name) from endpoints where kind = 'pod'")?
                >= u64::try_from(pods)?)
        })
    }

    /// The verdict of the policies for every pair of pods and transport, from `netverdict eval`.
    fn expected(&self, pods: &[PodNetwork]) -> Result<Vec<Expectation>> {
        let mut expected = Vec::new();
        for from in pods {
            for to in pods.iter().filter(|to| to.pod != from.pod) {
                for (transport, family) in WAYS {
                    let port = port_of(&to.pod);
                    let destination = format!("{}:{port}/{transport}", to.pod);
                    let mut command = self.folder.program("netverdict");
                    command
                        .args([
                            "eval",
                            "--from",
                            &from.pod,
                            "--to",
                            &destination,
                            "--family",
                            &family.to_string(),
                            "-o",
                            "json",
                            "-f",
                        ])
                        .arg(self.folder.manifests());
                    let answer: Value = serde_json::from_str(&output(&mut command)?)?;
                    expected.push(Expectation::read(&from.pod, &to.pod, transport, family, &answer)?);
                }
            }
        }
        Ok(expected)
    }

    /// Asks `why` about each denied pair and protocol. The answer must come from a record and name the expected policies.
    fn ask_about_all_denied(&self, query: &Serving, expected: &[Expectation]) -> Result<usize> {
        let mut asked = 0;
        for expectation in expected.iter().filter(|expectation| !expectation.allowed && expectation.family == 4) {
            let Expectation { source, destination, transport, denied_by, .. } = expectation;
            let end = format!("{destination}:{}/{transport}", port_of(destination));
            let answer = self.folder.netverdict(query, &["why", source, &end, "-o", "json"])?;
            let answer: Value = serde_json::from_str(&answer)?;
            let point = answer["points"]
                .as_array()
                .and_then(|points| points.iter().find(|point| point["verdict"] == "denied"))
                .with_context(|| format!("why says nothing of a denial for {source} to {end}: {answer}"))?;
            ensure!(point["method"] == "enforced", "no packet is on record for {source} to {end}: {answer}");
            let named = policy_names(&point["decided_by"]);
            ensure!(named == *denied_by, "why blames {named:?} for {source} to {end}; the policies say {denied_by:?}");
            asked += 1;
        }
        Ok(asked)
    }

    /// Sends denied datagrams before, during and after `kill -9` of the collector: none may pass, each must be recorded once.
    fn crash(&self, collector: Serving, pods: &[PodNetwork], query: &Serving) -> Result<Serving> {
        let pod = |name: &str| pods.iter().find(|pod| pod.pod == name).with_context(|| format!("no pod {name}"));
        let (from, to) = (pod("shop/jobs")?.clone(), pod("db/pg")?);
        let destination = SocketAddr::new(to.v4.into(), NUMBERED_PORT);
        let third = (NUMBERED.end - NUMBERED.start) / 3;
        let progress = Arc::new(AtomicU16::new(NUMBERED.start));
        let seen = Arc::clone(&progress);
        let arrivals = to.enter(|| std::net::UdpSocket::bind(("0.0.0.0", NUMBERED_PORT)))??;
        arrivals.set_nonblocking(true)?;
        let sender = std::thread::spawn(move || {
            traffic::send_numbered(&from, destination, NUMBERED, Duration::from_millis(10), |port| {
                seen.store(port, Ordering::SeqCst)
            })
        });
        let reached =
            |port: u16| wait("the sender goes on", VISIBLE_WITHIN, || Ok(progress.load(Ordering::SeqCst) >= port));
        reached(NUMBERED.start + third)?;
        let rows = collector.address("rows")?.to_owned();
        let admin = collector.address("admin")?.to_owned();
        collector.kill()?;
        println!("  killed after datagram {}", progress.load(Ordering::SeqCst) - NUMBERED.start);
        reached(NUMBERED.start + 2 * third)?;
        // On the ports that it had: the query service knows those.
        let collector = self.collector(&admin, &rows, None)?;
        println!("  back after datagram {}", progress.load(Ordering::SeqCst) - NUMBERED.start);
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        let mut buffer = [0; 64];
        ensure!(arrivals.recv(&mut buffer).is_err(), "a denied datagram arrived while the collector was down");
        let all = u64::from(NUMBERED.end - NUMBERED.start);
        let of_this_step = format!(
            "from flows where lane = 'denied' and destination_port = {NUMBERED_PORT} and protocol = 17 \
             and source_port >= {} and source_port < {}",
            NUMBERED.start, NUMBERED.end
        );
        wait("every numbered denial is on record", VISIBLE_WITHIN, || {
            Ok(self.folder.sql_number(query, &format!("select count(distinct source_port) {of_this_step}"))? == all)
        })?;
        let packets = self.folder.sql_number(query, &format!("select sum(count) {of_this_step}"))?;
        ensure!(packets == all, "{all} datagrams were denied, {packets} are on record");
        println!("  none of {all} numbered datagrams passed, and each is on record once");
        Ok(collector)
    }

    fn read_with_duckdb(&self, expected: u64) -> Result<()> {
        let python = match setup::reader_tools() {
            Ok(python) => python,
            Err(error) => {
                println!("  DuckDB is not here: {error:#}");
                return Ok(());
            }
        };
        let files = self.folder.data().join("flows/**/*.parquet");
        let script = "import duckdb, sys; print(duckdb.sql(f\"select count(*) from read_parquet('{sys.argv[1]}')\").fetchall()[0][0])";
        let count: u64 = output(Command::new(python).args(["-c", script]).arg(files))?.trim().parse()?;
        ensure!(count == expected, "DuckDB counts {count} rows, the query service counted {expected}");
        println!("  DuckDB counts the same {count} rows");
        Ok(())
    }

    fn check_interrupt(&self) -> Result<()> {
        if self.interrupted.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// The demo without probes: the recorded events of the same pods, through the same pipeline.
fn recorded(options: &Options, interrupted: &AtomicBool) -> Result<()> {
    services::build(Profile::Dev)?;
    let folder = RunFolder::new("demo")?;
    let result = play_recording(&folder, options, interrupted);
    let cleaned = folder.clean_up();
    result.and(cleaned)
}

fn play_recording(folder: &RunFolder, options: &Options, interrupted: &AtomicBool) -> Result<()> {
    let recording = folder.root.join("shop.recording");
    std::fs::write(&recording, RECORDING)?;
    let mut replay = folder.program("netverdict-collector");
    replay.arg("replay").arg(&recording).args(["--cluster", "demo", "--data-dir"]).arg(folder.data());
    output(replay.arg("--state-dir").arg(folder.state()))?;
    let query = Serving::start(folder, "query", folder.query(None, &usual(9480), &usual(9432)))?;
    say("Which policy denied this?");
    let since = &["--since", RECORDED_AT];
    show(folder, &query, &[&["why", "shop/jobs", "db/pg:5432/TCP"], since.as_slice()].concat())?;
    show(folder, &query, &[&["why", "shop/web", "db/pg:5432/TCP"], since.as_slice()].concat())?;
    say("The same log as SQL");
    show(folder, &query, &["sql", DENIALS])?;
    print_connections(folder, &query)?;
    if options.keep {
        wait_for_interrupt(interrupted);
        return Ok(());
    }
    query.stop()
}

fn wait_for_interrupt(interrupted: &AtomicBool) {
    say("Running until Ctrl-C");
    while !interrupted.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn show(folder: &RunFolder, query: &Serving, arguments: &[&str]) -> Result<()> {
    println!("$ netverdict {}", arguments.join(" "));
    for line in folder.netverdict(query, arguments)?.lines() {
        println!("  {line}");
    }
    Ok(())
}

fn print_connections(folder: &RunFolder, query: &Serving) -> Result<()> {
    let postgres: SocketAddr = query.address("postgres")?.parse()?;
    println!("\nLook for yourself:");
    println!(
        "  {} why shop/jobs db/pg:5432 --server {} --token-file {}",
        folder.program("netverdict").get_program().display(),
        query.url("http")?,
        folder.secret().display()
    );
    println!(
        "  PGPASSWORD=$(cat {}) psql -h {} -p {} -U netverdict netverdict \\\n    -c 'select time, source, destination, port, policies from denials order by time desc limit 5'",
        folder.secret().display(),
        postgres.ip(),
        postgres.port()
    );
    println!(
        "  Grafana: data source PostgreSQL, host {postgres}, user netverdict, database netverdict, TLS disabled, \
         password as above"
    );
    Ok(())
}
