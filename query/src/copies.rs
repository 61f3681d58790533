//! The copies of the collectors' files, as questions ask for them: whether what they need is here. [`crate::mirror`] makes
//! them.

mod removal;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use netverdict_flowlog::{answer::CopyStatus, path::ManifestPath};
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
    /// How the rounds with each collector ended.
    rounds: Mutex<BTreeMap<Url, CopyStatus>>,
    removed: Mutex<Removed>,
}

impl Copies {
    /// # Errors
    /// The directory cannot be read, or holds a record that is no copy.
    pub(crate) fn open(data_dir: PathBuf, limit: u64) -> io::Result<Self> {
        let removed = Mutex::new(Removed::open(&data_dir)?);
        let rounds = Mutex::default();
        // The size of what is there is not known yet.
        let grown = AtomicU64::new(limit);
        Ok(Self { data_dir, limit, grown, wanted: Notify::new(), advanced: Notify::new(), rounds, removed })
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
                let problem = self.of(collector).and_then(|round| round.problem);
                return Err(problem.unwrap_or_else(|| "there are many".to_owned()));
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

    /// Copies of a collector's files; `None`: no round with it has ended.
    pub(crate) fn of(&self, collector: &Url) -> Option<CopyStatus> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).get(collector).cloned()
    }

    /// How the last round with a collector ended.
    pub(crate) fn report(&self, collector: &Url, problem: Option<String>) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let round = rounds.entry(collector.clone()).or_default();
        match &problem {
            None => round.complete = Some(Utc::now()),
            Some(problem) if round.problem.as_ref() != Some(problem) => {
                tracing::warn!(%collector, problem, "files are not copied");
            }
            Some(_) => {}
        }
        round.problem = problem;
    }

    /// Forgets the rounds with collectors that are not there any more.
    pub(crate) fn forget_all_but<'a>(&self, collectors: impl Iterator<Item = &'a Url>) {
        let there: BTreeSet<&Url> = collectors.collect();
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).retain(|collector, _| there.contains(collector));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_round_keeps_the_time_of_the_last_complete_one_and_collectors_that_are_gone_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::open(dir.path().to_owned(), 1 << 30).unwrap();
        let (here, gone) = (Url::parse("http://10.0.0.1").unwrap(), Url::parse("http://10.0.0.2").unwrap());
        assert_eq!(copies.of(&here), None);
        copies.report(&here, None);
        copies.report(&gone, Some("Connection refused".to_owned()));
        let complete = copies.of(&here).unwrap().complete;
        copies.report(&here, Some("the record was changed".to_owned()));
        let failed = CopyStatus { complete, problem: Some("the record was changed".to_owned()) };
        assert!(complete.is_some());
        assert_eq!(copies.of(&here), Some(failed));
        copies.forget_all_but([&here].into_iter());
        assert_eq!((copies.of(&here).is_some(), copies.of(&gone)), (true, None));
    }
}
