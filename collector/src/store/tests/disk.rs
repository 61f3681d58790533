//! Disks that are full, folders that cannot be written to, and the cap on disk use.

use super::*;

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// Fails at the n-th time a step is reached, as a full disk would.
fn failing_at(nth: usize) -> (Observer, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let counter = reached.clone();
    let observer: Observer = Arc::new(move |_| match counter.fetch_add(1, Ordering::Relaxed) == nth {
        true => Err(full()),
        false => Ok(()),
    });
    (observer, reached)
}

#[test]
fn a_flush_that_fails_anywhere_keeps_every_row_and_is_made_good() {
    for nth in 0.. {
        let dir = TempDir::new().unwrap();
        let (observer, reached) = failing_at(nth);
        let (store, _) = Store::open_observed(options(dir.path()), Some(observer)).unwrap();
        store.append((25..=35).map(flow).collect(), position(1)).unwrap();
        let expected: Vec<_> = (25..=36).map(|seq| format!("flow {seq}")).collect();
        let first = store.flush();
        if reached.load(Ordering::Relaxed) <= nth {
            // Every step was made to fail once.
            assert!(first.is_ok() && nth > 5);
            break;
        }
        if let Err(error) = first {
            assert!(error.is_disk_full(), "{error}");
            assert_eq!(visible(&store, dir.path()), &expected[..11]);
            assert!(!store.due(Instant::now()), "no retry at once");
            assert!(store.due(Instant::now() + RETRY_AFTER * 2));
        }
        store.append(vec![flow(36)], position(2)).unwrap();
        assert_eq!(store.flush().unwrap().wal, position(2));
        assert_eq!(on_disk(dir.path()), expected);
        assert_eq!(visible(&store, dir.path()), expected);
    }
}

#[test]
fn a_folder_that_cannot_be_written_to_costs_no_row() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    // A file where a folder should be: fails for root too.
    fs::write(dir.path().join("data/flows"), b"").unwrap();
    store.append(vec![flow(1)], position(1)).unwrap();
    let error = store.flush().unwrap_err();
    assert!(!error.is_disk_full());
    assert_eq!(store.unflushed(Table::Flows, None, None).unwrap().1.num_rows(), 1);
    fs::remove_file(dir.path().join("data/flows")).unwrap();
    store.flush().unwrap();
    assert_eq!(on_disk(dir.path()), ["flow 1"]);
}

#[test]
fn rows_beyond_the_bound_are_counted_as_a_gap() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(StoreOptions { memtable_rows: 4, ..options(dir.path()) }).unwrap();
    let first = store.append(vec![flow(1), flow(2), flow(3)], position(1)).unwrap();
    let second = store.append(vec![flow(4), flow(5), flow(6)], position(2)).unwrap();
    store.append(vec![fact(1)], None).unwrap();
    assert_eq!((first.dropped, second.dropped), (0, 2));
    let expected = ["fact 1", "flow 1", "flow 2", "flow 3", "flow 4", "gap disk_full 2"];
    assert_eq!(visible(&store, dir.path()), expected);
    assert_eq!(store.flush().unwrap().wal, position(2));
    assert_eq!(on_disk(dir.path()), expected);
    let gaps = files(&dir.path().join("data")).into_iter().find(|(path, _)| path.table() == Table::Gaps).unwrap().1;
    let [Row::Gap(gap)] = &gaps[..] else { panic!("expected one gap") };
    assert_eq!((gap.first_seq, gap.last_seq, gap.lane, gap.cpu), (Some(5), Some(6), Some(LaneName::Denied), Some(0)));
    assert_eq!((gap.from, gap.to), (time(5), time(6)));
    // There is room again.
    assert_eq!(store.append(vec![flow(7)], position(3)).unwrap().dropped, 0);
}

