//! The process dies at every step, and again while it recovers; no row is lost and none is there twice.

use super::*;

/// Contents of the disk when the process died, and the rows that must be in files in the end.
struct Crash {
    step: Step,
    dir: TempDir,
    /// Batches in the write-ahead log by then.
    batches: u64,
    /// Number of facts: from those whose append had returned to those whose append had begun.
    facts: std::ops::RangeInclusive<u64>,
}

/// How far a run is.
#[derive(Default)]
struct Progress {
    batches: u64,
    facts_begun: u64,
    facts_done: u64,
}

struct Run {
    dir: PathBuf,
    progress: Mutex<Progress>,
    crashes: Mutex<Vec<Crash>>,
}

impl Run {
    fn new(dir: &Path, progress: Progress) -> Arc<Self> {
        Arc::new(Self { dir: dir.into(), progress: Mutex::new(progress), crashes: Mutex::default() })
    }

    /// Keeps the contents of the disk at every step.
    fn observer(self: &Arc<Self>) -> Observer {
        let run = self.clone();
        Arc::new(move |step| {
            let dir = TempDir::new().unwrap();
            copy(&run.dir, dir.path());
            let Progress { batches, facts_begun, facts_done } = *run.progress.lock().unwrap();
            let crash = Crash { step, dir, batches, facts: facts_done..=facts_begun };
            run.crashes.lock().unwrap().push(crash);
            Ok(())
        })
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A batch stands for three events.
fn batch(number: u64) -> LogRecord {
    let bytes = number.to_le_bytes().to_vec();
    LogRecord::Ring(RingBatch { lane: LaneName::Denied, ingest_ns: 0, offset_ns: 0, bytes })
}

fn rows_of(record: &LogRecord) -> Vec<Row> {
    let LogRecord::Ring(batch) = record else { panic!("no batch: {record:?}") };
    let number = u64::from_le_bytes(batch.bytes.as_slice().try_into().unwrap());
    (number * 3 - 2..=number * 3).map(flow).collect()
}

fn start(dir: &Path, observer: Option<Observer>) -> (Store, Wal) {
    let (store, committed) = Store::open_observed(options(dir), observer).unwrap();
    let (wal, replay) = Wal::open(&dir.join("state/wal"), FsyncPolicy::None, committed.wal).unwrap();
    for one in replay {
        match one.unwrap() {
            Replayed::Record(position, record) => drop(store.append(rows_of(&record), Some(position)).unwrap()),
            Replayed::Damaged(..) => panic!("nothing was damaged"),
        }
    }
    (store, wal)
}

fn flush(store: &Store, wal: &mut Wal) {
    let flushed = store.flush().unwrap();
    wal.release(flushed.wal.unwrap()).unwrap();
}

/// Runs a collector, with a crash kept at every step.
fn live(dir: &Path) -> Vec<Crash> {
    let run = Run::new(dir, Progress::default());
    let (store, mut wal) = start(dir, Some(run.observer()));
    let drain = |wal: &mut Wal| {
        let number = run.progress.lock().unwrap().batches + 1;
        let position = wal.append(&batch(number)).unwrap();
        run.progress.lock().unwrap().batches = number;
        store.append(rows_of(&batch(number)), Some(position)).unwrap();
    };
    let tell = || {
        let number = {
            let mut progress = run.progress.lock().unwrap();
            progress.facts_begun += 1;
            progress.facts_begun
        };
        store.append(vec![fact(number)], None).unwrap();
        run.progress.lock().unwrap().facts_done = number;
    };
    tell();
    drain(&mut wal);
    drain(&mut wal);
    flush(&store, &mut wal);
    drain(&mut wal);
    tell();
    flush(&store, &mut wal);
    tell();
    drain(&mut wal);
    drop(store);
    let mut crashes = run.crashes.lock().unwrap();
    std::mem::take(&mut crashes)
}

fn check(crash: &Crash) {
    let (store, mut wal) = start(crash.dir.path(), None);
    assert_complete(crash, &visible(&store, crash.dir.path()));
    let flushed = store.flush().unwrap();
    if let Some(through) = flushed.wal {
        wal.release(through).unwrap();
    }
    assert_complete(crash, &on_disk(crash.dir.path()));
    assert_chain(crash.dir.path());
    assert_eq!(wal.bytes(), 0);
    drop(store);
    // Nor do rows come back later.
    let (store, _) = start(crash.dir.path(), None);
    assert_eq!(store.unflushed_rows(), 0);
    assert_complete(crash, &on_disk(crash.dir.path()));
}

fn assert_complete(crash: &Crash, found: &[String]) {
    let step = crash.step;
    let flows: Vec<_> = found.iter().filter(|name| name.starts_with("flow")).cloned().collect();
    let mut expected: Vec<_> = (1..=crash.batches * 3).map(|seq| format!("flow {seq}")).collect();
    expected.sort();
    assert_eq!(flows, expected, "died at {step:?}");
    let facts: Vec<_> = found.iter().filter(|name| name.starts_with("fact")).cloned().collect();
    let acceptable =
        crash.facts.clone().map(|last| (1..=last).map(|number| format!("fact {number}")).collect::<Vec<_>>());
    assert!(acceptable.clone().any(|acceptable| facts == acceptable), "died at {step:?} with {facts:?}");
    assert_eq!(flows.len() + facts.len(), found.len(), "{found:?}");
}

#[test]
fn a_crash_at_any_step_loses_nothing_and_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let crashes = live(dir.path());
    for step in [
        Step::Journalling,
        Step::Journalled,
        Step::Preparing,
        Step::Publishing,
        Step::Sealing,
        Step::Committing,
        Step::Committed,
        Step::Released,
    ] {
        assert!(crashes.iter().any(|crash| crash.step == step), "{step:?} was never reached");
    }
    for crash in crashes {
        // And once more while it recovers.
        let again = TempDir::new().unwrap();
        copy(crash.dir.path(), again.path());
        let (begun, done) = (*crash.facts.end(), *crash.facts.start());
        let progress = Progress { batches: crash.batches, facts_begun: begun, facts_done: done };
        let run = Run::new(again.path(), progress);
        let (store, mut wal) = start(again.path(), Some(run.observer()));
        if let Some(through) = store.flush().unwrap().wal {
            wal.release(through).unwrap();
        }
        drop(store);
        for second in run.crashes.lock().unwrap().iter() {
            check(second);
        }
        check(&crash);
    }
}

#[test]
fn leftovers_of_an_earlier_boot_are_removed_too() {
    let dir = TempDir::new().unwrap();
    let run = Run::new(dir.path(), Progress::default());
    let (store, mut wal) = start(dir.path(), Some(run.observer()));
    let position = wal.append(&batch(1)).unwrap();
    run.progress.lock().unwrap().batches = 1;
    store.append(rows_of(&batch(1)), Some(position)).unwrap();
    store.flush().unwrap();
    let crashes = run.crashes.lock().unwrap();
    let crash = crashes.iter().rfind(|crash| crash.step == Step::Committing).unwrap();
    assert_eq!(on_disk(crash.dir.path()).len(), 3);
    let rebooted = StoreOptions { boot_id: BOOT.replace('3', "4"), ..options(crash.dir.path()) };
    let (_store, committed) = Store::open(rebooted).unwrap();
    assert_eq!(committed.leftovers, 2, "the file and its manifest");
    assert_eq!(manifests(crash.dir.path()), []);
    assert_eq!(on_disk(crash.dir.path()), [""; 0]);
}
