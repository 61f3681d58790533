//! States over files as a collector writes them, asked for again and again: a kept state must equal one that is read
//! anew, whatever happens to the files between two questions.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser as _;
use netverdict_flowlog::{
    columns, file,
    path::{Hour, SegmentPath},
    row::{ChangeHead, ChangeKind, EndpointChangeRow, Row, SnapshotRow},
};
use tempfile::TempDir;

use super::{fold::Changes, *};
use crate::{Executor, Options, metrics::Metrics, tables::Store, threads::Threads, unflushed::Collectors};

const BOOT: &str = "7f9c24e5-2f0d-4b6e-9c55-0f6f3a1a2b3c";

fn start() -> DateTime<Utc> {
    "2026-11-20T09:00:00Z".parse().expect("a time")
}

/// When a state came into force: one a minute.
fn time(number: u64) -> DateTime<Utc> {
    start() + TimeDelta::minutes(i64::try_from(number).expect("small"))
}

fn head(node: &str, number: u64, change: ChangeKind) -> ChangeHead {
    ChangeHead { change, time: time(number), snapshot: number, node: node.into(), boot_id: BOOT.into() }
}

fn pod(node: &str, number: u64, change: ChangeKind, name: &str) -> Row {
    Row::Endpoint(Box::new(EndpointChangeRow {
        head: head(node, number, change),
        kind: EndpointKind::Pod,
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        owner_id: 1,
        // The label identifies the change.
        labels: [("number".to_owned(), number.to_string())].into(),
        addresses: vec!["10.1.0.2".parse().expect("an address")],
        node_name: node.into(),
        host_network: false,
        container_ports: "[]".into(),
        service_account: String::new(),
        workload_kind: String::new(),
        workload: String::new(),
        phase: "running".into(),
        ..EndpointChangeRow::default()
    }))
}

fn snapshot(node: &str, number: u64, pods: u64) -> Row {
    Row::Snapshot(Box::new(SnapshotRow {
        time: time(number),
        node: node.into(),
        boot_id: BOOT.into(),
        snapshot: number,
        revision: number,
        policies: 0,
        pods,
        namespaces: 0,
        audit_all: false,
        errors: 0,
    }))
}

/// A data directory, and the policy states in it. There is no collector.
struct Record {
    folder: TempDir,
    history: History,
}

impl Record {
    async fn new(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let history = history(folder.path(), options).await;
        Self { folder, history }
    }

    fn write(&self, node: &str, segment: u64, rows: &[Row]) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for table in Table::ALL {
            let rows: Vec<&Row> = rows.iter().filter(|row| Table::of(row) == table).collect();
            let Some(first) = rows.first() else { continue };
            let hour = Hour::of(first.time());
            let path = SegmentPath::new(table, "demo", hour, node, BOOT, segment).expect("a path");
            let batches = columns::batches(table, rows).expect("batches");
            file::write(self.folder.path(), &path, &batches, &[]).expect("written");
            paths.push(path.below(self.folder.path()));
        }
        paths
    }

    /// State `number` in a segment of its own: one more pod, and the one before is relabelled. The file with the pods.
    fn next(&self, node: &str, number: u64) -> PathBuf {
        let mut rows =
            vec![pod(node, number, ChangeKind::Put, &format!("pod-{number}")), snapshot(node, number, number)];
        if number > 1 {
            rows.push(pod(node, number, ChangeKind::Put, &format!("pod-{}", number - 1)));
        }
        let paths = self.write(node, number, &rows);
        paths.into_iter().find(|path| path.to_string_lossy().contains("endpoints")).expect("a file with pods")
    }

    async fn at(&self, node: Option<&str>, moment: Moment) -> Option<State> {
        rebuild(&self.history, node, moment, &Arc::default()).await.expect("a state can be read")
    }

    async fn newest(&self) -> State {
        self.at(None, Moment::Newest).await.expect("a state")
    }

    /// Reads the state with an empty cache.
    async fn anew(&self, node: Option<&str>, moment: Moment) -> Vec<String> {
        let history = history(self.folder.path(), &["--kept-states", "0"]).await;
        pods(&rebuild(&history, node, moment, &Arc::default()).await.expect("read").expect("a state"))
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.history.executor().metrics().text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_default()
    }

    /// How states came about: kept, extended, read anew.
    fn came(&self) -> [u64; 3] {
        ["hit", "extended", "miss"]
            .map(|outcome| self.metric(&format!("netverdict_query_states_total{{outcome=\"{outcome}\"}}")))
    }
}

