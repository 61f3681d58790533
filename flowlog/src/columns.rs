//! Columns: each is a field, what it means, and how it is filled from rows. Schema and builder are the same list, so
//! that they cannot disagree.
//!
//! Bounds: numbers wider than their column saturate (counters are Int64, 2⁶³−1); a batch holds at most
//! [`MAX_BATCH_ROWS`] rows and [`MAX_BATCH_BYTES`] of text in lists, maps and plain columns, for offsets are 32 bits.
//! Whoever holds more makes several batches ([`batches`]).

mod changes;
mod flows;
mod nested;
mod state;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BooleanArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
};
use chrono::{DateTime, Utc};
use thiserror::Error;

use crate::{
    row::{FlowRow, Row},
    schema::Table,
};

/// Rows in one batch at most.
pub const MAX_BATCH_ROWS: usize = 1 << 20;

/// Bytes of text that one batch expands to at most: a half of what 32-bit offsets can address, so that estimates may be off.
pub const MAX_BATCH_BYTES: usize = 1 << 30;

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

/// The rows as columns, in the order given. All must be of `table`.
pub fn batch<'a>(table: Table, rows: impl IntoIterator<Item = &'a Row>) -> Result<RecordBatch, BatchError> {
    macro_rules! fill {
        ($variant:ident, $columns:expr) => {
            fill(
                table,
                $columns,
                &of_table(table, rows, |row| match row {
                    Row::$variant(row) => Some(&**row),
                    _ => None,
                })?,
            )
        };
    }
    match table {
        Table::Flows => flows::fill(&of_table(table, rows, |row| match row {
            Row::Flow(row) => Some(&**row),
            _ => None,
        })?),
        Table::Policies => fill!(Policy, &changes::POLICIES),
        Table::Endpoints => fill!(Endpoint, &changes::ENDPOINTS),
        Table::Namespaces => fill!(Namespace, &changes::NAMESPACES),
        Table::Services => fill!(Service, &changes::SERVICES),
        Table::Attributions => fill!(Attribution, &state::ATTRIBUTIONS),
        Table::Snapshots => fill!(Snapshot, &state::SNAPSHOTS),
        Table::Gaps => fill!(Gap, &state::GAPS),
        Table::Collectors => fill!(Collector, &state::COLLECTORS),
        Table::Settings => fill!(Setting, &state::SETTINGS),
    }
}

/// Rows of `flows` as columns, in the order given.
pub fn flows(rows: &[FlowRow]) -> Result<RecordBatch, BatchError> {
    flows::fill(&rows.iter().collect::<Vec<_>>())
}

/// The rows as a file holds them: `flows` by (attribution, destination, source, time), everything else by time; in
/// batches of a size that a writer takes well. None for no rows.
pub fn batches<'a>(table: Table, rows: impl IntoIterator<Item = &'a Row>) -> Result<Vec<RecordBatch>, BatchError> {
    let mut rows: Vec<&Row> = rows.into_iter().collect();
    match table {
        Table::Flows => flows::sort(&mut rows),
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

/// The fields of a table, with what they mean under the metadata key [`crate::schema::DOC`].
pub(crate) fn fields(table: Table) -> Vec<Field> {
    fn of<R>(columns: &[Column<R>]) -> Vec<Field> {
        columns.iter().map(|column| column.field.clone()).collect()
    }
    match table {
        Table::Flows => flows::fields(),
        Table::Policies => of(&changes::POLICIES),
        Table::Endpoints => of(&changes::ENDPOINTS),
        Table::Namespaces => of(&changes::NAMESPACES),
        Table::Services => of(&changes::SERVICES),
        Table::Attributions => of(&state::ATTRIBUTIONS),
        Table::Snapshots => of(&state::SNAPSHOTS),
        Table::Gaps => of(&state::GAPS),
        Table::Collectors => of(&state::COLLECTORS),
        Table::Settings => of(&state::SETTINGS),
    }
}

/// A column of rows of type `R`.
struct Column<R: 'static> {
    field: Field,
    fill: Fill<R>,
    /// Bytes that one row adds to 32-bit offsets; 0 where the column has none.
    weight: fn(&R) -> usize,
}

type Fill<R> = Box<dyn for<'a> Fn(&[&'a R]) -> ArrayRef + Send + Sync>;