#[test]
fn the_oldest_flows_go_when_the_cap_is_exceeded_and_a_gap_says_so() {
    let dir = TempDir::new().unwrap();
    let one_file = {
        let store = open(dir.path());
        store.append(vec![flow(60)], position(1)).unwrap();
        store.flush().unwrap().bytes
    };
    drop(fs::remove_dir_all(dir.path().join("data")));
    drop(fs::remove_dir_all(dir.path().join("state")));
    let policy = one_file * 5 / 2;
    let (store, _) = Store::open(StoreOptions { disk_cap: Some(policy), ..options(dir.path()) }).unwrap();
    store.append(vec![snapshot()], None).unwrap();
    store.append(vec![flow(1)], position(1)).unwrap();
    assert_eq!(store.flush().unwrap().removed, []);
    let mut removed = Vec::new();
    for seq in 2..=6 {
        store.append(vec![flow(seq * 60)], position(seq)).unwrap();
        removed.extend(store.flush().unwrap().removed);
    }
    let flows: Vec<_> = removed.iter().filter(|path| path.table() == Table::Flows).collect();
    assert!(flows.len() >= 3, "{removed:?}");
    assert!(flows.is_sorted(), "oldest first");
    store.flush().unwrap();
    let left = files(&dir.path().join("data"));
    assert!(left.iter().any(|(path, _)| path.table() == Table::Snapshots), "change logs stay");
    assert!(!dir.path().join("data/flows/cluster=prod/date=2026-11-19/hour=08").exists(), "no empty folders stay");
    // Conservation: the rows on record and the losses in gaps add up.
    let rows = left.iter().flat_map(|(_, rows)| rows);
    let (mut kept, mut lost) = (0, 0);
    for row in rows {
        match row {
            Row::Flow(row) => kept += row.count,
            Row::Gap(gap) if gap.lane.is_some() => {
                assert_eq!(gap.cause, GapCause::Expired);
                lost += gap.lost_events;
            }
            _ => {}
        }
    }
    assert_eq!((kept + lost, kept > 0), (6, true));
}

#[test]
fn a_crash_amid_removal_is_made_good_without_counting_twice() {
    let dir = TempDir::new().unwrap();
    // Dies when the second file is about to be removed.
    let removals = Arc::new(AtomicUsize::new(0));
    let observer: Observer =
        Arc::new(move |step| match step == Step::Removing && removals.fetch_add(1, Ordering::Relaxed) > 0 {
            true => Err(io::ErrorKind::Other.into()),
            false => Ok(()),
        });
    let (store, _) = Store::open_observed(options(dir.path()), Some(observer)).unwrap();
    for seq in 1..=4 {
        store.append(vec![flow(seq)], position(seq)).unwrap();
        store.flush().unwrap();
    }
    drop(store);
    let capped = || StoreOptions { disk_cap: Some(1), ..options(dir.path()) };
    let removals = Arc::new(AtomicUsize::new(0));
    let observer: Observer =
        Arc::new(move |step| match step == Step::Removing && removals.fetch_add(1, Ordering::Relaxed) > 0 {
            true => Err(io::ErrorKind::Other.into()),
            false => Ok(()),
        });
    let (store, _) = Store::open_observed(capped(), Some(observer)).unwrap();
    assert!(store.flush().unwrap().over_cap);
    drop(store);
    assert_eq!(on_disk(dir.path()).len(), 3);
    let store = open(dir.path());
    assert_eq!(on_disk(dir.path()), ["flow 4"]);
    store.flush().unwrap();
    assert_eq!(on_disk(dir.path()), ["flow 4", "gap expired 3"]);
}

#[test]
fn files_of_others_are_neither_counted_nor_removed() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("data/flows/cluster=prod/date=2020-01-01/hour=00");
    fs::create_dir_all(&folder).unwrap();
    for name in [format!("node-2-{BOOT}-0000000009.parquet"), "compacted.parquet".into(), ".node-2.tmp".into()] {
        fs::write(folder.join(name), vec![0; 1 << 20]).unwrap();
    }
    let (store, committed) = Store::open(StoreOptions { disk_cap: Some(1 << 19), ..options(dir.path()) }).unwrap();
    assert_eq!(committed.segment, 0);
    store.append(vec![flow(1)], position(1)).unwrap();
    let flushed = store.flush().unwrap();
    assert_eq!((flushed.removed, flushed.over_cap), (vec![], false));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
}

#[test]
fn gaps_that_were_told_survive_a_crash() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let gap = Row::Gap(Box::new(GapRow {
        endpoint: "shop/web".into(),
        lost_events: 5,
        ..GapRow::of(GapCause::Unattached, &"node-1".into(), &BOOT.into(), time(0), time(1), "")
    }));
    store.append(vec![gap], None).unwrap();
    drop(store);
    let (store, committed) = Store::open(options(dir.path())).unwrap();
    assert_eq!(committed.recovered_rows, 1);
    assert_eq!(visible(&store, dir.path()), ["gap unattached 5"]);
}

fn snapshot() -> Row {
    Row::Snapshot(Box::new(netverdict_flowlog::row::SnapshotRow {
        time: time(0),
        node: "node-1".into(),
        boot_id: BOOT.into(),
        snapshot: 1,
        revision: 1,
        policies: 2,
        pods: 3,
        namespaces: 1,
        audit_all: false,
        errors: 0,
    }))
}
