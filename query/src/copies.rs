//! The copies of the collectors' files, as questions ask for them: whether what they need is here. [`crate::mirror`] makes
//! them.

mod removal;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use netverdict_flowlog::path::ManifestPath;
use reqwest::Url;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use self::removal::Removed;

/// The copies, as questions ask for them.
#[derive(Debug)]
pub(crate) struct Copies {
    data_dir: PathBuf,
    /// Bytes.
    limit: u64,
    /// Bytes copied since there was room the last time.
    grown: AtomicU64,
    wanted: Notify,
    advanced: Notify,
    /// Why a collector's files could not be copied last.
    problems: Mutex<BTreeMap<Url, String>>,
    removed: Mutex<Removed>,
}

impl Copies {
    /// # Errors
    /// The directory cannot be read, or holds a record that is no copy.
    pub(crate) fn open(data_dir: PathBuf, limit: u64) -> io::Result<Self> {
        let removed = Mutex::new(Removed::open(&data_dir)?);
        let problems = Mutex::default();
        // The size of what is there is not known yet.
        let grown = AtomicU64::new(limit);
        Ok(Self { data_dir, limit, grown, wanted: Notify::new(), advanced: Notify::new(), problems, removed })
    }

    /// Until when flows are not here any more, since there was no space for them.
    pub(crate) fn removed_until(&self) -> Option<DateTime<Utc>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).until()
    }

    /// Waits until a collector's segments up to this one are here.
    ///
    /// # Errors
    /// Says why they are not.
    pub(crate) async fn holds(&self, newest: &ManifestPath, collector: &Url, patience: Duration) -> Result<(), String> {
        let (path, until) = (newest.below(&self.data_dir), Instant::now() + patience);
        loop {
            let advanced = self.advanced.notified();
            if tokio::fs::metadata(&path).await.is_ok_and(|file| file.is_file()) {
                return Ok(());
            }
            self.wanted.notify_one();
            if timeout_at(until, advanced).await.is_err() {
                let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
                return Err(problems.get(collector).cloned().unwrap_or_else(|| "there are many".to_owned()));
            }
        }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Bytes that the copies of one collector of so many may take when they are begun.
    pub(crate) fn share(&self, collectors: usize) -> u64 {
        (self.limit - self.reserve()) / u64::try_from(collectors).unwrap_or(u64::MAX).max(1)
    }

    /// Until a question needs what is not here.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A segment of so many bytes has come.
    pub(crate) fn has_advanced(&self, bytes: u64) {
        self.grown.fetch_add(bytes, Ordering::Relaxed);
        self.advanced.notify_waiters();
    }

    /// Whether enough has come that there may be no room for more.
    pub(crate) fn needs_room(&self) -> bool {
        self.grown.load(Ordering::Relaxed) > self.reserve()
    }

    /// Removes the oldest flows where the copies take so much that the reserve is used.
    pub(crate) fn make_room(&self) {
        self.grown.store(0, Ordering::Relaxed);
        removal::keep_below(&self.data_dir, self.limit - self.reserve(), &self.removed);
    }

    /// Bytes of the limit that are left free for what comes before room is made again.
    fn reserve(&self) -> u64 {
        self.limit / 16
    }

    /// How the last round with a collector ended.
    pub(crate) fn report(&self, collector: &Url, problem: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            None => _ = problems.remove(collector),
            Some(problem) => {
                if problems.get(collector) != Some(&problem) {
                    tracing::warn!(%collector, problem, "files are not copied");
                }
                problems.insert(collector.clone(), problem);
            }
        }
    }
}
