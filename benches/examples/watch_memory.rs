//! The memory of a watch of 10 000 pods: its peaks while it lists them and while each of them changes, and the memory of
//! the objects that it keeps.
//!
//! `cargo run --release -p netverdict-benches --example watch_memory`. The API server is a process of its own, so that its
//! memory is not counted; it sends pods of about 10 kB, in pages or as a stream.

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures::{StreamExt as _, stream};
use netverdict_cluster::{
    Cluster, Generations, Source as _,
    kubernetes::{Access, ApiWatch, WatchOptions},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// As in the collector.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PODS: usize = 10_000;
const SERVE: &str = "serve";
const STREAMS: &str = "streams";

#[tokio::main]
async fn main() -> Result<()> {
    let (first, second) = (std::env::args().nth(1), std::env::args().nth(2));
    match (first.as_deref(), second.as_deref()) {
        (Some(SERVE), way) => serve(way == Some(STREAMS)).await,
        (Some(way), _) => measure(way).await,
        (None, _) => {
            println!("a pod has {} bytes as JSON; there are {PODS}", pod(0, 0).to_string().len());
            // A process for each: memory that one has freed the next would use.
            for way in ["pages", STREAMS] {
                let status = Command::new(std::env::current_exe()?).arg(way).status()?;
                ensure!(status.success(), "{way}: {status}");
            }
            Ok(())
        }
    }
}

struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(way: &str) -> Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut process = command.args([SERVE, way]).stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    BufReader::new(process.stdout.take().context("its output")?).read_line(&mut url)?;
    Ok(Server { process, url: url.trim().to_owned() })
}

async fn measure(way: &str) -> Result<()> {
    let server = start(way)?;
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let text = json!({
        "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": server.url}}], "users": [{"name": "a", "user": {}}],
    });
    std::fs::write(&kubeconfig, text.to_string())?;
    let before = resident("VmRSS")?;
    std::fs::write("/proc/self/clear_refs", "5")?;
    let began = Instant::now();
    let mut cluster = Cluster::new(Generations::open(folder.path())?);
    let layer = cluster.add_source("kubernetes");
    let access = Access { kubeconfig: Some(kubeconfig), context: None };
    let mut watch = ApiWatch::open(access, WatchOptions::default()).await?;
    let status = watch.status();
    let events = || status.figures().iter().find(|(kind, _)| **kind == *"Pod").map_or(0, |(_, figures)| figures.events);
    while !cluster.waiting().is_empty() {
        let Ok(update) = watch.next().await;
        cluster.apply(layer, update.context("a watch goes on")?);
    }
    let pods = cluster.state(0).map_or(0, |state| state.snapshot.pods.len());
    ensure!(pods == PODS, "{pods} of {PODS} pods were read");
    report(&format!("{way}: listed in {:.1} s", began.elapsed().as_secs_f64()), before)?;
    // The server then changes each of them once.
    let mut changed = 0;
    while changed < PODS {
        let Ok(update) = watch.next().await;
        cluster.apply(layer, update.context("a watch goes on")?);
        let state = cluster.state(0).context("in sync")?;
        changed = state.snapshot.pods.values().filter(|pod| pod.labels.contains_key("changed")).count();
    }
    report(&format!("{way}: each changed ({} events)", events()), before)
}

fn report(what: &str, before: usize) -> Result<()> {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let (peak, now) = (resident("VmHWM")?, resident("VmRSS")?);
    println!(
        "{what}: {:.1} MiB above the start at its peak, {:.1} MiB now",
        mib(peak.saturating_sub(before)),
        mib(now.saturating_sub(before))
    );
    Ok(())
}

/// Bytes of this process.
fn resident(name: &str) -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).context("a line of status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
}

type Parameters = std::collections::BTreeMap<String, String>;

async fn serve(streams: bool) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let router = Router::new().route("/readyz", get(|| async { "ok" })).fallback(answer).with_state(streams);
    Ok(axum::serve(listener, router).await?)
}

