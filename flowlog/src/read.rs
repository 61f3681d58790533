//! Files and batches back to rows.
//!
//! Columns of a batch in any encoding (dictionary or plain, 32 or 64 bits) are first cast to this version's schema by
//! name, or by the name that they had in an earlier format; a column that an older writer did not have
//! is null. Both are in the declarations in [`crate::row`] (`was`, `since`). Queries over many files are the query
//! service's job.

use std::{
    collections::BTreeMap,
    fs::File,
    io, iter,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions, new_null_array},
    compute::cast,
    error::ArrowError,
};
use parquet::{
    arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use thiserror::Error;

use crate::{
    FORMAT_VERSION,
    layout::{Cells, Column, Known, Wrong},
    row::Row,
    schema::{Table, VERSION},
};

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("{} could not be opened", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is no whole Parquet file", path.display())]
    Damaged { path: PathBuf, source: ParquetError },
    #[error(
        "{} has format version {found:?}, expected a number up to {FORMAT_VERSION}: read it with a newer release",
        path.display()
    )]
    Version { path: PathBuf, found: String },
    #[error("table {table} has no column {column}, expected one as every version has it")]
    Column { table: Table, column: String },
    #[error("column {column} of table {table} has another type than expected")]
    Type { table: Table, column: String, source: ArrowError },
    #[error("column {column} of table {table} is {found:?} in row {row}, expected {expected}")]
    Value { table: Table, column: String, row: usize, found: String, expected: &'static str },
}

/// Row count and metadata of a file, without its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub rows: i64,
    pub metadata: BTreeMap<String, String>,
}

/// Reads the end of a file only.
pub fn footer(path: &Path) -> Result<Footer, ReadError> {
    Ok(open(path)?.0)
}

/// The batches of a file as they are written, some thousand rows each.
pub fn batches(path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch, ReadError>> + use<>, ReadError> {
    let (_, builder) = open(path)?;
    let mut reader: ParquetRecordBatchReader = decoded(path, || builder.build())?;
    let path = path.to_owned();
    let mut over = false;
    Ok(iter::from_fn(move || {
        if over {
            return None;
        }
        let batch = decoded(&path, || reader.next().transpose().map_err(ParquetError::from)).transpose();
        // After an error the decoder's state means nothing.
        over = !matches!(batch, Some(Ok(_)));
        batch
    }))
}

/// The rows of a batch of `table`.
pub fn rows(table: Table, batch: &RecordBatch) -> Result<Vec<Row>, ReadError> {
    let batch = conform(table, batch)?;
    let wrong = |Wrong { column, row, found, expected }: Wrong| {
        let column = batch.schema_ref().field(column).name().clone();
        ReadError::Value { table, column, row, found, expected }
    };
    let mut known = Known::default();
    (0..batch.num_rows()).map(|row| Row::read(table, &mut Cells::of(&batch, row, &mut known)).map_err(wrong)).collect()
}

/// The batch with exactly the columns of this version's schema. Columns that it does not know are left out.
pub fn conform(table: Table, batch: &RecordBatch) -> Result<RecordBatch, ReadError> {
    let column = |declared: &Column| {
        let Column { name, data_type, nullable, was, .. } = declared;
        let missing = || ReadError::Column { table, column: name.clone() };
        match batch.column_by_name(name).or_else(|| batch.column_by_name((*was)?)) {
            Some(column) => {
                let wrong = |source| ReadError::Type { table, column: name.clone(), source };
                let column = cast(column, data_type).map_err(wrong)?;
                if !nullable && column.null_count() > 0 { Err(missing()) } else { Ok(column) }
            }
            None if *nullable => Ok(new_null_array(data_type, batch.num_rows())),
            None => Err(missing()),
        }
    };
    let columns = table.declared().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(table.bare_schema(), columns, &options).map_err(|source| ReadError::Type {
        table,
        column: "*".into(),
        source,
    })
}

fn open(path: &Path) -> Result<(Footer, ParquetRecordBatchReaderBuilder<File>), ReadError> {
    let file = File::open(path).map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
    let builder = decoded(path, || ParquetRecordBatchReaderBuilder::try_new(file))?;
    let file = builder.metadata().file_metadata();
    let pairs = file.key_value_metadata().into_iter().flatten();
    let metadata: BTreeMap<_, _> =
        pairs.map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default())).collect();
    let version = metadata.get(VERSION).cloned().unwrap_or_default();
    if !version.parse().is_ok_and(|version: u32| (1..=FORMAT_VERSION).contains(&version)) {
        return Err(ReadError::Version { path: path.to_owned(), found: version });
    }
    let footer = Footer { rows: file.num_rows(), metadata };
    Ok((footer, builder))
}

/// Result of decoding a file. Some damage makes the libraries panic; for a reader that is damage like any other.
fn decoded<T>(path: &Path, decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ReadError> {
    panic::catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_panic| Err(ParquetError::General("its bytes contradict each other".into())))
        .map_err(|source| ReadError::Damaged { path: path.to_owned(), source })
}
