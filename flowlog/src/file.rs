//! Files of the record: written so that a reader finds a complete file or none.
//!
//! Callers use [`prepare`] and [`Prepared::publish`]. Another encoder than Arrow's writer goes through [`prepare_with`]: it
//! brings the bytes, and naming, syncing and metadata stay here. A file that is being written has a name that no reader
//! takes for one of the record.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arrow::array::RecordBatch;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    },
    schema::types::ColumnPath,
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    FORMAT_VERSION,
    layout::{Pages, Storage},
    path::{ManifestPath, SegmentPath},
    schema::{Table, VERSION},
};

/// Keys of a file's metadata, besides [`VERSION`].
pub const NODE: &str = "netverdict.node";
pub const BOOT: &str = "netverdict.boot";
pub const SEGMENT: &str = "netverdict.segment";
pub const CLUSTER: &str = "netverdict.cluster";

/// A file's name has this suffix, and the prefix below, until the file is complete.
const UNFINISHED: &str = ".tmp";
const HIDDEN: &str = ".";

/// Rows in a row group at most.
const GROUP_ROWS: usize = 262_144;
/// Rows in a page: the unit that a reader skips or reads at once.
const PAGE_ROWS: usize = 16_384;
const WRITE_ROWS: usize = 8_192;
/// Above this size the writer falls back to plain pages, and the column becomes several times larger.
const DICTIONARY_BYTES: usize = 16 << 20;
/// One in a hundred row groups is read although it does not have the value.
const FALSE_POSITIVES: f64 = 0.01;
/// Higher levels cost more than they save (a tenth of the bytes for twice the time).
const ZSTD_LEVEL: i32 = 1;

#[derive(Debug, Error)]
pub enum FileError {
    #[error("disk is full while writing {}: free space or lower the cap on disk use", path.display())]
    DiskFull { path: PathBuf, source: io::Error },
    #[error("{} could not be written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} could not be encoded as Parquet", path.display())]
    Encode { path: PathBuf, source: ParquetError },
}

impl FileError {
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }

    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match is_disk_full(&source) {
            true => Self::DiskFull { path, source },
            false => Self::Io { path, source },
        }
    }
}

/// Whether more space would help: the device or the quota is used up.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A complete file of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub path: SegmentPath,
    pub rows: usize,
    /// Size of the file.
    pub bytes: u64,
    /// Of the file's bytes, in hexadecimal.
    pub sha256: String,
}

/// A complete file, synced, under a name that no reader looks at. Dropped, it is removed.
#[derive(Debug)]
pub struct Prepared {
    written: Written,
    temporary: PathBuf,
    target: PathBuf,
    published: bool,
}

/// Writes batches of `path`'s table to a temporary name beside `path` and syncs them. `extra` goes to the file's
/// metadata beside the entries that every file has.
pub fn prepare(
    data_dir: &Path,
    path: &SegmentPath,
    batches: &[RecordBatch],
    extra: &[(&str, String)],
) -> Result<Prepared, FileError> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    prepare_with(data_dir, path, rows, extra, |out, properties| {
        let mut writer = ArrowWriter::try_new(out, path.table().bare_schema(), Some(properties))?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.into_inner()
    })
}

/// Like [`prepare`], for `rows` rows that `encode` writes as Parquet under the properties given. It returns what it wrote
/// to, all of it flushed.
pub fn prepare_with(
    data_dir: &Path,
    path: &SegmentPath,
    rows: usize,
    extra: &[(&str, String)],
    encode: impl FnOnce(Out, WriterProperties) -> Result<Out, ParquetError>,
) -> Result<Prepared, FileError> {
    let target = path.below(data_dir);
    let temporary = temporary_name(&target);
    let io = |source| FileError::io(&target, source);
    let folder = parent(&target);
    if !folder.is_dir() {
        create_folders(data_dir, folder).map_err(io)?;
    }
    let file = File::create(&temporary).map_err(io)?;
    let written = Written { path: path.clone(), rows, bytes: 0, sha256: String::new() };
    // From here on the temporary file is removed if anything fails.
    let mut prepared = Prepared { written, temporary, target: target.clone(), published: false };
    let failed = Arc::new(OnceLock::new());
    let out = Out { file, failed: failed.clone(), hash: Sha256::new() };
    let Out { file, hash, .. } = encode(out, properties(path, rows, extra)).map_err(|source| {
        // The encoder reports a failed write in words only.
        match failed.get() {
            Some(kind) => FileError::io(&target, (*kind).into()),
            None => FileError::Encode { path: target.clone(), source },
        }
    })?;
    file.sync_all().map_err(io)?;
    prepared.written.bytes = file.metadata().map_err(io)?.len();
    prepared.written.sha256 = hex::encode(hash.finalize());
    Ok(prepared)
}

/// The file that an encoder writes to. It is hashed as it is written, and remembers why it could not be written to.
#[derive(Debug)]
pub struct Out {
    file: File,
    failed: Arc<OnceLock<io::ErrorKind>>,
    hash: Sha256,
}

impl Out {
    fn remember<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed.get_or_init(|| error.kind());
            }
        })
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        if let Ok(length) = written {
            self.hash.update(&bytes[..length]);
        }
        self.remember(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.remember(flushed)
    }
}