async fn answer(State(streams): State<bool>, uri: Uri, Query(query): Query<Parameters>) -> Response {
    let is_pods = uri.path() == "/api/v1/pods";
    let is_list = query.contains_key("sendInitialEvents");
    match () {
        () if uri.path() == "/apis" => json(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        () if is_list && !streams => (StatusCode::UNPROCESSABLE_ENTITY, "no streaming lists").into_response(),
        () if is_list => {
            let mark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {
                "resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}});
            let all = (0..if is_pods { PODS } else { 0 }).map(|number| event("ADDED", &pod(number, 0)));
            let end = [event("BOOKMARK", &mark)].into_iter();
            lines(all.chain(end).chain(changes(is_pods)))
        }
        () if query.contains_key("watch") => lines(changes(is_pods)),
        () if is_pods => {
            let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
            let from = number("continue").unwrap_or(0);
            let to = (from + number("limit").unwrap_or(PODS)).min(PODS);
            let items: Vec<Value> = (from..to).map(|number| pod(number, 0)).collect();
            let next = (to < PODS).then(|| to.to_string());
            json(&json!({"kind": "PodList", "metadata": {"resourceVersion": "9", "continue": next}, "items": items}))
        }
        () => json(&json!({"kind": "List", "metadata": {"resourceVersion": "9"}, "items": []})),
    }
}

fn changes(is_pods: bool) -> impl Iterator<Item = Bytes> + Send {
    (0..if is_pods { PODS } else { 0 }).map(|number| event("MODIFIED", &pod(number, 1)))
}

fn json(value: &Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}

fn event(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}

/// A watch that sends these lines, and then nothing.
fn lines(all: impl Iterator<Item = Bytes> + Send + 'static) -> Response {
    let said = stream::iter(all.map(Ok::<_, Infallible>));
    Response::new(Body::from_stream(said.chain(stream::pending())))
}

/// As large as pods of real clusters are: a watch must not keep most of it.
fn pod(number: usize, change: usize) -> Value {
    let (name, namespace) = (format!("web-7d4f8c9b5-{number:05}"), format!("team-{}", number % 50));
    let address = format!("10.{}.{}.{}", 200 + number / 65_536, number / 256 % 256, number % 256);
    let text = |length: usize| "v".repeat(length);
    let environment: Vec<Value> =
        (0..30).map(|at| json!({"name": format!("SETTING_OF_THE_SERVICE_{at}"), "value": text(40)})).collect();
    let managers: Vec<Value> = ["kube-controller-manager", "kubelet", "istio"]
        .map(|manager| {
            json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-05-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:containers": {"k:{name}": {"f:env": text(900)}}}}})
        })
        .to_vec();
    let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-05-01T00:00:00Z"}))
        .to_vec();
    let mut labels = json!({
        "app": format!("web-{}", number % 200), "pod-template-hash": "7d4f8c9b5", "team": namespace,
        "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": format!("web-{}", number % 200),
    });
    if change > 0 {
        labels["changed"] = json!("yes");
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("00000000-0000-4000-8000-{number:012}"),
            "resourceVersion": (number + 10 + change * PODS).to_string(), "creationTimestamp": "2026-05-01T00:00:00Z",
            "generateName": "web-7d4f8c9b5-", "labels": labels, "managedFields": managers,
            "annotations": {"cni.example/networks": text(600), "checksum/config": text(64)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4f8c9b5", "controller": true,
                "uid": "00000000-0000-4000-8000-000000000001", "blockOwnerDeletion": true}],
        },
        "spec": {
            "nodeName": format!("node-{}", number / 100), "serviceAccountName": "web", "restartPolicy": "Always",
            "containers": [
                {"name": "web", "image": format!("registry.example/web@sha256:{}", text(64)), "env": environment,
                 "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9090}],
                 "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}}},
                {"name": "sidecar", "image": format!("registry.example/proxy@sha256:{}", text(64)), "args": [text(700)]},
            ],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}, {"name": "token", "projected": {"sources": [text(300)]}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.1", "podIP": address, "podIPs": [{"ip": address}],
            "startTime": "2026-05-01T00:00:00Z", "conditions": conditions,
            "containerStatuses": [
                {"name": "web", "ready": true, "restartCount": 0, "imageID": text(100), "containerID": text(80),
                 "state": {"running": {"startedAt": "2026-05-01T00:00:00Z"}}},
                {"name": "sidecar", "ready": true, "restartCount": 0, "imageID": text(100), "containerID": text(80),
                 "state": {"running": {"startedAt": "2026-05-01T00:00:00Z"}}},
            ],
        },
    })
}
