//! Folded change logs that are kept, so that the next question reads only newer rows.
//!
//! A fold is good for as long as every file that it was made of is there: files never change, the order in which rows are
//! folded does not matter, and rows that collectors hold are never in it. When a file is gone (its record was removed,
//! replaced or rewritten) its rows cannot be taken out again, so the fold goes too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use netverdict_flowlog::row::SnapshotRow;
use tokio::sync::OwnedMutexGuard;

use super::{
    fold::{Fold, Forgotten},
    logs::{Files, FreshLogs, Work},
};
use crate::{
    Executor, QueryError,
    metrics::{Came, Metrics},
    notes::Notes,
    options::LimitOptions,
    tables::FileId,
};

/// Up to so many rows are read by every question for itself; of more, questions for one node share the work.
const ALONE: usize = 20_000;
/// Deletions that are kept in a fold, for late rows to be compared with.
const DELETIONS: usize = 10_000;

pub struct States {
    most: usize,
    most_bytes: usize,
    metrics: Arc<Metrics>,
    kept: Mutex<Kept>,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Default)]
struct Kept {
    entries: Vec<Entry>,
    /// Counts uses and insertions.
    clock: u64,
}

#[derive(Clone)]
struct Entry {
    node: String,
    number: u64,
    /// The files that it was made of, sorted.
    files: Arc<[FileId]>,
    fold: Arc<Fold>,
    /// It was the newest when it was asked for: the next newest takes its place.
    newest: bool,
    made: u64,
    used: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.fold.bytes() + self.files.len() * size_of::<FileId>() + self.node.len()
    }
}

/// Which state is wanted.
pub(super) struct Wanted<'a> {
    pub(super) head: &'a SnapshotRow,
    pub(super) newest: bool,
}

impl States {
    pub fn new(limits: &LimitOptions, metrics: Arc<Metrics>) -> Self {
        let most_bytes = usize::try_from(limits.kept_states_memory.saturating_mul(1 << 20)).unwrap_or(usize::MAX);
        Self { most: limits.kept_states, most_bytes, metrics, kept: Mutex::default(), turns: Mutex::default() }
    }

    /// All rows on record of a node's objects up to a number: those in files, and those that collectors hold.
    pub(super) async fn fold(
        &self,
        executor: &Executor,
        wanted: &Wanted<'_>,
        fresh: &FreshLogs,
        notes: &Arc<Notes>,
    ) -> Result<Arc<Fold>, QueryError> {
        let files = self.of_files(executor, wanted, fresh, notes).await?;
        match with(&files, fresh, wanted) {
            Ok(fold) => Ok(fold),
            // A collector holds a row that is older than deletions that were forgotten.
            Err(Forgotten) => {
                let (_, fold) = self.whole(executor, wanted, fresh, notes).await?;
                with(&fold, fresh, wanted).map_err(|Forgotten| forgotten())
            }
        }
    }

