use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use netverdict_flowlog::{
    Table,
    manifest::Manifest,
    path::ManifestPath,
    read,
    row::{
        CollectorRow, CollectorState, DispositionName, EndpointKind, EndpointRow, FlowRow, GapCause, GapRow, LaneName,
        Method, ModeName, RecordType, Reporter,
    },
};
use netverdict_policy::{AttributionId, Confidence, Direction, Reason, Verdict};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{memtable::RETRY_AFTER, options::FLUSH_AFTER, *};
use crate::{
    batch::RingBatch,
    wal::{FsyncPolicy, LogRecord, Replayed, Wal},
};

mod crash;
mod disk;

const BOOT: &str = "3f2b8c1e-5a77-4d09-9b1c-0123456789ab";

fn time(minute: i64) -> DateTime<Utc> {
    "2026-11-19T08:30:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minute)
}

fn pod(name: &str) -> EndpointRow {
    EndpointRow {
        kind: EndpointKind::Pod,
        namespace: "shop".into(),
        pod: name.into(),
        pod_uid: format!("uid-{name}"),
        node: "node-1".into(),
        labels: BTreeMap::from([("app".into(), name.into())]),
        identity: 7,
        ..EndpointRow::default()
    }
}

/// The `seq`-th event, a minute after the one before it.
fn flow(seq: u64) -> Row {
    let time = time(i64::try_from(seq).unwrap());
    Row::Flow(Box::new(FlowRow {
        record_type: RecordType::Verdict,
        node: "node-1".into(),
        boot_id: BOOT.into(),
        lane: Some(LaneName::Denied),
        cpu: Some(0),
        seq: Some(seq),
        time,
        ingest_time: time,
        direction: Direction::Ingress,
        reporter: Reporter::Destination,
        family: 4,
        source_ip: [10, 0, 0, 1].into(),
        destination_ip: [10, 0, 0, 2].into(),
        source_port: 40_000,
        destination_port: 5432,
        protocol: 6,
        tcp_flags: 2,
        icmp_type: 0,
        icmp_code: 0,
        verdict: Verdict::Denied,
        disposition: DispositionName::Dropped,
        mode: ModeName::Enforce,
        reason: Reason::IsolatedNoMatch,
        method: Method::Enforced,
        confidence: Confidence::Exact,
        attribution_id: AttributionId(seq % 3),
        snapshot: 1,
        source: pod("web").into(),
        destination: pod("db").into(),
        packets: 1,
        bytes: 60,
        count: 1,
        first_time: time,
        last_time: time,
        ..FlowRow::default()
    }))
}

/// A row that no event gives again, identified by its number.
fn fact(number: u64) -> Row {
    Row::Collector(Box::new(CollectorRow {
        time: time(0),
        node: "node-1".into(),
        boot_id: BOOT.into(),
        state: CollectorState::Running,
        version: "1.0.0".into(),
        mode: ModeName::Enforce,
        last_seq: BTreeMap::from([("denied/0".into(), 12)]),
        lost_events: number,
        endpoints: 3,
    }))
}

fn options(dir: &Path) -> StoreOptions {
    StoreOptions::new(dir.join("data"), dir.join("state"), "prod", "node-1", BOOT)
}

fn open(dir: &Path) -> Store {
    Store::open(options(dir)).unwrap().0
}

fn position(offset: u64) -> Option<WalPosition> {
    Some(WalPosition { segment: 1, offset })
}

