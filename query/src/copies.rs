//! The copies of the collectors' files, as questions ask for them: whether what they need is here. [`crate::mirror`] makes
//! them.

mod removal;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
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
        Ok(Self { data_dir, limit, wanted: Notify::new(), advanced: Notify::new(), problems, removed })
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
            if path.is_file() {
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

    /// Bytes that the copies may take.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Until a question needs what is not here.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A segment has come.
    pub(crate) fn has_advanced(&self) {
        self.advanced.notify_waiters();
    }

    /// Removes the oldest flows where the copies take more than they may.
    pub(crate) fn make_room(&self) {
        removal::keep_below(&self.data_dir, self.limit, &self.removed);
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