async fn history(data: &Path, more: &[&str]) -> History {
    let arguments = ["query", "--data-dir", data.to_str().expect("UTF-8")];
    let options = Options::try_parse_from(arguments.iter().chain(more)).expect("options");
    let metrics = Arc::new(Metrics::default());
    let collectors = Arc::new(Collectors::new(&options.data, None, Arc::clone(&metrics)).expect("a client"));
    let store = Store::open(data, collectors, Arc::clone(&metrics)).expect("a store");
    let threads = Threads::start(2).expect("threads");
    let executor = Executor::new(Arc::new(store), threads, &options.limits, metrics).await.expect("an executor");
    History::new(executor, &options.limits)
}

/// `pod-1=2`: the pod, and the state that changed it last.
fn pods(state: &State) -> Vec<String> {
    let of = |pod: &Arc<netverdict_policy::model::Pod>| format!("{}={}", pod.name, pod.labels["number"]);
    state.snapshot.pods.values().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_is_kept_and_what_came_since_is_added() {
    let record = Record::new(&[]).await;
    (1..=3).for_each(|number| drop(record.next("a", number)));
    assert_eq!(pods(&record.newest().await), ["pod-1=2", "pod-2=3", "pod-3=3"]);
    assert_eq!(record.came(), [0, 0, 1]);
    assert_eq!(record.newest().await.number, 3);
    assert_eq!(record.came(), [1, 0, 1]);
    // The log grows.
    record.next("a", 4);
    let state = record.newest().await;
    assert_eq!((state.number, pods(&state)), (4, record.anew(None, Moment::Newest).await));
    assert!(state.problems.is_empty(), "{:?}", state.problems);
    assert_eq!(record.came(), [1, 1, 1]);
    // An older state cannot be had from a newer one; a state between two can be had from the older.
    assert_eq!(pods(&record.at(Some("a"), Moment::Number(1)).await.expect("a state")), ["pod-1=1"]);
    let between = record.at(Some("a"), Moment::At(time(3))).await.expect("a state");
    assert_eq!(pods(&between), ["pod-1=2", "pod-2=3", "pod-3=3"]);
    assert_eq!(record.came(), [1, 2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_files_change_what_is_kept() {
    let record = Record::new(&[]).await;
    (1..=3).for_each(|number| drop(record.next("a", number)));
    record.newest().await;
    // Written late, of a number that was folded already.
    record.write("a", 9, &[pod("a", 2, ChangeKind::Put, "late"), pod("a", 1, ChangeKind::Put, "pod-3")]);
    assert_eq!(pods(&record.newest().await), ["late=2", "pod-1=2", "pod-2=3", "pod-3=3"]);
    assert_eq!(record.came(), [0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_takes_what_it_said_with_it() {
    let record = Record::new(&[]).await;
    let files: Vec<PathBuf> = (1..=3).map(|number| record.next("a", number)).collect();
    record.newest().await;
    fs::remove_file(&files[1]).expect("removed");
    let state = record.newest().await;
    assert_eq!(pods(&state), ["pod-1=1", "pod-2=3", "pod-3=3"]);
    assert_eq!(pods(&state), record.anew(None, Moment::Newest).await);
    assert_eq!(record.came(), [0, 0, 2]);
    // Replaced, under the same name and with the same length.
    let old = fs::metadata(&files[2]).expect("there").len();
    record.write("a", 3, &[pod("a", 3, ChangeKind::Put, "pod-9"), pod("a", 3, ChangeKind::Put, "pod-2")]);
    assert_eq!(fs::metadata(&files[2]).expect("there").len(), old);
    assert_eq!(pods(&record.newest().await), ["pod-1=1", "pod-2=3", "pod-9=3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_cost_what_they_said_and_are_told() {
    let record = Record::new(&[]).await;
    (1..=2).for_each(|number| drop(record.next("a", number)));
    record.newest().await;
    let third = record.next("a", 3);
    // Its footer stands, its pages do not.
    let mut bytes = fs::read(&third).expect("read");
    let half = bytes.len() / 2;
    bytes[4..half].fill(0xff);
    fs::write(&third, bytes).expect("written");
    for _ in 0..2 {
        let notes = Arc::new(Notes::default());
        let state = rebuild(&record.history, None, Moment::Newest, &notes).await.expect("read").expect("a state");
        assert_eq!((state.number, pods(&state)), (3, vec!["pod-1=2".into(), "pod-2=2".into()]));
        assert!(state.problems[0].contains("had 3 pods, 2 are on record"), "{:?}", state.problems);
        assert!(notes.reasons().iter().any(|reason| reason.contains("cannot be read and is left out")), "{notes:?}");
    }
    // The pod comes back whole.
    record.next("a", 3);
    let state = record.newest().await;
    assert_eq!((pods(&state), state.problems), (record.anew(None, Moment::Newest).await, Vec::new()));
    // A policy with an empty text is as good as none, and no reason to fail.
    let row = netverdict_flowlog::row::PolicyRow {
        head: head("a", 4, ChangeKind::Put),
        api_version: "networking.k8s.io/v1".into(),
        kind: "NetworkPolicy".into(),
        namespace: "shop".into(),
        name: "broken".into(),
        uid: "uid-broken".into(),
        generation: 1,
        text: "kind: [".into(),
        ..netverdict_flowlog::row::PolicyRow::default()
    };
    record.write("a", 4, &[Row::Policy(Box::new(row)), snapshot("a", 4, 3)]);
    let state = record.newest().await;
    assert_eq!((state.number, state.snapshot.policies.len(), state.snapshot.pods.len()), (4, 0, 3));
    assert!(state.problems[0].contains("NetworkPolicy shop/broken is unreadable"), "{:?}", state.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_ports_cannot_be_read_is_named_and_not_judged_by() {
    let record = Record::new(&[]).await;
    record.next("a", 1);
    let Row::Endpoint(mut row) = pod("a", 2, ChangeKind::Put, "broken") else { panic!("a pod") };
    row.container_ports = "[{\"name\":".into();
    record.write("a", 2, &[Row::Endpoint(row), snapshot("a", 2, 2)]);
    let state = record.newest().await;
    assert_eq!(pods(&state), ["pod-1=1"]);
    let problem = "pod shop/broken is unreadable: column container_ports of table endpoints is \"[{\\\"name\\\":\" \
                   (node a, snapshot 2), expected a JSON list of name, port, protocol";
    assert!(state.problems.iter().any(|found| found == problem), "{:?}", state.problems);
    assert_eq!(state.unreadable(&ObjectKey::new("shop", "broken")), Some(problem));
    assert_eq!(state.unreadable(&ObjectKey::new("shop", "pod-1")), None);
    // Once it can be read again it is judged by.
    record.write("a", 3, &[pod("a", 3, ChangeKind::Put, "broken"), snapshot("a", 3, 2)]);
    let state = record.newest().await;
    assert_eq!((pods(&state), state.problems), (vec!["broken=3".to_owned(), "pod-1=1".to_owned()], Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_kept_apart() {
    let record = Record::new(&[]).await;
    for number in 1..=3 {
        record.next("a", number);
    }
    record.write("b", 1, &[pod("b", 2, ChangeKind::Put, "other"), snapshot("b", 2, 1)]);
    for _ in 0..2 {
        assert_eq!(pods(&record.at(Some("b"), Moment::Newest).await.expect("a state")), ["other=2"]);
        assert_eq!(pods(&record.at(Some("a"), Moment::Number(2)).await.expect("a state")), ["pod-1=2", "pod-2=2"]);
        // Of the node that changed last, and of a node that is not on record.
        assert_eq!(record.newest().await.node, "a");
        assert_eq!(record.at(Some("c"), Moment::Newest).await.expect("a state").node, "a");
    }
    assert_eq!(record.metric("netverdict_query_kept_states"), 3);
    // A file of one node is gone: kept states of the other stay.
    let [hits, ..] = record.came();
    fs::remove_dir_all(record.folder.path().join("endpoints")).expect("removed");
    (1..=3).for_each(|number| drop(record.next("a", number)));
    assert_eq!(pods(&record.newest().await), ["pod-1=2", "pod-2=3", "pod-3=3"]);
    assert!(record.at(Some("b"), Moment::Newest).await.expect("a state").snapshot.pods.is_empty());
    assert_eq!(record.came()[0], hits);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_state_there_is_none() {
    let record = Record::new(&[]).await;
    assert!(record.at(None, Moment::Newest).await.is_none());
    record.next("a", 1);
    record.next("a", 2);
    record.newest().await;
    let before = time(1) - TimeDelta::microseconds(1);
    for node in [None, Some("a")] {
        assert!(record.at(node, Moment::At(before)).await.is_none());
    }
    assert!(record.at(Some("a"), Moment::Number(0)).await.is_none());
    assert_eq!(record.at(None, Moment::At(time(1))).await.expect("a state").number, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_much_is_kept() {
    let record = Record::new(&["--kept-states", "2"]).await;
    (1..=5).for_each(|number| drop(record.next("a", number)));
    for number in [5, 1, 2, 3, 4, 5] {
        let state = record.at(Some("a"), Moment::Number(number)).await.expect("a state");
        assert_eq!((state.number, state.snapshot.pods.len() as u64), (number, number));
        assert!(record.metric("netverdict_query_kept_states") <= 2);
    }
    assert_eq!(record.metric("netverdict_query_kept_states"), 2);
    assert!(record.metric("netverdict_query_kept_states_memory_bytes") > 0);

    for options in [["--kept-states", "0"], ["--kept-states-memory", "0"]] {
        let record = Record::new(&options).await;
        record.next("a", 1);
        for _ in 0..2 {
            assert_eq!(pods(&record.newest().await), ["pod-1=1"]);
        }
        assert_eq!((record.came(), record.metric("netverdict_query_kept_states_memory_bytes")), ([0, 0, 2], 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_at_once_shares_the_work() {
    let record = Record::new(&[]).await;
    (1..=3).for_each(|number| drop(record.next("a", number)));
    let states = futures::future::join_all((0..8).map(|_| record.newest())).await;
    assert!(states.iter().all(|state| state.number == 3));
    assert_eq!(record.came(), [7, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_gone_is_remembered_as_gone() {
    let record = Record::new(&[]).await;
    (1..=2).for_each(|number| drop(record.next("a", number)));
    record.write("a", 3, &[pod("a", 3, ChangeKind::Delete, "pod-1"), snapshot("a", 3, 1)]);
    for _ in 0..2 {
        let state = record.newest().await;
        assert_eq!(pods(&state), ["pod-2=2"]);
        assert_eq!(state.gone_since(&ObjectKey::new("shop", "pod-1")), Some((3, time(3))));
        assert_eq!(state.gone_since(&ObjectKey::new("shop", "pod-7")), None);
    }
}

#[test]
fn a_late_row_is_not_taken_for_new_where_a_deletion_was_forgotten() {
    let changes = |rows: &[Row]| {
        let mut changes = Changes::default();
        rows.iter().for_each(|row| changes.take(row.clone()));
        changes
    };
    let gone = |number: u64| pod("a", number, ChangeKind::Delete, &format!("pod-{number}"));
    let mut fold = Fold::default();
    fold.apply(changes(&[gone(1), gone(2), gone(3), pod("a", 3, ChangeKind::Put, "stays")])).expect("all is known");
    let before = fold.bytes();
    fold.forget_deletions(1);
    assert_eq!(fold.deletions(), 1);
    assert!(fold.bytes() < before);
    // Newer than the forgotten deletions, or of an object that is known: it can be told.
    let known = [pod("a", 2, ChangeKind::Put, "stays"), pod("a", 3, ChangeKind::Put, "new")];
    fold.clone().apply(changes(&known)).expect("it can be told");
    // Older, and of an object that may have been deleted since.
    assert!(fold.apply(changes(&[pod("a", 1, ChangeKind::Put, "pod-1")])).is_err());
}