/// Every row in files, by the path of its file.
fn files(data_dir: &Path) -> Vec<(SegmentPath, Vec<Row>)> {
    let mut found = Vec::new();
    let mut folders = vec![data_dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(segment) = SegmentPath::of_file(data_dir, &path) {
                let batches = read::batches(&path).unwrap();
                let rows = batches.flat_map(|batch| read::rows(segment.table(), &batch.unwrap()).unwrap()).collect();
                found.push((segment, rows));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Short names of rows, for comparison: `flow 3`, `fact 1`, `gap disk_full 2`.
fn names<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<String> {
    let name = |row: &Row| match row {
        Row::Flow(row) => format!("flow {}", row.seq.expect("a number")),
        Row::Collector(row) => format!("fact {}", row.lost_events),
        Row::Gap(row) => format!("gap {} {}", row.cause.as_str(), row.lost_events),
        other => panic!("unexpected row {other:?}"),
    };
    let mut names: Vec<_> = rows.into_iter().map(name).collect();
    names.sort();
    names
}

fn on_disk(dir: &Path) -> Vec<String> {
    names(files(&dir.join("data")).iter().flat_map(|(_, rows)| rows))
}

/// Every manifest's path, in order.
fn manifest_paths(dir: &Path) -> Vec<ManifestPath> {
    let data = dir.join("data");
    let folder = fs::read_dir(ManifestPath::folder(&data, "prod", "node-1")).into_iter().flatten();
    let mut paths: Vec<_> = folder
        .map(|entry| ManifestPath::of_file(&data, &entry.unwrap().path()).expect("only manifests are there"))
        .collect();
    paths.sort_by_key(ManifestPath::segment);
    paths
}

/// Every manifest, in order.
fn manifests(dir: &Path) -> Vec<Manifest> {
    manifest_paths(dir).iter().map(|path| Manifest::read(&dir.join("data"), path).unwrap()).collect()
}

/// Manifests list exactly the files that are there, as they are there, and each names the one before it.
fn assert_chain(dir: &Path) {
    let data = dir.join("data");
    let manifests = manifests(dir);
    let mut previous = None;
    let mut listed = Vec::new();
    for manifest in &manifests {
        assert_eq!(manifest.previous(), previous.as_ref());
        previous = Some(manifest.link());
        for file in manifest.files() {
            let bytes = fs::read(file.path.below(&data)).unwrap();
            assert_eq!(file.bytes, bytes.len() as u64);
            assert_eq!(file.sha256, hex::encode(Sha256::digest(&bytes)));
            assert_eq!(file.path.manifest(), *manifest.path());
            listed.push(file.path.clone());
        }
    }
    listed.sort();
    let there: Vec<_> = files(&data).into_iter().map(|(path, _)| path).collect();
    assert_eq!(listed, there);
}

/// Rows as seen by a reader that asks the collector first and then lists the files.
fn visible(store: &Store, dir: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for table in [Table::Flows, Table::Collectors, Table::Gaps] {
        let (segment, batch) = store.unflushed(table, None, None).unwrap();
        rows.extend(read::rows(table, &batch).unwrap());
        for (path, more) in files(&dir.join("data")) {
            if path.table() == table && (path.boot() != BOOT || path.segment() < segment) {
                rows.extend(more);
            }
        }
    }
    names(&rows)
}

#[test]
fn rows_become_files_by_table_and_hour_with_one_segment_number() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    store.append((1..=60).map(flow).collect(), position(10)).unwrap();
    store.append(vec![fact(1)], None).unwrap();
    let flushed = store.flush().unwrap();
    assert_eq!(flushed.wal, position(10));
    assert_eq!(flushed.rows, 61);
    let paths: Vec<_> =
        files(&dir.path().join("data")).into_iter().map(|(path, rows)| (path.to_string(), rows.len())).collect();
    let name = format!("node-1-{BOOT}-0000000001.parquet");
    assert_eq!(
        paths,
        [
            (format!("flows/cluster=prod/date=2026-11-19/hour=08/{name}"), 29),
            (format!("collectors/cluster=prod/date=2026-11-19/hour=08/{name}"), 1),
            (format!("flows/cluster=prod/date=2026-11-19/hour=09/{name}"), 31),
        ]
    );
}

#[test]
fn a_segment_has_a_manifest_that_names_its_files_and_the_one_before() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for seq in 1..=3 {
        store.append(vec![flow(seq * 20), flow(seq * 20 + 1)], position(seq)).unwrap();
        store.append(vec![fact(seq)], None).unwrap();
        store.flush().unwrap();
    }
    drop(store);
    let store = open(dir.path());
    store.append(vec![flow(100)], position(4)).unwrap();
    store.flush().unwrap();
    assert_chain(dir.path());
    let manifests = manifests(dir.path());
    let numbers: Vec<_> = manifests.iter().map(|manifest| manifest.path().segment()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(manifests[0].previous(), None);
    let flows = manifests[1].files().iter().find(|file| file.path.table() == Table::Flows).unwrap();
    let [counts] = &flows.lanes[..] else { panic!("one lane: {flows:?}") };
    assert_eq!((flows.rows, counts.events, counts.first_seq, counts.last_seq), (2, 2, Some(40), Some(41)));
}

/// A record of one segment whose state directory is gone.
fn without_state() -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    store.append(vec![flow(1)], position(1)).unwrap();
    store.flush().unwrap();
    drop(store);
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    dir
}

#[test]
fn the_chain_goes_on_when_the_state_directory_is_lost() {
    let dir = without_state();
    let store = open(dir.path());
    store.append(vec![flow(2)], position(1)).unwrap();
    store.flush().unwrap();
    assert_chain(dir.path());
    assert_eq!(manifests(dir.path()).len(), 2);
}

#[test]
fn the_chain_begins_anew_when_its_newest_manifest_is_damaged_too() {
    let dir = without_state();
    let data = dir.path().join("data");
    for path in manifest_paths(dir.path()) {
        fs::write(path.below(&data), b"{").unwrap();
    }
    let (store, committed) = Store::open(options(dir.path())).unwrap();
    assert_eq!(committed.segment, 1);
    store.append(vec![flow(2)], position(1)).unwrap();
    store.flush().unwrap();
    let [_, second] = &manifest_paths(dir.path())[..] else { panic!("two manifests") };
    assert_eq!(second.segment(), 2);
    assert_eq!(Manifest::read(&data, second).unwrap().previous(), None);
}

#[test]
fn segment_numbers_and_checkpoints_are_kept_across_restarts() {
    let dir = TempDir::new().unwrap();
    for segment in 1..=3 {
        let (store, committed) = Store::open(options(dir.path())).unwrap();
        assert_eq!(committed.segment, segment - 1);
        assert_eq!(committed.checkpoint, (segment > 1).then(|| format!("after {}", segment - 1)));
        assert_eq!(committed.wal, position(segment - 1).filter(|_| segment > 1));
        let through = position(segment).unwrap();
        store.append_checkpointed(vec![flow(segment)], through, format!("after {segment}")).unwrap();
        assert_eq!(store.flush().unwrap().segment, segment);
        assert_eq!(store.segment(), segment + 1);
    }
    assert_eq!(on_disk(dir.path()), ["flow 1", "flow 2", "flow 3"]);
}

#[test]
fn a_lost_state_directory_never_reuses_a_number() {
    let dir = without_state();
    let (store, committed) = Store::open(options(dir.path())).unwrap();
    assert_eq!(committed.segment, 1);
    store.append(vec![flow(2)], position(1)).unwrap();
    store.flush().unwrap();
    assert_eq!(on_disk(dir.path()), ["flow 1", "flow 2"]);
}

#[test]
fn one_collector_at_a_time() {
    let dir = TempDir::new().unwrap();
    let _store = open(dir.path());
    let Err(error) = Store::open(options(dir.path())) else { panic!("opened twice") };
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn a_commit_record_that_cannot_be_read_stops_the_opening() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("state/commit.json"), b"{").unwrap();
    let Err(error) = Store::open(options(dir.path())) else { panic!("opened") };
    assert!(matches!(error, StoreError::Commit { .. }), "{error}");
}

