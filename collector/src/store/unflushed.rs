//! Rows that are in no file yet, as columns, for readers that cannot wait for the next flush.

use std::{iter, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    columns::{self, BatchError},
    path::Hour,
    row::Row,
};

use super::{Store, error::StoreError};

impl Store {
    /// Rows of a table whose time is in the range (both ends included; `None` is no end; a gap counts if any of it
    /// is), with the columns that only a path has. The schema is [`Table::unflushed_schema`].
    ///
    /// The number is a segment's: every row of an earlier one is in a file, and every row here is of that one or a
    /// later one. So a reader that asks here first, then lists files and leaves out this node's and boot's files of that
    /// number and later, sees each row once.
    pub fn unflushed(
        &self,
        table: Table,
        from: Option<DateTime<Utc>>,
        to: Option<DateTime<Utc>>,
    ) -> Result<(u64, RecordBatch), StoreError> {
        let (segment, pieces) = {
            let memtable = self.memtable();
            (memtable.segment, memtable.pieces())
        };
        let wanted = |row: &&Row| {
            let (first, last) = times(row);
            Table::of(row) == table && from.is_none_or(|from| last >= from) && to.is_none_or(|to| first <= to)
        };
        let rows: Vec<&Row> = pieces.iter().flat_map(|piece| piece.iter()).filter(wanted).collect();
        let batch = columns::batch(table, rows.iter().copied())?;
        let hours: Vec<Hour> = rows.iter().map(|row| Hour::of(row.time())).collect();
        Ok((segment, self.with_path_columns(table, batch, &hours)?))
    }

    fn with_path_columns(&self, table: Table, batch: RecordBatch, hours: &[Hour]) -> Result<RecordBatch, BatchError> {
        let cluster = iter::repeat_n(&self.options.cluster, hours.len());
        // Neighbours are mostly of one hour.
        let mut last: Option<(Hour, String, String)> = None;
        let (mut dates, mut numbers) = (Vec::with_capacity(hours.len()), Vec::with_capacity(hours.len()));
        for hour in hours {
            let (_, date, number) = match last.take() {
                Some(same) if same.0 == *hour => last.insert(same),
                _ => last.insert((*hour, hour.date(), hour.hour())),
            };
            dates.push(date.clone());
            numbers.push(number.clone());
        }
        let path: [ArrayRef; 3] = [
            Arc::new(StringArray::from_iter_values(cluster)),
            Arc::new(StringArray::from(dates)),
            Arc::new(StringArray::from(numbers)),
        ];
        let all = batch.columns().iter().cloned().chain(path).collect();
        RecordBatch::try_new(table.unflushed_schema(), all).map_err(|source| BatchError::Schema { table, source })
    }
}

fn times(row: &Row) -> (DateTime<Utc>, DateTime<Utc>) {
    match row {
        Row::Gap(gap) => (gap.from, gap.to),
        row => (row.time(), row.time()),
    }
}
