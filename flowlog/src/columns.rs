//! Rows → record batches.
//!
//! Bounds: numbers wider than their column saturate (counters are Int64, 2⁶³−1); a batch holds at most
//! [`MAX_BATCH_ROWS`] rows and [`MAX_BATCH_BYTES`] of text in lists, maps and plain columns, because offsets are 32 bits.
//! Larger numbers of rows make several batches ([`batches`]).

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    error::ArrowError,
};
use thiserror::Error;

pub use crate::layout::{MAX_BATCH_BYTES, MAX_BATCH_ROWS};
use crate::{
    layout::{Columns, TooLarge, within_bounds},
    row::{EndpointRow, FlowRow, Row, Table, of_table},
};

/// Rows in one batch of [`batches`]: large enough that fixed costs vanish, small enough that a batch fits the caches
/// of a small node.
const CHUNK_ROWS: usize = 1 << 16;

#[derive(Debug, Error)]
pub enum BatchError {
    #[error("row {index} is of table {found}, expected {expected}")]
    OtherTable { expected: Table, found: Table, index: usize },
    #[error(
        "{rows} rows with {bytes} bytes of text, expected at most {MAX_BATCH_ROWS} rows and {MAX_BATCH_BYTES} bytes in one batch: make several"
    )]
    TooLarge { rows: usize, bytes: usize },
    #[error("the columns of {table} do not fit its schema")]
    Schema { table: Table, source: ArrowError },
}

impl From<TooLarge> for BatchError {
    fn from(TooLarge { rows, bytes }: TooLarge) -> Self {
        Self::TooLarge { rows, bytes }
    }
}

/// The rows as columns, in the order given. All must be of `table`.
pub fn batch<'a>(table: Table, rows: impl IntoIterator<Item = &'a Row>) -> Result<RecordBatch, BatchError> {
    macro_rules! fill {
        ($variant:ident) => {{
            let one = |(index, row): (usize, &'a Row)| match row {
                Row::$variant(row) => Ok(&**row),
                _ => Err(BatchError::OtherTable { expected: table, found: Table::of(row), index }),
            };
            fill(table, &rows.into_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?)
        }};
    }
    of_table!(table, fill)
}

/// Rows of `flows` as columns, in the order given.
pub fn flows(rows: &[FlowRow]) -> Result<RecordBatch, BatchError> {
    fill(Table::Flows, &rows.iter().collect::<Vec<_>>())
}

/// The rows as a file holds them: `flows` by (attribution, destination, source, time), everything else by time; in
/// batches of a size that a writer takes well. None for no rows.
pub fn batches<'a>(table: Table, rows: impl IntoIterator<Item = &'a Row>) -> Result<Vec<RecordBatch>, BatchError> {
    let mut rows: Vec<&Row> = rows.into_iter().collect();
    match table {
        Table::Flows => sort_flows(&mut rows),
        _ => rows.sort_by_key(|row| row.time()),
    }
    let mut made = Vec::new();
    for chunk in rows.chunks(CHUNK_ROWS) {
        push_batches(table, chunk, &mut made)?;
    }
    Ok(made)
}

fn push_batches(table: Table, rows: &[&Row], made: &mut Vec<RecordBatch>) -> Result<(), BatchError> {
    match batch(table, rows.iter().copied()) {
        Err(BatchError::TooLarge { .. }) if rows.len() > 1 => {
            let (first, second) = rows.split_at(rows.len() / 2);
            push_batches(table, first, made)?;
            push_batches(table, second, made)
        }
        batch => {
            made.push(batch?);
            Ok(())
        }
    }
}

fn fill<R: Columns>(table: Table, rows: &[&R]) -> Result<RecordBatch, BatchError> {
    within_bounds(rows.len(), 0)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(table.bare_schema(), R::fill(rows)?, &options)
        .map_err(|source| BatchError::Schema { table, source })
}

/// By (attribution, destination, source, time): rows that were decided alike and rows between the same ends lie
/// together, so that runs are long and look-ups by any of them prune.
fn sort_flows(rows: &mut [&Row]) {
    let mut ranks = HashMap::<*const EndpointRow, u32>::new();
    let mut endpoints = Vec::new();
    for row in rows.iter().filter_map(|row| flow_of(row)) {
        for endpoint in [&row.source, &row.destination] {
            ranks.entry(Arc::as_ptr(endpoint)).or_insert_with(|| {
                endpoints.push(endpoint.clone());
                0
            });
        }
    }
    endpoints.sort_by(|a, b| (&a.namespace, &a.pod, &a.node, a.kind).cmp(&(&b.namespace, &b.pod, &b.node, b.kind)));
    for (rank, endpoint) in (0..).zip(&endpoints) {
        ranks.insert(Arc::as_ptr(endpoint), rank);
    }
    let rank = |endpoint: &Arc<EndpointRow>| ranks.get(&Arc::as_ptr(endpoint)).copied();
    rows.sort_by_cached_key(|row| {
        flow_of(row).map(|row| {
            let attribution = row.attribution_id.0.cast_signed();
            (attribution, rank(&row.destination), row.destination_ip, rank(&row.source), row.source_ip, row.time)
        })
    });
}

fn flow_of(row: &Row) -> Option<&FlowRow> {
    match row {
        Row::Flow(row) => Some(row),
        _ => None,
    }
}