#[test]
fn unflushed_rows_are_filtered_by_time_and_carry_the_columns_of_their_path() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    store.append((1..=60).map(flow).collect(), position(1)).unwrap();
    let (segment, batch) = store.unflushed(Table::Flows, Some(time(29)), Some(time(31))).unwrap();
    assert_eq!(segment, 1);
    assert_eq!(batch.schema(), Table::Flows.unflushed_schema());
    assert_eq!(names(&read::rows(Table::Flows, &batch).unwrap()), ["flow 29", "flow 30", "flow 31"]);
    let column = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        arrow::array::AsArray::as_string::<i32>(column)
            .iter()
            .map(|value| value.unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(column("cluster"), ["prod"; 3]);
    assert_eq!(column("date"), ["2026-11-19"; 3]);
    assert_eq!(column("hour"), ["08", "09", "09"]);
    assert_eq!(store.unflushed(Table::Gaps, None, None).unwrap().1.num_rows(), 0);
}

#[test]
fn a_flush_is_due_by_age_by_rows_and_not_without_cause() {
    let dir = TempDir::new().unwrap();
    let options = StoreOptions { flush_rows: 3, ..options(dir.path()) };
    let (store, _) = Store::open(options).unwrap();
    let later = Instant::now() + FLUSH_AFTER * 2;
    assert!(!store.due(later));
    store.append(vec![flow(1)], position(1)).unwrap();
    assert!(!store.due(Instant::now()));
    assert!(store.due(later));
    store.append(vec![flow(2), flow(3)], position(2)).unwrap();
    assert!(store.due(Instant::now()));
    store.flush().unwrap();
    assert!(!store.due(later));
    // Progress without rows is worth a commit, because it releases the log.
    store.append(vec![], position(3)).unwrap();
    assert!(store.due(later));
    assert_eq!(store.flush().unwrap().wal, position(3));
    assert_eq!(store.flush().unwrap().wal, None);
}

