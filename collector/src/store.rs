//! The store: rows become files, each exactly once, at whatever point the process dies; until then readers get them from
//! memory.
//!
//! A flush writes one segment: a file for each table and hour, all with the segment's number, which is never used
//! again, not even after a restart, and the manifest that lists them. The commit record in the state directory names the
//! last complete segment and its position in the write-ahead log. So after a crash the files of a later segment are
//! leftovers: they are removed, and their rows come again, from the write-ahead log or from the store's own journal.
//!
//! Two ways in:
//! - [`Store::append`] with a position: replayable rows, which the write-ahead log up to there gives again. They are not
//!   kept anywhere else until they are in a file.
//! - without: rows that have no other source (changes of the cluster, the collector's own state). They are in the
//!   journal before the call returns.
//!
//! Bounds. In memory: [`StoreOptions::memtable_rows`] flow rows; when no file can be written for so long that more come,
//! the new ones are dropped and counted into a gap `disk_full` per boot, lane and CPU, so that the sum of events and
//! gaps stays right. Rows of other tables are never dropped; they grow with how often the cluster changes. Files a
//! segment: at most tables × hours that its rows fall in. The size of one row is bounded by
//! `netverdict_flowlog::columns`. The store is used from several threads: an append waits for another append and for
//! the journal's fsync, never for a flush.

mod commit;
mod error;
mod flush;
mod journal;
mod memtable;
mod options;
mod retention;
mod step;
mod tally;
mod unflushed;

use std::{
    fs::{self, File, TryLockError},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use netverdict_flowlog::{
    Table,
    manifest::Link,
    path::{Hour, SegmentPath},
    row::Row,
};

use self::{
    commit::Commit,
    memtable::Memtable,
    step::{Observer, Step, observe},
};
pub use self::{error::StoreError, memtable::Appended, options::StoreOptions};
use crate::wal::WalPosition;

/// Where a store that was opened goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Rows of the write-ahead log up to here are in files: open the log with this. `None`: none are.
    pub wal: Option<WalPosition>,
    /// The checkpoint that was given with that position ([`Store::append_checkpointed`]).
    pub checkpoint: Option<String>,
    /// Last segment that is whole; 0 for none.
    pub segment: u64,
    /// Files that a crash had left of a later segment, removed.
    pub leftovers: usize,
    /// Rows that came back from the journal.
    pub recovered_rows: usize,
}

/// Result of a flush.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// The segment written.
    pub segment: u64,
    pub files: Vec<SegmentPath>,
    pub rows: usize,
    pub bytes: u64,
    /// The write-ahead log may be released through here. `None`: not yet.
    pub wal: Option<WalPosition>,
    /// Files that the cap on disk use took.
    pub removed: Vec<SegmentPath>,
    /// The cap is exceeded still: only change logs, which past moments are evaluated with, and the newest segment are
    /// left.
    pub over_cap: bool,
}

/// The store. Share it behind an `Arc`.
pub struct Store {
    options: StoreOptions,
    memtable: Mutex<Memtable>,
    /// Manifest of the newest committed segment that has one.
    newest: Mutex<Option<Link>>,
    /// One flush at a time.
    writer: Mutex<Writer>,
    /// Memtable for as long as the store is.
    _lock: File,
    observer: Option<Observer>,
}

struct Writer {
    commit: Commit,
    /// Bytes of this node's files, as far as known.
    disk: u64,
}

impl Store {
    /// Opens the store: takes the lock on the state directory, removes files that a crash left of a segment that was never
    /// committed, and takes back the rows of the journal. Then replay the write-ahead log from [`Committed::wal`].
    pub fn open(options: StoreOptions) -> Result<(Self, Committed), StoreError> {
        Self::open_observed(options, None)
    }

