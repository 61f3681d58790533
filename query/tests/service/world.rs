//! A small cluster on record, and a running service over it. Reads like the domain: `world.denied("shop/web", "db/pg")`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use netverdict_flowlog::{
    Table, columns, file,
    path::{Hour, SegmentPath},
    row::{
        AttributionValue, ChangeHead, ChangeKind, DispositionName, EndpointChangeRow, EndpointKind, EndpointRow,
        FlowRow, GapCause, GapRow, LaneName, Method, ModeName, NamespaceRow, PolicyRow, RecordType, Reporter, Row,
        SnapshotRow,
    },
};
use netverdict_policy::{
    AttributionId, Direction, End, Flow, ObjectKey, Snapshot, Verdict,
    evaluate::{Family, Point, evaluate},
    model::{Pod, Protocol},
};
use netverdict_query::{Options, serve::Service};
use netverdict_service::shutdown::Shutdown;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::collector::Collector;

pub(crate) const NODE: &str = "demo-node";
pub(crate) const BOOT: &str = "7f9c24e5-2f0d-4b6e-9c55-0f6f3a1a2b3c";
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Three pods; `db/pg` takes only packets of `shop/api` to port 5432.
pub(crate) const MANIFESTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Namespace
metadata: {name: db}
---
apiVersion: v1
kind: Node
metadata: {name: demo-node}
spec: {podCIDRs: [10.1.0.0/16]}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, uid: uid-web, labels: {app: web}}
spec: {nodeName: demo-node, containers: [{name: web, image: web}]}
status: {phase: Running, podIP: 10.1.0.2, podIPs: [{ip: 10.1.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: api, uid: uid-api, labels: {app: api}}
spec: {nodeName: demo-node, containers: [{name: api, image: api}]}
status: {phase: Running, podIP: 10.1.0.3, podIPs: [{ip: 10.1.0.3}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: db, name: pg, uid: uid-pg, labels: {app: pg}}
spec: {nodeName: demo-node, containers: [{name: pg, image: pg, ports: [{containerPort: 5432}]}]}
status: {phase: Running, podIP: 10.1.0.4, podIPs: [{ip: 10.1.0.4}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: db, name: default-deny, uid: uid-default-deny, generation: 1}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: db, name: allow-api, uid: uid-allow-api, generation: 1}
spec:
  podSelector: {matchLabels: {app: pg}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: shop}}
      podSelector: {matchLabels: {app: api}}
    ports: [{protocol: TCP, port: 5432}]
";

/// The rows on record, and their folder.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) snapshot: Snapshot,
    texts: Vec<PolicyRow>,
    pub(crate) number: u64,
    seq: u64,
    pub(crate) collector: Collector,
}

impl World {
    /// The state of [`MANIFESTS`] came into force half an hour ago and is in segment 1.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let collector = Collector::start(folder.path()).await;
        let mut world = Self { folder, snapshot: Snapshot::default(), texts: Vec::new(), number: 0, seq: 0, collector };
        let rows = world.apply(MANIFESTS, Utc::now() - TimeDelta::minutes(30));
        world.write(1, &rows);
        world
    }

    /// A record that is there already, copied.
    pub(crate) async fn of_files(data: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        copy(data, &folder.path().join("data"));
        let collector = Collector::start(folder.path()).await;
        Self { folder, snapshot: Snapshot::default(), texts: Vec::new(), number: 0, seq: 0, collector }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts the manifests in force, in place of earlier ones; returns the rows of the change.
    pub(crate) fn apply(&mut self, manifests: &str, time: DateTime<Utc>) -> Vec<Row> {
        let (objects, findings) = netverdict_manifest::read(manifests, "test.yaml");
        assert!(findings.is_empty(), "{findings:?}");
        let reading = netverdict_manifest::snapshot(&objects);
        self.number += 1;
        let head = |change| ChangeHead { change, time, snapshot: self.number, node: NODE.into(), boot_id: BOOT.into() };
        let (put, delete) = (head(ChangeKind::Put), head(ChangeKind::Delete));
        let policy = |object: &netverdict_manifest::Object| PolicyRow {
            head: put.clone(),
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            uid: object.uid.clone(),
            generation: object.generation,
            resource_version: object.resource_version.clone(),
            content_hash: object.content_hash.clone(),
            text: netverdict_manifest::text(object),
            author: "kubectl".into(),
            changed_time: Some(time - TimeDelta::seconds(2)),
            origin: "test.yaml".into(),
            ..PolicyRow::default()
        };
        let texts: Vec<PolicyRow> = reading.objects.iter().map(|object| policy(object)).collect();
        let mut rows = Vec::new();
        for gone in self.texts.iter().filter(|old| !texts.iter().any(|new| new.uid == old.uid)) {
            rows.push(Row::Policy(Box::new(PolicyRow { head: delete.clone(), text: String::new(), ..gone.clone() })));
        }
        for (key, pod) in self.snapshot.pods.iter().filter(|(key, _)| !reading.snapshot.pods.contains_key(*key)) {
            assert_eq!(*key, pod.key());
            rows.push(Row::Endpoint(Box::new(endpoint(pod, delete.clone()))));
        }
        let changed =
            |new: &PolicyRow| !self.texts.iter().any(|old| old.uid == new.uid && old.content_hash == new.content_hash);
        rows.extend(texts.iter().filter(|new| changed(new)).map(|row| Row::Policy(Box::new(row.clone()))));
        rows.extend(reading.snapshot.pods.values().map(|pod| Row::Endpoint(Box::new(endpoint(pod, put.clone())))));
        rows.extend(reading.snapshot.nodes.values().map(|node| {
            Row::Endpoint(Box::new(EndpointChangeRow {
                kind: EndpointKind::Node,
                namespace: String::new(),
                name: node.name.clone(),
                uid: node.uid.clone(),
                addresses: node.addresses.clone(),
                node_name: node.name.clone(),
                pod_ranges: node.pod_ranges.iter().map(ToString::to_string).collect(),
                ..endpoint(&Pod::default(), put.clone())
            }))
        }));
        rows.extend(reading.snapshot.namespaces.values().map(|namespace| {
            Row::Namespace(Box::new(NamespaceRow {
                head: put.clone(),
                name: namespace.name.clone(),
                uid: namespace.uid.clone(),
                labels: namespace.labels.clone(),
                audit: namespace.audit,
            }))
        }));
        rows.push(Row::Snapshot(Box::new(SnapshotRow {
            time,
            node: NODE.into(),
            boot_id: BOOT.into(),
            snapshot: self.number,
            revision: self.number,
            policies: reading.snapshot.policies.len() as u64,
            pods: reading.snapshot.pods.len() as u64,
            namespaces: reading.snapshot.namespaces.len() as u64,
            audit_all: false,
            errors: 0,
        })));
        self.snapshot = reading.snapshot;
        self.texts = texts;
        rows
    }

    /// Records of an attempt as both ends see it; the first that denies is the last that sees it.
    pub(crate) fn attempt(&mut self, source: &str, destination: &str, port: u16, time: DateTime<Utc>) -> Vec<Row> {
        self.attempt_over(Protocol::TCP, source, destination, port, time)
    }

    pub(crate) fn attempt_over(
        &mut self,
        protocol: Protocol,
        source: &str,
        destination: &str,
        port: u16,
        time: DateTime<Utc>,
    ) -> Vec<Row> {
        let (source, destination) = (key(source), key(destination));
        let flow = Flow {
            source: End::Pod(source.clone()),
            destination: End::Pod(destination.clone()),
            protocol,
            port: Some(port),
            family: Family::V4,
        };
        let evaluation = evaluate(&self.snapshot, &flow).expect("evaluated");
        let mut rows = Vec::new();
        for point in &evaluation.points {
            let stopped = point.decision.verdict == Verdict::Denied;
            rows.push(Row::Flow(Box::new(self.record(&source, &destination, (protocol, port), time, point))));
            if stopped {
                break;
            }
        }
        rows
    }

    /// The same, held by the collector and not in a file yet.
    pub(crate) fn seen(&mut self, source: &str, destination: &str, port: u16, time: DateTime<Utc>) {
        let rows = self.attempt(source, destination, port, time);
        self.collector.hold(rows);
    }

    fn record(
        &mut self,
        source: &ObjectKey,
        destination: &ObjectKey,
        (protocol, port): (Protocol, u16),
        time: DateTime<Utc>,
        point: &Point,
    ) -> FlowRow {
        self.seq += 1;
        let pod = |key: &ObjectKey| Arc::clone(&self.snapshot.pods[key]);
        let (from, to) = (pod(source), pod(destination));
        let verdict = point.decision.verdict;
        let direction = point.name.direction();
        let id = AttributionId::of(&point.decision, 0);
        FlowRow {
            record_type: RecordType::Verdict,
            node: NODE.into(),
            boot_id: BOOT.into(),
            lane: Some(if verdict == Verdict::Denied { LaneName::Denied } else { LaneName::Flow }),
            cpu: Some(0),
            seq: Some(self.seq),
            time,
            ingest_time: time,
            direction,
            reporter: if direction == Direction::Egress { Reporter::Source } else { Reporter::Destination },
            family: 4,
            source_ip: from.addresses[0],
            destination_ip: to.addresses[0],
            source_port: 40_000,
            destination_port: port,
            protocol: protocol.0,
            tcp_flags: 2,
            icmp_type: 0,
            icmp_code: 0,
            verdict,
            verdict_if_enforced: None,
            disposition: if verdict == Verdict::Denied { DispositionName::Dropped } else { DispositionName::Forwarded },
            mode: ModeName::Enforce,
            reason: point.decision.reason,
            method: Method::Enforced,
            confidence: point.decision.confidence,
            attribution: Some(Arc::new(AttributionValue { id, decision: point.decision.clone() })),
            attribution_id: id,
            near_misses: point.near_misses.clone().into(),
            snapshot: self.number,
            source: Arc::new(end(&from)),
            destination: Arc::new(end(&to)),
            packets: 1,
            bytes: 60,
            count: 1,
            first_time: time,
            last_time: time,
            ..FlowRow::default()
        }
    }

    /// Writes rows into a segment's files, as the collector does.
    pub(crate) fn write(&self, segment: u64, rows: &[Row]) -> Vec<PathBuf> {
        write(&self.data(), segment, rows)
    }

    /// A running service over it.
    pub(crate) async fn serve(&self) -> Served {
        self.serve_with(&[]).await
    }

    pub(crate) async fn serve_with(&self, more: &[&str]) -> Served {
        Served::start(self, more).await.expect("it starts")
    }
}

pub(crate) fn write(data: &Path, segment: u64, rows: &[Row]) -> Vec<PathBuf> {
    let mut files: BTreeMap<(Table, Hour), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        files.entry((Table::of(row), Hour::of(row.time()))).or_default().push(row);
    }
    let write = |((table, hour), rows): ((Table, Hour), Vec<&Row>)| {
        let path = SegmentPath::new(table, "demo", hour, NODE, BOOT, segment).expect("a path");
        let batches = columns::batches(table, rows).expect("batches");
        file::write(data, &path, &batches, &[]).expect("written");
        path.below(data)
    };
    files.into_iter().map(write).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

pub(crate) fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    ObjectKey::new(namespace, name)
}

