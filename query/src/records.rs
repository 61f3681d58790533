//! Rows of the record by condition, as `flowlog` types them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, SecondsFormat, Utc};
use netverdict_flowlog::{Table, read, row::Row};

use crate::{Executor, QueryError, notes::Notes};

/// Rows of one question at most: far more than any answer needs, and still little memory.
const MAX_ROWS: usize = 1_000_000;

/// Rows of a table. `condition` and `tail` (order, limit) are SQL of our own; texts in it go through [`quoted`].
///
/// # Errors
/// When the table cannot be read, or holds more rows than can be taken at once.
pub async fn rows(
    executor: &Executor,
    table: Table,
    condition: &str,
    tail: &str,
    notes: &Arc<Notes>,
) -> Result<Vec<Row>, QueryError> {
    let text = format!("SELECT * FROM record.{table} WHERE {condition} {tail}");
    let (batches, more) = executor.query(&text, MAX_ROWS, notes).await?;
    if more {
        return Err(QueryError::Resources(format!("more than {MAX_ROWS} rows of {table} would be needed")));
    }
    let mut rows = Vec::new();
    for batch in &batches {
        rows.extend(of_batch(table, batch)?);
    }
    Ok(rows)
}

/// # Errors
/// When a value is none that the record can hold.
pub(crate) fn of_batch(table: Table, batch: &RecordBatch) -> Result<Vec<Row>, QueryError> {
    read::rows(table, batch).map_err(|error| QueryError::Unreadable(error.to_string()))
}

/// Rows of one kind.
macro_rules! of_kind {
    ($rows:expr, $variant:ident) => {
        $rows
            .into_iter()
            .filter_map(|row| match row {
                netverdict_flowlog::row::Row::$variant(row) => Some(*row),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
}
pub(crate) use of_kind;

/// A time in SQL, to be compared with a column: as text it takes on the column's precision, so the comparison prunes.
pub(crate) fn literal(time: DateTime<Utc>) -> String {
    format!("'{}'", time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// A text in SQL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A list of texts in SQL, which must not be empty.
pub(crate) fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}