impl<R: 'static> Column<R> {
    fn new(name: &str, doc: &str, data_type: DataType, nullable: bool, fill: Fill<R>) -> Self {
        let field =
            Field::new(name, data_type, nullable).with_metadata([(crate::schema::DOC.into(), doc.into())].into());
        Self { field, fill, weight: |_| 0 }
    }

    /// The same column under another name, its meaning said of another end.
    fn prefixed(mut self, prefix: &str) -> Self {
        self.field = self.field.clone().with_name(format!("{prefix}_{}", self.field.name()));
        self
    }

    /// Text that repeats; empty is null.
    fn text(name: &str, doc: &str, get: for<'a> fn(&'a R) -> &'a str) -> Self {
        Self::new(name, doc, words(), true, Box::new(move |rows| fill_words(rows.iter().map(|row| get(row)))))
    }

    /// A word that is always there.
    fn word(name: &str, doc: &str, get: for<'a> fn(&'a R) -> &'a str) -> Self {
        Self::new(name, doc, words(), false, Box::new(move |rows| fill_words(rows.iter().map(|row| get(row)))))
    }

    /// A word, or null.
    fn optional_word(name: &str, doc: &str, get: fn(&R) -> Option<&'static str>) -> Self {
        let fill = move |rows: &[&R]| fill_words(rows.iter().map(|row| get(row).unwrap_or("")));
        Self::new(name, doc, words(), true, Box::new(fill))
    }

    /// Text that hardly repeats; empty is null.
    fn long_text(name: &str, doc: &str, get: for<'a> fn(&'a R) -> &'a str) -> Self {
        let fill = move |rows: &[&R]| -> ArrayRef {
            let value = |row: &&R| Some(get(row).to_owned()).filter(|text| !text.is_empty());
            Arc::new(rows.iter().map(value).collect::<StringArray>())
        };
        Self::new(name, doc, DataType::Utf8, true, Box::new(fill))
    }

    fn weighing(mut self, weight: fn(&R) -> usize) -> Self {
        self.weight = weight;
        self
    }

    /// A counter or an id.
    fn number(name: &str, doc: &str, get: fn(&R) -> i64) -> Self {
        let fill =
            move |rows: &[&R]| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| get(row)))) };
        Self::new(name, doc, DataType::Int64, false, Box::new(fill))
    }

    fn optional_number(name: &str, doc: &str, get: fn(&R) -> Option<i64>) -> Self {
        let fill = move |rows: &[&R]| -> ArrayRef { Arc::new(rows.iter().map(|row| get(row)).collect::<Int64Array>()) };
        Self::new(name, doc, DataType::Int64, true, Box::new(fill))
    }

    /// A port, a protocol number, a flag byte.
    fn small(name: &str, doc: &str, get: fn(&R) -> i32) -> Self {
        let fill =
            move |rows: &[&R]| -> ArrayRef { Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| get(row)))) };
        Self::new(name, doc, DataType::Int32, false, Box::new(fill))
    }

    fn optional_small(name: &str, doc: &str, get: fn(&R) -> Option<i32>) -> Self {
        let fill = move |rows: &[&R]| -> ArrayRef { Arc::new(rows.iter().map(|row| get(row)).collect::<Int32Array>()) };
        Self::new(name, doc, DataType::Int32, true, Box::new(fill))
    }

    fn time(name: &str, doc: &str, get: fn(&R) -> DateTime<Utc>) -> Self {
        let fill = move |rows: &[&R]| -> ArrayRef {
            let micros = rows.iter().map(|row| get(row).timestamp_micros());
            Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone(UTC))
        };
        Self::new(name, doc, instant(), false, Box::new(fill))
    }

    fn flag(name: &str, doc: &str, get: fn(&R) -> bool) -> Self {
        let fill = move |rows: &[&R]| -> ArrayRef {
            Arc::new(rows.iter().map(|row| Some(get(row))).collect::<BooleanArray>())
        };
        Self::new(name, doc, DataType::Boolean, false, Box::new(fill))
    }

    /// Text by text; an empty map is an empty map, not null.
    fn map(name: &str, doc: &str, get: for<'a> fn(&'a R) -> &'a BTreeMap<String, String>) -> Self {
        let fill = move |rows: &[&R]| nested::fill_map(rows.iter().map(|row| get(row)));
        Self::new(name, doc, nested::map(DataType::Utf8), false, Box::new(fill))
    }
}

