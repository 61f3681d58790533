//! The memtable: rows that are not in a file yet.
//!
//! Rows come in pieces, one an append; a piece never changes, so columns are made of it without a lock. The pieces of a
//! flush that is under way (or has failed) are sealed: they keep their segment number until the commit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use netverdict_flowlog::{
    path::SegmentPath,
    row::{AttributionValue, FlowRow, GapCause, GapRow, Row},
};

use super::{commit::Commit, error::StoreError, journal::Journal, options::StoreOptions, retention, tally::Tally};
use crate::wal::WalPosition;

/// After a flush that failed the next one is due no sooner than this, doubled each time up to the longest.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Side effects of an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Events whose rows there was no room for. A gap `disk_full` stands for them.
    pub dropped: u64,
    /// Rows that could not be put into the journal: they are in memory only, and lost if the process dies before the
    /// next flush.
    pub unsafe_rows: usize,
}

pub(super) struct Memtable {
    /// Number that the sealed rows have, or else those in `current` will have.
    pub(super) segment: u64,
    sealed: Option<Chunk>,
    current: Chunk,
    journal: Journal,
    node: Arc<str>,
    /// Flushes that failed since the last that did not.
    failures: u32,
    not_before: Option<Instant>,
}

/// Rows of one segment, and how far their sources are in it.
#[derive(Clone, Default)]
pub(super) struct Chunk {
    pub(super) pieces: Vec<Arc<Vec<Row>>>,
    pub(super) wal: Option<WalPosition>,
    pub(super) checkpoint: Option<String>,
    pub(super) journal: Option<WalPosition>,
    /// Flow rows that there was no room for.
    pub(super) dropped: Tally,
    rows: usize,
    flows: usize,
    bytes: usize,
    /// When the first came.
    since: Option<Instant>,
}

impl Chunk {
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0 && self.dropped.is_empty() && self.wal.is_none() && self.journal.is_none()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    fn push(&mut self, rows: Vec<Row>) {
        self.since.get_or_insert_with(Instant::now);
        if !rows.is_empty() {
            self.rows += rows.len();
            self.flows += rows.iter().filter(|row| matches!(row, Row::Flow(_))).count();
            self.bytes += rows.iter().map(memory).sum::<usize>();
            self.pieces.push(Arc::new(rows));
        }
    }

    /// Adds later rows.
    fn extend(&mut self, later: Self) {
        self.pieces.extend(later.pieces);
        self.wal = later.wal.max(self.wal);
        self.checkpoint = later.checkpoint.or(self.checkpoint.take());
        self.journal = later.journal.max(self.journal);
        self.dropped.merge(later.dropped);
        self.rows += later.rows;
        self.flows += later.flows;
        self.bytes += later.bytes;
        self.since = self.since.or(later.since);
    }
}

impl Memtable {
    /// With the rows that only the journal has. Removes the files that the journal notes for removal.
    pub(super) fn open(options: &StoreOptions, commit: &Commit) -> Result<(Self, usize), StoreError> {
        let (journal, recovered) = Journal::open(&options.state_dir, commit.journal)?;
        let node: Arc<str> = options.node.as_str().into();
        for path in &recovered.removes {
            retention::remove(&options.data_dir, path);
        }
        let mut current = Chunk { journal: recovered.through, ..Chunk::default() };
        let rows = recovered.rows.len();
        if rows > 0 {
            current.push(recovered.rows);
        }
        if recovered.damaged > 0 {
            current.push(vec![damaged_journal(&node, options, recovered.damaged)]);
        }
        let segment = commit.segment.saturating_add(1);
        Ok((Self { segment, sealed: None, current, journal, node, failures: 0, not_before: None }, rows))
    }

    pub(super) fn push_replayable(
        &mut self,
        options: &StoreOptions,
        mut rows: Vec<Row>,
        through: WalPosition,
        checkpoint: Option<String>,
    ) -> Appended {
        let flows = self.current.flows + self.sealed.as_ref().map_or(0, |chunk| chunk.flows);
        let mut room = options.memtable_rows.saturating_sub(flows);
        let mut dropped = 0_u64;
        rows.retain(|row| match row {
            Row::Flow(row) if room == 0 => {
                self.current.dropped.add(row);
                dropped = dropped.saturating_add(row.count);
                false
            }
            Row::Flow(_) => {
                room -= 1;
                true
            }
            _ => true,
        });
        self.current.push(rows);
        self.current.wal = self.current.wal.max(Some(through));
        self.current.checkpoint = checkpoint.or(self.current.checkpoint.take());
        Appended { dropped, unsafe_rows: 0 }
    }