    fn open_observed(options: StoreOptions, observer: Option<Observer>) -> Result<(Self, Committed), StoreError> {
        // Any hour will do: only the validity of the names matters.
        options.path(Table::Flows, Hour::of(Default::default()), 0)?;
        for dir in [&options.data_dir, &options.state_dir] {
            fs::create_dir_all(dir).map_err(|source| StoreError::io(dir, source))?;
        }
        let lock = lock(&options.state_dir)?;
        let files = retention::Files::scan(&options)?;
        let commit = match Commit::load(&options.state_dir)? {
            Some(commit) => commit,
            None => {
                // Never a number that is in use: without a record of its own, every file counts as whole.
                let manifest = files.newest_manifest(&options);
                let first = Commit { segment: files.newest_segment(), manifest, ..Commit::default() };
                first.save(&options.state_dir, &|_| Ok(()))?;
                first
            }
        };
        let observe = |step| observe(observer.as_ref(), step, &options.state_dir);
        let (leftovers, disk) = files.remove_uncommitted(&options, commit.segment, &observe)?;
        let (memtable, recovered_rows) = Memtable::open(&options, &commit)?;
        let committed = Committed {
            wal: commit.wal,
            checkpoint: commit.checkpoint.clone(),
            segment: commit.segment,
            leftovers,
            recovered_rows,
        };
        let newest = Mutex::new(commit.manifest.clone());
        let (memtable, writer) = (Mutex::new(memtable), Mutex::new(Writer { commit, disk }));
        let store = Self { options, memtable, newest, writer, _lock: lock, observer };
        Ok((store, committed))
    }

    /// Takes rows. `through`: the write-ahead log up to there gives exactly these rows and those of earlier calls with
    /// a position, and nothing else that is still to come. `None`: the rows come from nowhere else and are journalled.
    pub fn append(&self, rows: Vec<Row>, through: Option<WalPosition>) -> Result<Appended, StoreError> {
        match through {
            Some(through) => Ok(self.memtable().push_replayable(&self.options, rows, through, None)),
            None => self.append_journalled(rows, &[]),
        }
    }

    /// As [`Store::append`] with a position, and with the state from which the caller goes on there: it is committed
    /// together with the rows. A caller that uses checkpoints gives one with every position.
    pub fn append_checkpointed(
        &self,
        rows: Vec<Row>,
        through: WalPosition,
        checkpoint: String,
    ) -> Result<Appended, StoreError> {
        Ok(self.memtable().push_replayable(&self.options, rows, through, Some(checkpoint)))
    }

    /// Whether it is time to flush: rows wait long enough or are many enough, and the last failure is long enough ago.
    pub fn due(&self, now: Instant) -> bool {
        self.memtable().due(&self.options, now)
    }

    /// Flow rows and other rows in memory.
    pub fn unflushed_rows(&self) -> usize {
        self.memtable().rows()
    }

    /// The segment that rows in memory belong to, or a later one: files of an earlier one are complete.
    pub fn segment(&self) -> u64 {
        self.memtable().segment
    }

    /// Manifest of the newest segment in files. Asked for after [`Store::segment`] or [`Store::unflushed`], it is that of
    /// the last segment before their number, or of a later one.
    pub fn newest(&self) -> Option<Link> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    fn append_journalled(&self, rows: Vec<Row>, removes: &[SegmentPath]) -> Result<Appended, StoreError> {
        self.step(Step::Journalling)?;
        let appended = self.memtable().push_journalled(rows, removes);
        self.step(Step::Journalled)?;
        appended
    }

    fn memtable(&self) -> MutexGuard<'_, Memtable> {
        self.memtable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, step: Step) -> Result<(), StoreError> {
        observe(self.observer.as_ref(), step, &self.options.data_dir)
    }
}

fn lock(state_dir: &Path) -> Result<File, StoreError> {
    let path = state_dir.join("store.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| StoreError::io(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: state_dir.into() }),
        Err(TryLockError::Error(source)) => Err(StoreError::io(&path, source)),
    }
}

#[cfg(test)]
mod tests;