#[test]
fn readers_see_each_row_once_at_every_step_of_a_flush() {
    let dir = TempDir::new().unwrap();
    let shared: Arc<Mutex<Option<Arc<Store>>>> = Arc::default();
    let looks = Arc::new(AtomicUsize::new(0));
    let observer: Observer = {
        let (shared, looks, dir) = (shared.clone(), looks.clone(), dir.path().to_path_buf());
        Arc::new(move |_| {
            if let Some(store) = &*shared.lock().unwrap() {
                let mut expected: Vec<_> = (1..=60).map(|seq| format!("flow {seq}")).collect();
                expected.push("fact 1".into());
                expected.sort();
                assert_eq!(visible(store, &dir), expected);
                looks.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let store = Arc::new(Store::open_observed(options(dir.path()), Some(observer)).unwrap().0);
    store.append((1..=60).map(flow).collect(), position(1)).unwrap();
    store.append(vec![fact(1)], None).unwrap();
    *shared.lock().unwrap() = Some(store.clone());
    store.flush().unwrap();
    store.flush().unwrap();
    *shared.lock().unwrap() = None;
    assert!(looks.load(Ordering::Relaxed) >= 9);
}

#[test]
fn readers_beside_a_writer_see_each_row_once() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(open(dir.path()));
    let writer = std::thread::spawn({
        let store = store.clone();
        move || {
            for seq in 1..=40 {
                store.append(vec![flow(seq)], position(seq)).unwrap();
                if seq % 4 == 0 {
                    store.flush().unwrap();
                }
            }
        }
    });
    while !writer.is_finished() {
        let seen = visible(&store, dir.path());
        let mut expected: Vec<_> = (1..=seen.len()).map(|seq| format!("flow {seq}")).collect();
        expected.sort();
        assert_eq!(seen, expected);
    }
    writer.join().unwrap();
    assert_eq!(visible(&store, dir.path()).len(), 40);
}
