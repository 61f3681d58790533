//! Cost of an event in the collector on its way into a file: a recorded file of 200 000 events is replayed into Parquet.
//!
//! The events are made here and judged by compiled tables; everything behind the rings is the collector's own: pipeline,
//! store, and files that are flushed to the disk. No time of rings, write-ahead log or cluster is in it.

use std::{
    collections::VecDeque,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use netverdict_abi::{
    ABI_VERSION, Direction as AbiDirection, Disposition, EventKind, Lane, Mode, Verdict as AbiVerdict, VerdictEvent,
};
use netverdict_benches::{Draws, median, memory, timed};
use netverdict_collector::{
    batch::RingBatch,
    input::{Input, Session},
    meaning::{Meanings, WholeState},
    recording::{Header, Recorder},
    replay::replay,
    store::StoreOptions,
};
use netverdict_flowlog::{
    Table,
    row::{LaneName, ModeName},
};
use netverdict_policy::{
    AttributionId, Compiler, Direction, Snapshot, Verdict,
    build::{accept, cluster, net, network_policy, pod, pods, pods_in, tcp},
    model::Protocol,
    tables::{IdFloor, PeerEntry, SubjectEntry},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use zerocopy::IntoBytes;

/// As in the collector itself.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EVENTS: usize = 200_000;
/// Of a hundred events.
const DENIED: usize = 30;
/// Of a hundred denials, those that are tried again: same flow key, inside the window.
const REPEATED: usize = 75;
/// Denials that are tried again are among so many of the last new ones.
const RECENT: usize = 200;
const CPUS: u32 = 4;
/// Events that one drain of a ring finds.
const DRAINED: usize = 512;
/// Nanoseconds at most, half of it on average: 2 000 events a second. Evenly spaced times would compress too well.
const APART: usize = 1_000_000;
const WINDOW: u64 = 10_000_000_000;
/// The boot was at 2023-11-14 22:13:20 UTC.
const OFFSET: i64 = 1_700_000_000_000_000_000;

const NAMESPACES: usize = 10;
const PODS_EACH: usize = 20;
const NODE: &str = "n0";
const BOOT: &str = "00000000-0000-4000-8000-000000000001";
const REVISION: u64 = 10;
const RUNS: usize = 5;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("events.nvr");
    record(&file)?;
    let runs: Vec<Run> =
        (0..RUNS).map(|number| measure(&file, &folder.path().join(number.to_string()))).collect::<Result<_>>()?;
    let last = runs.last().context("there are runs")?;
    let cpu = median(runs.iter().map(|run| run.cpu).collect());
    let elapsed = median(runs.iter().map(|run| run.elapsed).collect());

    let mix = format!("{DENIED} % denials, {REPEATED} % of these repeats");
    println!("{EVENTS} events, {mix}; {} pods; medians of {RUNS} runs\n", NAMESPACES * PODS_EACH);
    line("events a second", EVENTS as f64 / elapsed.as_secs_f64(), "");
    line("processor time an event", cpu.as_secs_f64() * 1e6 / EVENTS as f64, "µs");
    line("flow rows", last.rows as f64, "");
    line("events a row", EVENTS as f64 / last.rows as f64, "");
    line("bytes a row in Parquet", last.bytes as f64 / last.rows as f64, "");
    line("bytes an event in Parquet", last.bytes as f64 / EVENTS as f64, "");
    line("bytes an event as recorded", fs::metadata(&file)?.len() as f64 / EVENTS as f64, "");
    line("peak memory of this process", memory("VmHWM")? as f64 / f64::from(1 << 20), "MiB");
    Ok(())
}

struct Run {
    elapsed: Duration,
    cpu: Duration,
    rows: u64,
    /// Of all files of flows.
    bytes: u64,
}

fn measure(file: &Path, folder: &Path) -> Result<Run> {
    let started = Instant::now();
    let (replayed, cpu) = timed(|| {
        replay(file, WINDOW, |node, boot| {
            StoreOptions::new(folder.join("data"), folder.join("state"), "bench", node, boot)
        })
    });
    let elapsed = started.elapsed();
    ensure!(replayed?.whole, "the recorded file could not all be read");
    let (mut rows, mut bytes, mut counted) = (0, 0, 0);
    for path in files(&folder.join("data").join(Table::Flows.name()))? {
        bytes += fs::metadata(&path)?.len();
        for batch in ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path)?)?.build()? {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            let counts = batch.column_by_name("count").context("flows have a count")?.as_primitive::<Int64Type>();
            counted += counts.values().iter().sum::<i64>();
            let reasons = cast(batch.column_by_name("reason").context("flows have a reason")?, &DataType::Utf8)?;
            let unknown = reasons.as_string::<i32>().iter().any(|reason| reason == Some("attribution_unknown"));
            ensure!(!unknown, "rows have lost their attribution: the recorded file does not say what its ids mean");
        }
    }
    ensure!(usize::try_from(counted)? == EVENTS, "{counted} events are on record, expected {EVENTS}");
    Ok(Run { elapsed, cpu, rows, bytes })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