    async fn of_files(
        &self,
        executor: &Executor,
        wanted: &Wanted<'_>,
        fresh: &FreshLogs,
        notes: &Arc<Notes>,
    ) -> Result<Arc<Fold>, QueryError> {
        let Wanted { head, newest: _ } = wanted;
        let mut turn = None;
        loop {
            let now = self.kept().clock;
            let files = Files::list(executor, head, fresh, notes).await?;
            let start = self.nearest(head, &files, now);
            let work = start.as_ref().map_or_else(|| files.whole(), |entry| files.beyond(&entry.files, entry.number));
            if turn.is_none() && self.most > 0 && (start.is_none() || work.rows() > ALONE) {
                // The reader that has the turn may be about to read the same rows.
                turn = Some(self.turn(&head.node).await);
                continue;
            }
            if let Some(entry) = start {
                match self.extended(executor, wanted, &entry, &files, work, notes).await {
                    Ok(Some(fold)) => return Ok(fold),
                    Ok(None) => {}
                    // A file went while it was read, or turned out to be damaged: as if it had never been there.
                    Err(QueryError::Unreadable(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let (read, fold) = self.whole(executor, wanted, fresh, notes).await?;
            self.metrics.state(Came::Read);
            self.keep(wanted, read, &fold);
            return Ok(fold);
        }
    }

    /// A kept fold and the newer rows. `None`: it cannot be told from these.
    async fn extended(
        &self,
        executor: &Executor,
        wanted: &Wanted<'_>,
        entry: &Entry,
        files: &Files,
        work: Work,
        notes: &Arc<Notes>,
    ) -> Result<Option<Arc<Fold>>, QueryError> {
        let came = if work.is_nothing() { Came::Kept } else { Came::Extended };
        let changes = work.changes(executor, wanted.head, notes).await?;
        let mut fold = Arc::clone(&entry.fold);
        if !changes.is_empty() && Arc::make_mut(&mut fold).apply(changes).is_err() {
            return Ok(None);
        }
        self.metrics.state(came);
        // Files read before may have rows that a collector serves again.
        let mut made_of = files.ids();
        made_of.extend_from_slice(&entry.files);
        made_of.sort_unstable();
        made_of.dedup();
        self.keep(wanted, made_of, &fold);
        Ok(Some(fold))
    }

    /// Everything, read anew; nothing in it is forgotten. And the files that it was read from.
    async fn whole(
        &self,
        executor: &Executor,
        wanted: &Wanted<'_>,
        fresh: &FreshLogs,
        notes: &Arc<Notes>,
    ) -> Result<(Vec<FileId>, Arc<Fold>), QueryError> {
        let mut again = true;
        loop {
            let files = Files::list(executor, wanted.head, fresh, notes).await?;
            match files.whole().changes(executor, wanted.head, notes).await {
                Ok(changes) => {
                    let mut fold = Fold::default();
                    fold.apply(changes).map_err(|Forgotten| forgotten())?;
                    return Ok((files.ids(), Arc::new(fold)));
                }
                Err(QueryError::Unreadable(_)) if again => again = false,
                Err(error) => return Err(error),
            }
        }
    }

    /// The kept fold from which the state takes the least work. Folds with a removed file are dropped,
    /// unless they were made after the files were listed (`now`).
    fn nearest(&self, head: &SnapshotRow, files: &Files, now: u64) -> Option<Entry> {
        let mut kept = self.kept();
        kept.entries.retain(|entry| *entry.node != *head.node || entry.made > now || files.have(&entry.files));
        kept.clock += 1;
        let used = kept.clock;
        let usable =
            |entry: &&mut Entry| *entry.node == *head.node && entry.number <= head.snapshot && files.have(&entry.files);
        let nearest = kept.entries.iter_mut().filter(usable).max_by_key(|entry| entry.number);
        let nearest = nearest.map(|entry| {
            entry.used = used;
            entry.clone()
        });
        self.tell(&kept);
        nearest
    }

    fn keep(&self, wanted: &Wanted<'_>, files: Vec<FileId>, fold: &Arc<Fold>) {
        if self.most == 0 {
            return;
        }
        let Wanted { head, newest } = wanted;
        let mut fold = Arc::clone(fold);
        if fold.deletions() > DELETIONS {
            // Half, so that it is not to be done again at once.
            Arc::make_mut(&mut fold).forget_deletions(DELETIONS / 2);
        }
        let mut kept = self.kept();
        kept.clock += 1;
        let now = kept.clock;
        let of_node = |entry: &Entry| *entry.node == *head.node;
        let was_newest =
            kept.entries.iter().any(|entry| of_node(entry) && entry.number == head.snapshot && entry.newest);
        kept.entries.retain(|entry| {
            let replaced = entry.number == head.snapshot || (*newest && entry.newest && entry.number < head.snapshot);
            !(of_node(entry) && replaced)
        });
        let newest = *newest || was_newest;
        let (node, files) = (head.node.to_string(), files.into());
        kept.entries.push(Entry { node, number: head.snapshot, files, fold, newest, made: now, used: now });
        let bytes = |kept: &Kept| kept.entries.iter().map(Entry::bytes).sum::<usize>();
        while kept.entries.len() > self.most || bytes(&kept) > self.most_bytes {
            let Some(oldest) = (0..kept.entries.len()).min_by_key(|index| kept.entries[*index].used) else { break };
            kept.entries.swap_remove(oldest);
        }
        self.tell(&kept);
    }

    fn tell(&self, kept: &Kept) {
        self.metrics.kept_states(kept.entries.len(), kept.entries.iter().map(Entry::bytes).sum());
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, node: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(node.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

/// Adds the rows that collectors hold.
fn with(fold: &Arc<Fold>, fresh: &FreshLogs, wanted: &Wanted<'_>) -> Result<Arc<Fold>, Forgotten> {
    let (mut fold, changes) = (Arc::clone(fold), fresh.changes(wanted.head));
    if !changes.is_empty() {
        Arc::make_mut(&mut fold).apply(changes)?;
    }
    Ok(fold)
}

/// A fold of everything forgets nothing.
fn forgotten() -> QueryError {
    QueryError::Internal("a state that was read as a whole is incomplete".into())
}
