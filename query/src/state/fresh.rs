//! Unflushed rows of a table, as collectors hold them.

use std::{sync::Arc, time::Instant};

use netverdict_flowlog::{Table, row::Row};

use crate::{
    Executor, QueryError,
    notes::Notes,
    records,
    tables::Window,
    unflushed::{Boundary, UnflushedAnswer},
};

/// Of one table. Files have to be listed after it was asked for, and without those behind a boundary.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) rows: Vec<Row>,
    pub(super) boundaries: Vec<Boundary>,
    /// No answer in it is older.
    pub(super) asked: Instant,
}

impl Fresh {
    /// All rows of a table, as they were at `since` or later.
    pub(super) async fn of(
        executor: &Executor,
        table: Table,
        since: Option<Instant>,
        notes: &Arc<Notes>,
    ) -> Result<Self, QueryError> {
        let now = Instant::now();
        let UnflushedAnswer { rows: answers, problems } =
            executor.store().collectors().rows_since(table, Window::default(), since).await;
        for problem in problems {
            notes.stale(problem);
        }
        let mut fresh = Self { rows: Vec::new(), boundaries: Vec::new(), asked: now };
        for answer in answers {
            fresh.asked = fresh.asked.min(answer.asked);
            fresh.boundaries.extend(answer.boundary);
            for batch in &answer.batches {
                fresh.rows.extend(records::of_batch(table, batch)?);
            }
        }
        Ok(fresh)
    }
}