pub(crate) const UTC: &str = "UTC";

/// Text by dictionary: what most columns are.
pub(crate) fn words() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Microseconds since 1970 in UTC, as PostgreSQL and DuckDB keep them.
pub(crate) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// Empty is null. Neighbours that share their text (by the pointer) cost no look-up.
fn fill_words<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    let mut keys = Vec::with_capacity(values.size_hint().0);
    let mut index = std::collections::HashMap::<&str, i32>::new();
    let mut distinct = Vec::new();
    let mut last: (&str, Option<i32>) = ("", None);
    for value in values {
        if !std::ptr::eq(value, last.0) {
            let key = (!value.is_empty()).then(|| {
                *index.entry(value).or_insert_with(|| {
                    distinct.push(value);
                    small_from(distinct.len() - 1)
                })
            });
            last = (value, key);
        }
        keys.push(last.1);
    }
    dictionary(keys.into_iter().collect(), distinct)
}

/// `keys` must be below the number of `distinct` values, or null.
fn dictionary<S: AsRef<str>>(keys: Int32Array, distinct: Vec<S>) -> ArrayRef {
    let values = StringArray::from_iter_values(distinct);
    Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(values)))
}

/// Saturates: a counter that no longer fits is at its end anyway.
fn number_from(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Saturates.
fn small_from(value: impl TryInto<i32>) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

fn of_table<'a, R>(
    table: Table,
    rows: impl IntoIterator<Item = &'a Row>,
    take: impl Fn(&'a Row) -> Option<&'a R>,
) -> Result<Vec<&'a R>, BatchError> {
    let one = |(index, row)| {
        take(row).ok_or_else(|| BatchError::OtherTable { expected: table, found: Table::of(row), index })
    };
    rows.into_iter().enumerate().map(one).collect()
}

fn fill<R>(table: Table, columns: &[Column<R>], rows: &[&R]) -> Result<RecordBatch, BatchError> {
    let bytes = columns
        .iter()
        .map(|column| rows.iter().fold(0, |sum: usize, row| sum.saturating_add((column.weight)(row))))
        .fold(0, usize::max);
    within_bounds(rows.len(), bytes)?;
    assemble(table, columns.iter().map(|column| (column.fill)(rows)).collect())
}

fn within_bounds(rows: usize, bytes: usize) -> Result<(), BatchError> {
    match rows > MAX_BATCH_ROWS || bytes > MAX_BATCH_BYTES {
        true => Err(BatchError::TooLarge { rows, bytes }),
        false => Ok(()),
    }
}

fn assemble(table: Table, columns: Vec<ArrayRef>) -> Result<RecordBatch, BatchError> {
    RecordBatch::try_new(table.bare_schema(), columns).map_err(|source| BatchError::Schema { table, source })
}

/// The schema of `fields` without what they mean, which would cost each file some kilobytes.
pub(crate) fn bare(fields: &[Field]) -> SchemaRef {
    let fields: Vec<Field> = fields.iter().map(|field| field.clone().with_metadata([].into())).collect();
    Arc::new(Schema::new(fields))
}