pub(crate) fn ago(seconds: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::seconds(seconds)
}

pub(crate) fn gap(from: DateTime<Utc>, to: DateTime<Utc>) -> Row {
    Row::Gap(Box::new(GapRow {
        lane: Some(LaneName::Flow),
        cpu: Some(0),
        first_seq: Some(1),
        last_seq: Some(7),
        lost_events: 7,
        ..GapRow::of(GapCause::RingFull, &NODE.into(), &BOOT.into(), from, to, "the ring was full")
    }))
}

fn end(pod: &Pod) -> EndpointRow {
    EndpointRow {
        kind: EndpointKind::Pod,
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        node: pod.node.clone(),
        labels: pod.labels.clone(),
        identity: 17,
        ..EndpointRow::default()
    }
}

fn endpoint(pod: &Pod, head: ChangeHead) -> EndpointChangeRow {
    EndpointChangeRow {
        head,
        kind: EndpointKind::Pod,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        owner_id: 1,
        labels: pod.labels.clone(),
        addresses: pod.addresses.clone(),
        node_name: pod.node.clone(),
        host_network: pod.host_network,
        container_ports: serde_json::to_string(&pod.container_ports).expect("JSON"),
        service_account: String::new(),
        workload_kind: String::new(),
        workload: String::new(),
        phase: "running".into(),
        ..EndpointChangeRow::default()
    }
}