fn record(file: &Path) -> Result<()> {
    let snapshot = Arc::new(snapshot());
    let mut compiler = Compiler::new(NODE, IdFloor::default());
    let change = compiler.compile(&snapshot);
    let header = Header {
        abi_version: ABI_VERSION,
        cluster: "bench".into(),
        node: NODE.into(),
        boot_id: BOOT.into(),
        clock_offset_ns: OFFSET,
        collector_version: env!("CARGO_PKG_VERSION").into(),
    };
    let mut recorder = Recorder::create(file, &header)?;
    recorder.write(&Input::Session(Session {
        node: NODE.into(),
        boot_id: BOOT.into(),
        mode: ModeName::Enforce,
        fresh: true,
        time_ns: OFFSET,
    }))?;
    let state = WholeState {
        number: 1,
        boot_id: BOOT.into(),
        revision: REVISION,
        seen_ns: OFFSET,
        snapshot,
        addresses: change.put.addresses,
        blocks: change.put.blocks,
        owners: change.owners.iter().map(|(id, owner)| (*id, Arc::new(owner.clone()))).collect(),
    };
    recorder.write(&Input::Snapshot(Arc::new(state.into())))?;
    recorder.write(&Input::Meanings(Meanings { attributions: change.attributions, owners: change.owners }))?;
    let mut kernel = Kernel::new(&compiler);
    for _ in 0..EVENTS {
        let lane = kernel.judge();
        if kernel.rings[lane as usize].waiting == DRAINED {
            recorder.write(&kernel.drain(lane))?;
        }
    }
    for lane in [Lane::Denied, Lane::Flow] {
        recorder.write(&kernel.drain(lane))?;
    }
    Ok(recorder.finish()?)
}

/// Two pods, or a pod and an address outside, and the decision of the tables on them.
#[derive(Clone, Copy)]
struct Talk {
    interface: u32,
    subject: (IpAddr, SubjectEntry),
    direction: Direction,
    peer: (IpAddr, PeerEntry),
    port: u16,
    attribution: AttributionId,
}

#[derive(Default)]
struct Ring {
    bytes: Vec<u8>,
    waiting: usize,
    /// By CPU.
    seqs: [u64; CPUS as usize],
}

/// Writes the events of a kernel with the compiled tables.
struct Kernel {
    draws: Draws,
    allowed: Vec<Talk>,
    denied: Vec<Talk>,
    /// Denials with their source port.
    recent: VecDeque<(Talk, u16)>,
    /// Denials, other flows.
    rings: [Ring; 2],
    now: u64,
}

impl Kernel {
    fn new(compiler: &Compiler) -> Self {
        let mut draws = Draws::new(3);
        let tables = compiler.tables();
        let peers: Vec<_> = tables.addresses.iter().map(|(address, entry)| (*address, *entry)).collect();
        let own = |entry: &SubjectEntry| peers.iter().find(|(_, peer)| peer.owner == entry.owner).map(|peer| peer.0);
        let (mut allowed, mut denied) = (Vec::new(), Vec::new());
        for (interface, (key, entry)) in (100..).zip(&tables.subjects) {
            let Some(address) = own(entry) else { continue };
            for _ in 0..200 {
                let (direction, port) = (*draws.of(&[Direction::Egress, Direction::Ingress]), *draws.of(&PORTS));
                let mut peer = *draws.of(&peers);
                if draws.below(10) == 0 {
                    let low = u8::try_from(draws.below(200)).unwrap_or(0);
                    peer = (IpAddr::from([203, 0, 113, low]), PeerEntry::default());
                }
                let found = compiler.lookup(key, direction, peer.0, Protocol::TCP, Some(port));
                let Some((verdict, attribution)) = found else { continue };
                let talk = Talk { interface, subject: (address, *entry), direction, peer, port, attribution };
                match verdict {
                    Verdict::Allowed => allowed.push(talk),
                    Verdict::Denied => denied.push(talk),
                    Verdict::Unknown => {}
                }
            }
        }
        Self { draws, allowed, denied, recent: VecDeque::new(), rings: <[Ring; 2]>::default(), now: WINDOW }
    }

    /// Judges one packet; returns the ring that has its event.
    fn judge(&mut self) -> Lane {
        self.now += self.draws.below(APART) as u64;
        let source_port = u16::try_from(32_768 + self.draws.below(28_000)).unwrap_or(u16::MAX);
        if self.draws.below(100) >= DENIED {
            let talk = *self.draws.of(&self.allowed);
            self.write(talk, source_port, Lane::Flow);
            return Lane::Flow;
        }
        let is_repeat = self.draws.below(100) < REPEATED && !self.recent.is_empty();
        let (talk, source_port) = if is_repeat {
            self.recent[self.draws.below(self.recent.len())]
        } else {
            let talk = *self.draws.of(&self.denied);
            self.recent.push_back((talk, source_port));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
            (talk, source_port)
        };
        self.write(talk, source_port, Lane::Denied);
        Lane::Denied
    }

