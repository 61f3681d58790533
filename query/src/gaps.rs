//! Gaps in the record that overlap the time of an answer, and reasons why the answer may be out of date.

use std::sync::Arc;

use netverdict_flowlog::{Table, answer::Gap, row::GapRow};

use crate::{
    Executor, QueryError,
    notes::Notes,
    records::{self, literal, of_kind},
    tables::Window,
};

/// Gaps in one answer at most: the newest.
const MAX_GAPS: usize = 200;

/// The newest gaps that overlap the window, oldest first.
///
/// # Errors
/// When the table cannot be read.
pub async fn touching(executor: &Executor, window: Window, notes: &Arc<Notes>) -> Result<Vec<Gap>, QueryError> {
    let mut conditions = vec!["true".to_owned()];
    if let Some(to) = window.to_time() {
        conditions.push(format!("\"from\" <= {}", literal(to)));
    }
    if let Some(from) = window.from_time() {
        conditions.push(format!("\"to\" >= {}", literal(from)));
    }
    let tail = format!("ORDER BY \"to\" DESC LIMIT {MAX_GAPS}");
    let rows = records::rows(executor, Table::Gaps, &conditions.join(" AND "), &tail, notes).await?;
    let mut gaps: Vec<Gap> = of_kind!(rows, Gap).into_iter().map(gap).collect();
    gaps.reverse();
    Ok(gaps)
}

/// Reasons why an answer may be out of date: found while it was made, and reported by the collectors.
pub(crate) async fn stale(executor: &Executor, notes: &Notes) -> Vec<String> {
    let mut stale = notes.reasons();
    stale.extend(executor.store().collectors().problems().await);
    stale.sort();
    stale.dedup();
    stale
}

fn gap(row: GapRow) -> Gap {
    Gap {
        node: row.node.to_string(),
        lane: row.lane.map(|lane| lane.as_str().to_owned()).unwrap_or_default(),
        endpoint: row.endpoint,
        cause: row.cause.as_str().to_owned(),
        lost_events: i64::try_from(row.lost_events).unwrap_or(i64::MAX),
        from: row.from,
        to: row.to,
        detail: row.detail,
    }
}