/// A running service and a client of it.
pub(crate) struct Served {
    pub(crate) http: String,
    pub(crate) postgres: std::net::SocketAddr,
    client: reqwest::Client,
    stop: Shutdown,
    ended: JoinHandle<anyhow::Result<()>>,
}

/// A service that is bound and does not run yet, and the request that ends it.
pub(crate) async fn bound(world: &World, more: &[&str]) -> anyhow::Result<(Service, Shutdown)> {
    let secret = world.path("secret");
    fs::write(&secret, SECRET)?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let (data, token) = (world.data(), world.path("token"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut arguments: Vec<String> =
        ["netverdict-query", "--http", "127.0.0.1:0", "--postgres", "127.0.0.1:0"].map(str::to_owned).into();
    arguments.extend(["--data-dir".into(), text(&data), "--secret-file".into(), text(&secret)]);
    arguments.extend(["--collector".into(), world.collector.url(), "--collector-token-file".into(), text(&token)]);
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    let options = Options::try_parse_from(arguments)?;
    let stop = Shutdown::new();
    let service = Service::start(&options, stop.clone()).await?;
    Ok((service, stop))
}

impl Served {
    pub(crate) async fn start(world: &World, more: &[&str]) -> anyhow::Result<Self> {
        let (service, stop) = bound(world, more).await?;
        let address = |port| service.address(port).expect("a port of that name");
        let (http, postgres) = (format!("http://{}", address("http")), address("postgres"));
        let ended = tokio::spawn(service.run());
        Ok(Self { http, postgres, client: reqwest::Client::builder().no_proxy().build()?, stop, ended })
    }

    /// An answer's status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response =
            self.client.get(format!("{}{path}", self.http)).bearer_auth(SECRET).send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    pub(crate) async fn why(&self, parameters: &str) -> netverdict_flowlog::answer::WhyAnswer {
        let (status, body) = self.get(&format!("/v1/why?{parameters}")).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_value(body).expect("a WhyAnswer")
    }

    pub(crate) async fn post(&self, query: &str, format: &str) -> reqwest::Response {
        let question = serde_json::json!({ "query": query, "format": format });
        let request = self.client.post(format!("{}/v1/sql", self.http)).bearer_auth(SECRET).json(&question);
        request.send().await.expect("an answer")
    }

    /// A statement's status and body.
    pub(crate) async fn sql(&self, query: &str) -> (u16, Value) {
        let response = self.post(query, "json").await;
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// The only value of a statement's only row.
    pub(crate) async fn value(&self, query: &str) -> Value {
        let (status, mut body) = self.sql(query).await;
        assert_eq!(status, 200, "{body}");
        body["rows"][0][0].take()
    }

    pub(crate) fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        request.bearer_auth(SECRET)
    }

    pub(crate) async fn raw(&self, request: reqwest::RequestBuilder) -> reqwest::Response {
        request.send().await.expect("an answer")
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.request();
        self.ended.await?
    }
}