impl Prepared {
    /// Gives the file its name, in place of an older one of the same name, and syncs the folder. If only that last
    /// step fails the file is there, but may be gone after a loss of power.
    pub fn publish(mut self) -> Result<Written, FileError> {
        let io = |source| FileError::io(&self.target, source);
        fs::rename(&self.temporary, &self.target).map_err(io)?;
        self.published = true;
        sync_folder(parent(&self.target)).map_err(|source| FileError::io(&self.target, source))?;
        Ok(self.written.clone())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.published {
            // A file left behind is found by [`is_unfinished`] later.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a file in one go.
pub fn write(
    data_dir: &Path,
    path: &SegmentPath,
    batches: &[RecordBatch],
    extra: &[(&str, String)],
) -> Result<Written, FileError> {
    prepare(data_dir, path, batches, extra)?.publish()
}

/// Puts a small file in place, instead of an older one, and makes it and its folder durable.
pub(crate) fn replace(data_dir: &Path, target: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = temporary_name(target);
    let io = |source| FileError::io(target, source);
    let folder = parent(target);
    if !folder.is_dir() {
        create_folders(data_dir, folder).map_err(io)?;
    }
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, target));
    if written.is_err() {
        // As in `Prepared`: a later clean-up finds it by its name.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(folder)).map_err(io)
}

/// The segment that a leftover of an interrupted write would have become; `None` for any other file.
pub fn is_unfinished(data_dir: &Path, file: &Path) -> Option<SegmentPath> {
    SegmentPath::of_file(data_dir, &finished_name(file)?)
}

/// The same for a manifest.
pub fn is_unfinished_manifest(data_dir: &Path, file: &Path) -> Option<ManifestPath> {
    ManifestPath::of_file(data_dir, &finished_name(file)?)
}

/// The name that a temporary file would have got.
fn finished_name(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?.strip_prefix(HIDDEN)?.strip_suffix(UNFINISHED)?;
    Some(file.with_file_name(name))
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn temporary_name(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{HIDDEN}{name}{UNFINISHED}"))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn create_folders(data_dir: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for folder in folder.ancestors().take_while(|folder| folder.starts_with(data_dir)) {
        sync_folder(folder)?;
    }
    Ok(())
}

fn properties(path: &SegmentPath, rows: usize, extra: &[(&str, String)]) -> WriterProperties {
    let own = [
        (VERSION, FORMAT_VERSION.to_string()),
        (NODE, path.node().to_owned()),
        (BOOT, path.boot().to_owned()),
        (SEGMENT, path.segment().to_string()),
        (CLUSTER, path.cluster().to_owned()),
    ];
    let metadata = own.iter().chain(extra).map(|(key, value)| KeyValue::new((*key).into(), value.clone())).collect();
    let builder = WriterProperties::builder()
        .set_created_by(concat!("netverdict ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(WRITE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_key_value_metadata(Some(metadata));
    let sorted_by = (path.table() == Table::Flows).then(|| leaf(Table::Flows, "attribution_id")).flatten();
    let sorting = |column_idx| vec![SortingColumn { column_idx, descending: false, nulls_first: false }];
    stored(builder, path.table(), rows).set_sorting_columns(sorted_by.map(sorting)).build()
}

/// As the columns are declared.
fn stored(builder: WriterPropertiesBuilder, table: Table, rows: usize) -> WriterPropertiesBuilder {
    let distinct = rows.clamp(1, GROUP_ROWS) as u64;
    // Statistics cost a good part of all writing, so large files have them only where queries prune by them.
    let everywhere = table != Table::Flows;
    let mut builder = builder;
    if !everywhere {
        builder = builder.set_statistics_enabled(EnabledStatistics::None);
    }
    for column in table.declared() {
        let Storage { statistics, filter, encoding } = column.storage;
        let path = || ColumnPath::from(column.name.as_str());
        if statistics && !everywhere {
            builder = builder.set_column_statistics_enabled(path(), EnabledStatistics::Page);
        }
        if filter {
            builder = builder
                .set_column_bloom_filter_fpp(path(), FALSE_POSITIVES)
                .set_column_bloom_filter_max_ndv(path(), distinct);
        }
        let encoding = match encoding {
            Pages::Dictionary => continue,
            Pages::Delta => Encoding::DELTA_BINARY_PACKED,
            Pages::Plain => {
                builder = builder.set_column_statistics_enabled(path(), EnabledStatistics::None);
                Encoding::PLAIN
            }
        };
        builder = builder.set_column_dictionary_enabled(path(), false).set_column_encoding(path(), encoding);
    }
    builder
}

/// The number of a column in a file. Parquet counts leaves, Arrow counts columns.
fn leaf(table: Table, column: &str) -> Option<i32> {
    let before = table.declared().iter().take_while(|declared| declared.name != column);
    i32::try_from(before.map(|declared| leaves(&declared.data_type)).sum::<usize>()).ok()
}

fn leaves(data_type: &arrow::datatypes::DataType) -> usize {
    use arrow::datatypes::DataType;
    match data_type {
        DataType::List(item) => leaves(item.data_type()),
        DataType::Map(entry, _) => leaves(entry.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| leaves(field.data_type())).sum(),
        _ => 1,
    }
}
