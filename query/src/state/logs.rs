//! The change logs of a node up to a number: their files, and their rows.

use std::{collections::HashSet, sync::Arc};

use datafusion::prelude::{Expr, col, lit};
use futures::future::try_join_all;
use netverdict_flowlog::{
    Table,
    row::{Row, SnapshotRow},
};

use super::{fold::Changes, fresh::Fresh};
use crate::{
    Executor, QueryError,
    notes::Notes,
    records,
    tables::{FileId, Listing, Segment, Window},
};

/// Tables that a state is made of.
pub(super) const TABLES: [Table; 4] = [Table::Namespaces, Table::Endpoints, Table::Services, Table::Policies];

/// Unflushed rows of a node's change logs, up to a number, as collectors hold them.
pub(super) struct FreshLogs {
    tables: Vec<Fresh>,
}

impl FreshLogs {
    /// Asks for all tables at once: a collector that does not answer costs its time once.
    pub(super) async fn after(executor: &Executor, heads: &Fresh, notes: &Arc<Notes>) -> Result<Self, QueryError> {
        let each = TABLES.map(|table| Fresh::of(executor, table, Some(heads.asked), notes));
        Ok(Self { tables: try_join_all(each).await? })
    }

    /// The changes that belong to a state.
    pub(super) fn changes(&self, head: &SnapshotRow) -> Changes {
        let mut changes = Changes::default();
        let belongs =
            |row: &&Row| row.head().is_some_and(|change| change.node == head.node && change.snapshot <= head.snapshot);
        self.tables.iter().flat_map(|fresh| &fresh.rows).filter(belongs).for_each(|row| changes.take(row.clone()));
        changes
    }
}

/// Files with the change logs of a node, up to a number.
pub(super) struct Files {
    /// Files that may hold rows of it, by table.
    segments: Vec<(Table, Vec<Segment>)>,
    /// All files, independent of their rows.
    all: HashSet<FileId>,
}

/// Which of them are to be read, and for which numbers.
pub(super) struct Work {
    parts: Vec<Part>,
}

struct Part {
    table: Table,
    segments: Vec<Segment>,
    /// Rows of higher numbers only.
    after: Option<u64>,
}

impl Files {
    pub(super) async fn list(
        executor: &Executor,
        head: &SnapshotRow,
        fresh: &FreshLogs,
        notes: &Arc<Notes>,
    ) -> Result<Self, QueryError> {
        let store = executor.store();
        let list = |(table, fresh): (Table, &Fresh)| {
            let boundaries = fresh.boundaries.clone();
            async move { Ok::<_, QueryError>((table, store.list(table, Window::default(), &boundaries, notes).await?)) }
        };
        let listed = try_join_all(TABLES.into_iter().zip(&fresh.tables).map(list)).await?;
        let mut files = Self { segments: Vec::new(), all: HashSet::new() };
        for (table, Listing { mut segments, served }) in listed {
            files.all.extend(served.into_iter().chain(segments.iter().map(|segment| segment.id)));
            segments.retain(|segment| {
                segment.contents.may_be_of(&head.node) && *segment.contents.numbers.start() <= head.snapshot
            });
            files.segments.push((table, segments));
        }
        Ok(files)
    }

    /// The files that make up the state, sorted.
    pub(super) fn ids(&self) -> Vec<FileId> {
        let mut ids: Vec<FileId> =
            self.segments.iter().flat_map(|(_, segments)| segments).map(|segment| segment.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether all of these are still there.
    pub(super) fn have(&self, ids: &[FileId]) -> bool {
        ids.iter().all(|id| self.all.contains(id))
    }

    /// Files to read without a kept fold.
    pub(super) fn whole(&self) -> Work {
        let part =
            |(table, segments): &(Table, Vec<Segment>)| Part { table: *table, segments: segments.clone(), after: None };
        Work::of(self.segments.iter().map(part))
    }

    /// Files to read beyond a fold that was made of `read` (sorted) up to a number.
    pub(super) fn beyond(&self, read: &[FileId], number: u64) -> Work {
        Work::of(self.segments.iter().flat_map(|(table, segments)| {
            let (known, new): (Vec<&Segment>, Vec<&Segment>) =
                segments.iter().partition(|segment| read.binary_search(&segment.id).is_ok());
            let known = known.into_iter().filter(|segment| *segment.contents.numbers.end() > number);
            let (table, known, new) = (*table, known.cloned().collect(), new.into_iter().cloned().collect());
            [Part { table, segments: new, after: None }, Part { table, segments: known, after: Some(number) }]
        }))
    }
}

impl Work {
    fn of(parts: impl Iterator<Item = Part>) -> Self {
        Self { parts: parts.filter(|part| !part.segments.is_empty()).collect() }
    }

    /// Rows in the files at most.
    pub(super) fn rows(&self) -> usize {
        self.parts.iter().flat_map(|part| &part.segments).map(|segment| segment.contents.rows).sum()
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) async fn changes(
        self,
        executor: &Executor,
        head: &SnapshotRow,
        notes: &Arc<Notes>,
    ) -> Result<Changes, QueryError> {
        let mut changes = Changes::default();
        for Part { table, segments, after } in self.parts {
            let mut rows = executor.scan(table, segments, condition(head, after), notes).await?;
            while let Some(batch) = rows.next().await {
                records::of_batch(table, &batch?)?.into_iter().for_each(|row| changes.take(row));
            }
        }
        Ok(changes)
    }
}

fn condition(head: &SnapshotRow, after: Option<u64>) -> Expr {
    let number = |number: u64| lit(i64::try_from(number).unwrap_or(i64::MAX));
    let condition = col("node").eq(lit(&*head.node)).and(col("snapshot").lt_eq(number(head.snapshot)));
    match after {
        None => condition,
        Some(after) => condition.and(col("snapshot").gt(number(after))),
    }
}