    fn write(&mut self, talk: Talk, source_port: u16, lane: Lane) {
        let ring = &mut self.rings[lane as usize];
        // A flow's packets come to one CPU.
        let cpu = u32::from(source_port) % CPUS;
        let seq = &mut ring.seqs[cpu as usize];
        *seq += 1;
        let (subject, peer) = ((talk.subject.0, talk.subject.1.owner.0), (talk.peer.0, talk.peer.1.owner.0));
        let (direction, source, destination) = match talk.direction {
            Direction::Egress => (AbiDirection::Egress, subject, peer),
            Direction::Ingress => (AbiDirection::Ingress, peer, subject),
        };
        let (verdict, disposition) = match lane {
            Lane::Denied => (AbiVerdict::Denied, Disposition::Dropped),
            Lane::Flow => (AbiVerdict::Allowed, Disposition::Forwarded),
        };
        let event = VerdictEvent {
            kind: EventKind::Verdict as u8,
            abi_version: ABI_VERSION,
            lane: lane as u8,
            direction: direction as u8,
            cpu,
            seq: *seq,
            boot_time: self.now,
            revision: REVISION,
            attribution: talk.attribution.0,
            source: mapped(source.0),
            destination: mapped(destination.0),
            source_owner: source.1,
            destination_owner: destination.1,
            endpoint_owner: subject.1,
            ifindex: talk.interface,
            source_port,
            destination_port: talk.port,
            protocol: 6,
            family: 4,
            tcp_flags: 2,
            verdict: verdict as u8,
            disposition: disposition as u8,
            mode: Mode::Enforce as u8,
            length: 74,
            ..VerdictEvent::default()
        };
        let event = event.as_bytes();
        ring.bytes.extend(u32::try_from(event.len()).unwrap_or(0).to_le_bytes());
        ring.bytes.extend_from_slice(event);
        ring.waiting += 1;
    }

    fn drain(&mut self, lane: Lane) -> Input {
        let ring = &mut self.rings[lane as usize];
        ring.waiting = 0;
        let lane = match lane {
            Lane::Denied => LaneName::Denied,
            Lane::Flow => LaneName::Flow,
        };
        let ingest_ns = OFFSET.saturating_add_unsigned(self.now);
        Input::Ring(RingBatch { lane, ingest_ns, offset_ns: OFFSET, bytes: std::mem::take(&mut ring.bytes) })
    }
}

const PORTS: [u16; 5] = [80, 443, 5_432, 6_379, 8_080];

/// A fifth of the pods is on the node.
fn snapshot() -> Snapshot {
    let mut all = cluster().pod_range("10.0.0.0/16");
    for node in 0..5 {
        all = all.node(&format!("n{node}"), &[&format!("192.168.0.{node}")], &[("topology.kubernetes.io/zone", "a")]);
    }
    for number in 0..NAMESPACES {
        let namespace = format!("ns-{number}");
        let team = format!("team-{}", number % 3);
        let policy = |name: &str| network_policy(&format!("{namespace}/{name}"));
        all = all
            .namespace(&namespace, &[("team", &team)])
            .policy(policy("deny-all").isolate_ingress().isolate_egress())
            .policy(policy("own-namespace").ingress(accept().peer(pods_in(&namespace, &[]))))
            .policy(policy("team").ingress(accept().peer(pods(&[("team", &team)], &[])).port(tcp(80)).port(tcp(443))))
            .policy(policy("to-team").egress(accept().peer(pods(&[("team", &team)], &[]))))
            .policy(
                policy("database")
                    .select(&[("app", "app-0")])
                    .ingress(accept().peer(pods(&[], &[("app", "app-1")])).port(tcp(5_432))),
            )
            .policy(policy("outside").egress(accept().peer(net("203.0.113.0/25", &[])).port(tcp(443))));
        for index in 0..PODS_EACH {
            let labels = [("app", format!("app-{}", index % 4)), ("version", format!("v{}", index % 2))];
            let labels = [("team", &team), (labels[0].0, &labels[0].1), (labels[1].0, &labels[1].1)];
            all = all.pod(
                pod(&format!("{namespace}/pod-{index}"))
                    .labels(&labels.map(|(name, value)| (name, value.as_str())))
                    .at(&[&format!("10.0.{number}.{}", index + 1)])
                    .on(&format!("n{}", index % 5)),
            );
        }
    }
    all.snapshot()
}

fn mapped(address: IpAddr) -> netverdict_abi::address::Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn line(title: &str, value: f64, unit: &str) {
    println!("  {title:<32}{value:>12.2} {unit}");
}
