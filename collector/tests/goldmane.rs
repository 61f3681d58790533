//! Calico's flow log over a real socket into Parquet: acknowledged only when logged, each flow recorded once, even if a
//! body is sent twice or the collector dies at any moment. No kernel takes part.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use clap::Parser as _;
use netverdict_collector::{
    drain::{Channels, Drain, Message},
    health::Health,
    input::{Input, Session},
    metrics::Metrics,
    pipeline::{Checkpoint, Pipeline},
    receive::{
        goldmane::listener::{self, GoldmaneOptions},
        inlet::{self, Inlet},
    },
    recording::SharedRecorder,
    store::{Store, StoreOptions},
    wal::{FsyncPolicy, Wal},
    write::Writer,
};
use netverdict_flowlog::{
    Table,
    read::{batches, rows},
    row::{EndpointKind, FlowRow, GapCause, GapRow, Method, ModeName, Receiver, Row},
};
use netverdict_policy::{Confidence, Reason, Role, Verdict};
use netverdict_service::{
    http_server::{HttpLimitOptions, HttpLimits},
    queue::QueueSender,
    shutdown::Shutdown,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const BOOT: &str = "00000000-0000-4000-8000-000000000001";
const WINDOW_NS: u64 = 10_000_000_000;

/// The limits of a port where no option is given.
#[derive(clap::Parser)]
struct Limits {
    #[command(flatten)]
    http: HttpLimitOptions,
}

/// A collector without a probe.
struct Collector {
    url: String,
    client: reqwest::Client,
    metrics: Metrics,
    messages: QueueSender<Message>,
    threads: (JoinHandle<()>, JoinHandle<()>),
    server: tokio::task::JoinHandle<()>,
}

impl Collector {
    async fn start(root: &Path, token_file: Option<PathBuf>) -> Self {
        let (data, state) = (root.join("data"), root.join("state"));
        let mut options = StoreOptions::new(&data, &state, "c", "n", BOOT);
        // Files only when it stops: after a crash, rows are in the log alone.
        options.flush_after = Duration::from_secs(3_600);
        let (store, committed) = Store::open(options).unwrap();
        let (wal, replay) = Wal::open(&state.join("wal"), FsyncPolicy::None, committed.wal).unwrap();
        let checkpoint =
            committed.checkpoint.map_or_else(Checkpoint::default, |text| serde_json::from_str(&text).unwrap());
        let (health, metrics) = (Arc::new(Health::default()), Metrics::default());
        let pipeline = Pipeline::new(WINDOW_NS, checkpoint);
        let mut writer = Writer::new(pipeline, Arc::new(store), None, health.clone(), metrics.clone(), Shutdown::new());
        writer.replay(replay, |_| Vec::new()).unwrap();

        let (messages, received) = metrics.queues.bounded("drain_messages", 8);
        let (pipeline, inputs) = metrics.queues.bounded("pipeline_inputs", 8);
        let (release, released) = metrics.queues.bounded("log_releases", 8);
        let (deliveries, delivered) = inlet::deliveries(&metrics.queues);
        let session =
            Session { node: "n".into(), boot_id: BOOT.into(), mode: ModeName::Observe, fresh: false, time_ns: 1 };
        messages.send(Message::Input(Box::new(Input::Session(session)))).unwrap();
        let channels = Channels { messages: received, deliveries: delivered, pipeline, released };
        let drain = Drain::new(Vec::new(), wal, channels, SharedRecorder::default(), health, metrics.clone());
        let draining = std::thread::spawn(move || drain.run().unwrap());
        let writing = std::thread::spawn(move || drop(writer.run(&inputs, &release).unwrap()));

        let options =
            GoldmaneOptions { goldmane_listen: Some("127.0.0.1:0".parse().unwrap()), goldmane_token_file: token_file };
        let limits = HttpLimits::from(&Limits::parse_from(["limits"]).http);
        let bound = listener::bind(&options, &limits).await.unwrap().expect("it is asked for");
        let url = format!("http://{}{}", bound.address, listener::PATH);
        let inlet = Inlet { deliveries, metrics: metrics.clone(), end: Shutdown::new() };
        let server = tokio::spawn((bound.serve)(inlet));
        let client = reqwest::Client::new();
        Self { url, client, metrics, messages, threads: (draining, writing), server }
    }

    fn request(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.client.post(&self.url).header("content-type", listener::CONTENT_TYPE).body(body)
    }

    async fn post(&self, body: &str) -> u16 {
        self.request(body.to_owned()).send().await.unwrap().status().as_u16()
    }

    /// As SIGTERM would: everything that was acknowledged is in files afterwards.
    async fn stop(self) {
        drop(self.messages);
        tokio::task::spawn_blocking(move || {
            self.threads.0.join().unwrap();
            self.threads.1.join().unwrap();
        })
        .await
        .unwrap();
        self.server.abort();
    }
}

/// A copy of the disk at this moment, as a crash would leave it.
fn after_a_crash(root: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    copy_folder(root, copy.path());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(folder) else { return Vec::new() };
    let paths = listed.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn recorded(root: &Path, table: Table) -> Vec<Row> {
    let mut all = Vec::new();
    for file in files(&root.join("data").join(table.name())) {
        for batch in batches(&file).unwrap() {
            all.extend(rows(table, &batch.unwrap()).unwrap());
        }
    }
    all
}

fn flows(root: &Path) -> Vec<FlowRow> {
    let flow = |row| if let Row::Flow(row) = row { *row } else { panic!("no flow: {row:?}") };
    let mut flows: Vec<_> = recorded(root, Table::Flows).into_iter().map(flow).collect();
    flows.sort_by_key(|row| row.destination_port);
    flows
}

fn gaps(root: &Path) -> Vec<GapRow> {
    let gap = |row| if let Row::Gap(row) = row { *row } else { panic!("no gap: {row:?}") };
    recorded(root, Table::Gaps).into_iter().map(gap).collect()
}

/// A denial in the window that ended a minute ago.
fn denial(port: u16) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let start = now / 300 * 300 - 300;
    json!({
        "Key": {
            "source_name": "client-*", "source_namespace": "ns-a", "source_type": 1,
            "dest_name": "server-*", "dest_namespace": "ns-b", "dest_type": 1, "dest_port": port,
            "proto": "tcp", "reporter": 2, "action": 2,
            "policies": {"enforced_policies": [{
                "kind": 10, "tier": "default", "action": 2, "rule_index": -1,
                "trigger": {"kind": 6, "namespace": "ns-b", "name": "only-frontend", "tier": "default"}
            }]}
        },
        "start_time": start, "end_time": start + 300,
        "source_labels": ["app=client"], "packets_in": 3, "bytes_in": 180, "num_connections_started": 2
    })
}

/// As the emitter joins them: no newline at the end.
fn body(lines: &[String]) -> String {
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_flows_are_recorded_once_over_retries_and_a_crash() {
    let root = TempDir::new().unwrap();
    let mut empty = denial(3);
    for statistic in ["packets_in", "bytes_in", "num_connections_started"] {
        empty[statistic] = 0.into();
    }
    let sent = body(&[denial(1).to_string(), "not JSON".to_owned(), empty.to_string(), denial(2).to_string()]);
    let collector = Collector::start(root.path(), None).await;
    assert_eq!(collector.post(&sent).await, 200);
    let crashed = after_a_crash(root.path());
    assert_eq!(collector.post(&sent).await, 200, "the same window again");
    collector.stop().await;

    // The collector that crashed right after the first answer starts again; the emitter sends its window again.
    let collector = Collector::start(crashed.path(), None).await;
    assert_eq!(collector.post(&sent).await, 200);
    collector.stop().await;
    // And a third one, after a clean stop.
    let collector = Collector::start(crashed.path(), None).await;
    assert_eq!(collector.post(&sent).await, 200);
    assert_eq!(collector.post(&body(&[denial(4).to_string()])).await, 200);
    let metrics = collector.metrics.clone();
    collector.stop().await;
    let text = metrics.text();
    for count in ["recorded\"} 1", "repeated\"} 3", "empty\"} 1"] {
        assert!(text.contains(&format!("netverdict_collector_foreign_reports_total{{outcome=\"{count}")), "{text}");
    }

    for (root, ports) in [(root.path(), [1, 2].as_slice()), (crashed.path(), [1, 2, 4].as_slice())] {
        let flows = flows(root);
        let found: Vec<u16> = flows.iter().map(|row| row.destination_port).collect();
        assert_eq!(found, ports);
        let gaps = gaps(root);
        let unreadable: Vec<_> = gaps.iter().filter(|gap| gap.cause == GapCause::Unreadable).collect();
        assert_eq!(unreadable.len(), 1, "{gaps:?}");
        assert_eq!((unreadable[0].lost_events, unreadable[0].lane), (1, None));
        assert!(unreadable[0].detail.contains("goldmane"), "{}", unreadable[0].detail);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_claims_no_more_than_calico_said() {
    let root = TempDir::new().unwrap();
    let collector = Collector::start(root.path(), None).await;
    assert_eq!(collector.post(&denial(8080).to_string()).await, 200);
    collector.stop().await;
    let mut flows = flows(root.path());
    assert_eq!(flows.len(), 1);
    let row = flows.remove(0);
    assert_eq!(
        (row.method, row.receiver, row.lane, row.cpu, row.seq),
        (Method::Reported, Receiver::Goldmane, None, None, None)
    );
    assert!(row.cursor.is_some_and(|cursor| cursor.contains('-')));
    assert_eq!(
        (row.verdict, row.reason, row.confidence),
        (Verdict::Denied, Reason::IsolatedNoMatch, Confidence::Partial)
    );
    assert_eq!((row.attribution_id.0, row.snapshot, row.near_misses.len()), (0, 0, 0));
    assert_eq!((row.count, row.packets, row.bytes), (2, 3, 180));
    assert_eq!((row.last_time - row.first_time).num_seconds(), 300);
    assert_eq!(
        (row.source.kind, row.source.pod.as_str(), row.source.workload.as_str()),
        (EndpointKind::Pod, "", "client-*")
    );
    let decision = &row.attribution.expect("policies are named").decision;
    let named: Vec<_> = decision.references.iter().map(|r| (r.role, r.policy.to_string())).collect();
    assert_eq!(named, [(Role::Isolating, "NetworkPolicy ns-b/only-frontend".to_owned())]);
    let verbatim: Value = serde_json::from_str(&row.reported_by.expect("verbatim")).unwrap();
    assert_eq!(verbatim, denial(8080)["Key"]["policies"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_taken_is_not_acknowledged() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("token");
    let collector = Collector::start(root.path(), Some(file.clone())).await;
    let (line, secret) = (denial(1).to_string(), fs::read_to_string(&file).unwrap());
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

    assert_eq!(collector.post(&line).await, 401);
    assert_eq!(status(collector.request(line.clone()).bearer_auth("another-token-of-length")).await, 401);
    let with_token = |body: String| collector.request(body).bearer_auth(secret.trim());
    let plain = collector.client.post(&collector.url).header("content-type", "text/plain").body(line.clone());
    assert_eq!(status(plain.bearer_auth(secret.trim())).await, 415);
    let too_long = "x".repeat(listener::MAX_BODY_BYTES + 1);
    // It may be refused and the connection closed before all of it was sent.
    match with_token(too_long).send().await {
        Ok(answer) => assert_eq!(answer.status().as_u16(), 413),
        Err(error) => assert!(error.is_request(), "{error:?}"),
    }
    assert_eq!(status(collector.client.get(&collector.url)).await, 405);
    assert_eq!(status(collector.client.post(collector.url.replace("goldmane", "other"))).await, 404);
    assert_eq!(status(with_token(line.clone())).await, 200);
    assert_eq!(status(with_token(String::new())).await, 200);

    // The writer of the log has ended.
    let (url, client) = (collector.url.clone(), collector.client.clone());
    let Collector { messages, threads, server, .. } = collector;
    drop(messages);
    tokio::task::spawn_blocking(move || (threads.0.join().unwrap(), threads.1.join().unwrap())).await.unwrap();
    let late = client.post(url).header("content-type", listener::CONTENT_TYPE).bearer_auth(secret.trim()).body(line);
    assert_eq!(late.send().await.unwrap().status().as_u16(), 503);
    server.abort();
    assert_eq!(flows(root.path()).len(), 1);
}
