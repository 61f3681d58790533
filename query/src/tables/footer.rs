//! The footer of a file: whether this service can read the file, and which rows it can hold at all.

use std::ops::RangeInclusive;

use netverdict_flowlog::{
    FORMAT_VERSION, Table,
    manifest::MANIFEST,
    schema::{VERSION, former_name},
};
use parquet::{
    basic::{LogicalType, TimeUnit},
    file::{metadata::ParquetMetaData, statistics::Statistics},
    schema::types::ColumnDescriptor,
};

use super::schema::time_column;

/// The column with the number of a policy snapshot.
const SNAPSHOT: &str = "snapshot";

/// Bounds of a file's rows, by its footer. Values that the footer does not bound may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub rows: usize,
    /// Numbers of the snapshots that rows are of.
    pub numbers: RangeInclusive<u64>,
    /// Microseconds since 1970.
    pub times: RangeInclusive<i64>,
    /// The first and last name in the order of bytes, or names before and after them.
    nodes: Option<RangeInclusive<Box<[u8]>>>,
    /// Path of the manifest that has to list the file before it counts.
    pub manifest: Option<Box<str>>,
}

impl Contents {
    /// Reads it; or says why the file cannot be read by this service.
    ///
    /// # Errors
    /// The file is of a format of the future.
    pub(super) fn of(table: Table, footer: &ParquetMetaData) -> Result<Self, String> {
        version(footer)?;
        let column = |name| written_name(table, footer, name);
        let whole = |number: &i64| u64::try_from(*number).unwrap_or_default();
        let numbers = integers(footer, column(SNAPSHOT), |_| true);
        let times = integers(footer, column(time_column(table)), is_micros);
        Ok(Self {
            rows: usize::try_from(footer.file_metadata().num_rows()).unwrap_or_default(),
            numbers: numbers.map_or(0..=u64::MAX, |range| whole(range.start())..=whole(range.end())),
            times: times.unwrap_or(i64::MIN..=i64::MAX),
            nodes: texts(footer, column("node")),
            manifest: metadata(footer, MANIFEST).map(Into::into),
        })
    }

    /// Whether a row of this node can be in it.
    pub(crate) fn may_be_of(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| **nodes.start() <= *node.as_bytes() && *node.as_bytes() <= **nodes.end())
    }
}

/// The name under which the file has a column: files of earlier formats may have another.
fn written_name<'a>(table: Table, footer: &ParquetMetaData, name: &'a str) -> &'a str {
    let schema = footer.file_metadata().schema_descr();
    let has = |name: &str| schema.columns().iter().any(|column| column.path().parts() == [name]);
    former_name(table, name).filter(|former| !has(name) && has(former)).unwrap_or(name)
}

fn version(footer: &ParquetMetaData) -> Result<(), String> {
    let version = metadata(footer, VERSION);
    match version.map(str::parse::<u32>) {
        // Without one it is another tool's work on our rows, which is as good as the first version.
        None => Ok(()),
        Some(Ok(version)) if version <= FORMAT_VERSION => Ok(()),
        Some(_) => {
            let found = version.unwrap_or_default();
            Err(format!("its format_version is {found}, this service reads up to {FORMAT_VERSION}: update it"))
        }
    }
}

fn metadata<'a>(footer: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let entries = footer.file_metadata().key_value_metadata();
    entries.into_iter().flatten().find(|entry| entry.key == key).and_then(|entry| entry.value.as_deref())
}

/// Statistics of a column in each row group; `None` where any lacks them.
fn statistics<'a>(
    footer: &'a ParquetMetaData,
    column: &str,
    fits: impl Fn(&ColumnDescriptor) -> bool,
) -> Option<Vec<&'a Statistics>> {
    let columns = footer.file_metadata().schema_descr().columns();
    let index = columns.iter().position(|found| found.path().parts() == [column] && fits(found))?;
    footer.row_groups().iter().map(|group| group.columns().get(index)?.statistics()).collect()
}

fn integers(
    footer: &ParquetMetaData,
    column: &str,
    fits: impl Fn(&ColumnDescriptor) -> bool,
) -> Option<RangeInclusive<i64>> {
    let ranges = statistics(footer, column, fits)?.into_iter().map(|statistics| match statistics {
        Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    });
    let ranges: Vec<(i64, i64)> = ranges.collect::<Option<_>>()?;
    Some(ranges.iter().map(|range| range.0).min()?..=ranges.iter().map(|range| range.1).max()?)
}

fn is_micros(column: &ColumnDescriptor) -> bool {
    matches!(column.logical_type_ref(), Some(LogicalType::Timestamp(kind)) if kind.unit == TimeUnit::MICROS)
}

fn texts(footer: &ParquetMetaData, column: &str) -> Option<RangeInclusive<Box<[u8]>>> {
    let ranges = statistics(footer, column, |_| true)?.into_iter().map(|statistics| match statistics {
        Statistics::ByteArray(_) => Some((statistics.min_bytes_opt()?, statistics.max_bytes_opt()?)),
        _ => None,
    });
    let ranges: Vec<(&[u8], &[u8])> = ranges.collect::<Option<_>>()?;
    let (first, last) = (ranges.iter().map(|range| range.0).min()?, ranges.iter().map(|range| range.1).max()?);
    Some(first.into()..=last.into())
}