    pub(super) fn push_journalled(&mut self, rows: Vec<Row>, removes: &[SegmentPath]) -> Result<Appended, StoreError> {
        if rows.is_empty() && removes.is_empty() {
            return Ok(Appended::default());
        }
        let appended = match self.journal.append(&rows, removes) {
            Ok(position) => {
                self.current.journal = Some(position);
                Appended::default()
            }
            Err(error @ StoreError::Batch(_)) => return Err(error),
            // The rows are of use even so.
            Err(error) => {
                tracing::error!(error = %error, rows = rows.len(), "rows are in memory only");
                Appended { dropped: 0, unsafe_rows: rows.len() }
            }
        };
        self.current.push(rows);
        Ok(appended)
    }

    pub(super) fn rows(&self) -> usize {
        self.current.rows + self.sealed.as_ref().map_or(0, |chunk| chunk.rows)
    }

    pub(super) fn due(&self, options: &StoreOptions, now: Instant) -> bool {
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return false;
        }
        if self.sealed.is_some() {
            return true;
        }
        let Chunk { rows, bytes, since, .. } = &self.current;
        *rows >= options.flush_rows
            || *bytes >= options.flush_bytes
            || since.is_some_and(|since| now.saturating_duration_since(since) >= options.flush_after)
    }

    /// Rows of the next segment, those of a failed flush included; `None` if there is nothing to write.
    pub(super) fn seal(&mut self) -> Option<(u64, Chunk)> {
        let mut current = std::mem::take(&mut self.current);
        let dropped = std::mem::take(&mut current.dropped);
        current.push(dropped.gaps(&self.node, GapCause::DiskFull, NO_ROOM));
        match &mut self.sealed {
            Some(sealed) => sealed.extend(current),
            None if current.is_empty() => return None,
            None => self.sealed = Some(current),
        }
        self.sealed.clone().map(|chunk| (self.segment, chunk))
    }

    /// The sealed rows are in files now.
    pub(super) fn committed(&mut self) {
        self.sealed = None;
        self.segment += 1;
        self.failures = 0;
        self.not_before = None;
    }

    pub(super) fn failed(&mut self, now: Instant) {
        let wait: Duration = RETRY_AFTER.saturating_mul(1 << self.failures.min(10)).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + wait);
    }

    pub(super) fn release_journal(&mut self, through: WalPosition) {
        if let Err(error) = self.journal.release(through) {
            tracing::warn!(error = %error, "journal could not be trimmed");
        }
    }

    /// Every piece, and gaps for rows dropped since the last seal.
    pub(super) fn pieces(&self) -> Vec<Arc<Vec<Row>>> {
        let chunks = self.sealed.iter().chain([&self.current]);
        let mut pieces: Vec<_> = chunks.flat_map(|chunk| chunk.pieces.iter().cloned()).collect();
        if !self.current.dropped.is_empty() {
            pieces.push(Arc::new(self.current.dropped.gaps(&self.node, GapCause::DiskFull, NO_ROOM)));
        }
        pieces
    }
}

const NO_ROOM: &str =
    "no file could be written for so long that memory ran out: free space, or mend the data directory";

fn damaged_journal(node: &Arc<str>, options: &StoreOptions, bytes: u64) -> Row {
    let now = chrono::Utc::now();
    let detail = format!(
        "{bytes} bytes of the journal of changes cannot be read: changes of the last minute before this may be missing"
    );
    let boot_id = options.boot_id.as_str().into();
    Row::Gap(Box::new(GapRow::of(GapCause::Unreadable, node, &boot_id, now, now, detail)))
}

/// Memory of a row, roughly: parts that it shares with others are not counted.
fn memory(row: &Row) -> usize {
    const OTHER: usize = 512;
    match row {
        Row::Flow(_) => size_of::<FlowRow>(),
        Row::Policy(row) => OTHER + row.text.len(),
        Row::Attribution(row) => {
            OTHER + size_of::<AttributionValue>() * (1 + row.attribution.decision.references.len())
        }
        Row::Endpoint(_)
        | Row::Namespace(_)
        | Row::Service(_)
        | Row::Snapshot(_)
        | Row::Gap(_)
        | Row::Collector(_)
        | Row::Setting(_) => OTHER,
    }
}
