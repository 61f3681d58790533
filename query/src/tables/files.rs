//! The files of the record: found, checked once each, left out when they cannot be read or are not committed.
//!
//! Files never change, so facts about a file hold for as long as its size and time stay the same.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    path::Path as FilePath,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use datafusion::{
    datasource::physical_plan::parquet::metadata::DFParquetMetadata,
    error::{DataFusionError, Result},
    execution::object_store::ObjectStoreUrl,
};
use futures::{FutureExt as _, StreamExt as _, stream};
use netverdict_flowlog::{Table, path::SegmentPath};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, local::LocalFileSystem, path::Path};
use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, file::metadata::PageIndexPolicy};

use super::{
    committed::Manifests,
    footer::Contents,
    segment::{FileId, Listing, Segment, left_out},
    window::Window,
};
use crate::{
    metrics::Metrics,
    notes::Notes,
    unflushed::{Boundary, Collectors},
};

/// Footers that are read at once.
const CHECKS_AT_ONCE: usize = 16;
const HOUR: i64 = 3_600_000_000;
/// Files that are examined whole, at most this large: it happens in memory.
const MAX_EXAMINED: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
#[error("data directory {path} cannot be used: {source}; name another with --data-dir")]
pub struct StoreError {
    path: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where the record is: files below a directory, and the collectors that hold the rest.
#[derive(Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    url: ObjectStoreUrl,
    collectors: Arc<Collectors>,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<Path, Known>>,
    manifests: Manifests,
    last_id: AtomicU64,
}

/// Facts about a file.
#[derive(Clone, Debug)]
struct Known {
    size: u64,
    modified: chrono::DateTime<chrono::Utc>,
    /// Tells files apart that were written within one tick of the clock.
    tag: Option<String>,
    id: FileId,
    state: State,
}

impl Known {
    fn is(&self, object: &ObjectMeta) -> bool {
        self.size == object.size && self.modified == object.last_modified && self.tag == object.e_tag
    }
}

#[derive(Clone, Debug)]
enum State {
    /// `examined`: all of it has been read once.
    Readable {
        contents: Arc<Contents>,
        examined: bool,
    },
    Unreadable {
        reason: Arc<str>,
    },
}

impl Store {
    /// Opens a local directory, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(
        directory: &FilePath,
        collectors: Arc<Collectors>,
        metrics: Arc<Metrics>,
    ) -> std::result::Result<Self, StoreError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError {
            path: directory.display().to_string(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(|error| failed(error.into()))?;
        let objects = LocalFileSystem::new_with_prefix(directory).map_err(|error| failed(error.into()))?;
        let url = ObjectStoreUrl::parse("netverdict://record").map_err(|error| failed(error.into()))?;
        Ok(Self {
            objects: Arc::new(objects),
            url,
            collectors,
            metrics,
            known: Mutex::default(),
            manifests: Manifests::default(),
            last_id: AtomicU64::default(),
        })
    }

    pub(crate) fn collectors(&self) -> &Arc<Collectors> {
        &self.collectors
    }

    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    pub(crate) fn url(&self) -> &ObjectStoreUrl {
        &self.url
    }

    /// Whether the directory can be listed.
    ///
    /// # Errors
    /// Names the reason.
    pub async fn readable(&self) -> Result<()> {
        self.folders(&Path::default()).await.map(|_| ())
    }

    /// Files found unreadable so far, with the reason, sorted.
    pub fn unreadable(&self) -> Vec<(String, String)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files: Vec<_> = known
            .iter()
            .filter_map(|(path, known)| match &known.state {
                State::Readable { .. } => None,
                State::Unreadable { reason } => Some((path.to_string(), reason.to_string())),
            })
            .collect();
        files.sort();
        files
    }

    /// Readable, committed files of a table that may hold rows of the window, oldest first, without those whose rows a
    /// collector has served already. Unreadable ones are noted.
    pub(crate) async fn list(
        &self,
        table: Table,
        window: Window,
        boundaries: &[Boundary],
        notes: &Notes,
    ) -> Result<Listing> {
        let mut found = Vec::new();
        for cluster in self.folders(&Path::from(table.name())).await? {
            for date in self.folders(&cluster).await? {
                for hour in self.folders(&date).await? {
                    found.extend(self.hour(table, &hour, window).await?);
                }
            }
        }
        let (served, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|(path, _)| {
            boundaries.iter().any(|boundary| {
                path.segment() >= boundary.segment && path.node() == boundary.node && path.boot() == boundary.boot
            })
        });
        let mut segments: Vec<Segment> = stream::iter(found)
            .map(|(path, object)| async move { (self.check(table, &object).await, path, object) })
            .buffer_unordered(CHECKS_AT_ONCE)
            .filter_map(|(known, path, object)| async move {
                let Known { id, state, .. } = known?;
                match state {
                    State::Readable { contents, .. } => Some(Segment { path, object, id, contents }),
                    State::Unreadable { reason } => {
                        left_out(notes, &path, &reason);
                        None
                    }
                }
            })
            .collect()
            .await;
        segments.sort_by(|a, b| a.path.cmp(&b.path));
        let segments = self.manifests.committed(self.objects.as_ref(), segments, notes).await?;
        let served = served.iter().filter_map(|(_, object)| Some(self.recall(object)?.id)).collect();
        Ok(Listing { segments, served })
    }

    /// The files of these that have not been found unreadable since they were listed; the others are noted.
    pub(crate) fn still_readable(&self, segments: &[Segment], notes: &Notes) -> Vec<Segment> {
        let readable = |segment: &&Segment| match self.recall(&segment.object) {
            Some(Known { state: State::Unreadable { reason }, .. }) => {
                left_out(notes, &segment.path, &reason);
                false
            }
            _ => true,
        };
        segments.iter().filter(readable).cloned().collect()
    }

    async fn folders(&self, path: &Path) -> Result<Vec<Path>> {
        match self.objects.list_with_delimiter(Some(path)).await {
            Ok(listed) => Ok(listed.common_prefixes),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(DataFusionError::from(error)),
        }
    }

    /// The segments in one hour's folder, if the window touches the hour.
    async fn hour(&self, table: Table, folder: &Path, window: Window) -> Result<Vec<(SegmentPath, ObjectMeta)>> {
        if !touches(folder, window) {
            return Ok(Vec::new());
        }
        let listed = match self.objects.list_with_delimiter(Some(folder)).await {
            Ok(listed) => listed.objects,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(DataFusionError::from(error)),
        };
        // Other names are not ours, or not yet: a writer renames a file when it is whole.
        let segment = |object: ObjectMeta| {
            let path: SegmentPath = object.location.as_ref().parse().ok()?;
            (path.table() == table).then_some((path, object))
        };
        Ok(listed.into_iter().filter_map(segment).collect())
    }

    /// Facts about a file, read from its footer if need be. `None`: it is gone.
    async fn check(&self, table: Table, object: &ObjectMeta) -> Option<Known> {
        if let Some(known) = self.recall(object) {
            return Some(known);
        }
        let reader = DFParquetMetadata::new(self.objects.as_ref(), object)
            .with_page_index_policy(Some(PageIndexPolicy::Optional));
        // A footer that claims more than the file holds makes the reader panic: that too is a file that cannot be read.
        let state = match AssertUnwindSafe(reader.fetch_metadata()).catch_unwind().await {
            Err(_panic) => State::Unreadable { reason: "its footer is damaged".into() },
            Ok(Ok(footer)) => match Contents::of(table, &footer) {
                Ok(contents) => State::Readable { contents: Arc::new(contents), examined: false },
                Err(reason) => State::Unreadable { reason: reason.into() },
            },
            Ok(Err(error)) => match error.find_root() {
                DataFusionError::ObjectStore(inner) if matches!(**inner, object_store::Error::NotFound { .. }) => {
                    return None;
                }
                _ => State::Unreadable { reason: error.strip_backtrace().into() },
            },
        };
        Some(self.remember(object, state))
    }

    /// Reads files from end to end, each once in its life, and remembers unreadable ones.
    pub(crate) async fn examine(&self, files: Vec<ObjectMeta>) {
        for object in files {
            // A file that was not listed before is not read by any statement.
            let Some(Known { state: State::Readable { contents, examined: false }, .. }) = self.recall(&object) else {
                continue;
            };
            if object.size > MAX_EXAMINED {
                continue;
            }
            let Ok(bytes) = (match self.objects.get(&object.location).await {
                Ok(got) => got.bytes().await,
                Err(error) => Err(error),
            }) else {
                // Gone, or not available now: the next listing will tell.
                continue;
            };
            let read = tokio::task::spawn_blocking(move || -> std::result::Result<(), String> {
                let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
                    .and_then(ParquetRecordBatchReaderBuilder::build)
                    .map_err(|error| error.to_string())?;
                reader.try_for_each(|batch| batch.map(|_| ()).map_err(|error| error.to_string()))
            });
            // A decoder that panics on damaged bytes has found them damaged.
            let state = match read.await.unwrap_or_else(|_| Err("its pages are damaged".into())) {
                Ok(()) => State::Readable { contents, examined: true },
                Err(reason) => State::Unreadable { reason: reason.into() },
            };
            self.remember(&object, state);
        }
    }

    fn recall(&self, object: &ObjectMeta) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&object.location).filter(|known| known.is(object)).cloned()
    }

    fn remember(&self, object: &ObjectMeta, state: State) -> Known {
        if let State::Unreadable { reason } = &state {
            tracing::warn!(file = %object.location, %reason, "file left out");
            self.metrics.skipped_files.inc();
        }
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = all.get(&object.location).filter(|known| known.is(object)).map(|known| known.id);
        let id = same.unwrap_or_else(|| self.last_id.fetch_add(1, Ordering::Relaxed));
        let (size, modified, tag) = (object.size, object.last_modified, object.e_tag.clone());
        let known = Known { size, modified, tag, id, state };
        all.insert(object.location.clone(), known.clone());
        known
    }
}

/// Whether an hour's folder (`…/date=YYYY-MM-DD/hour=HH`) has a part in a window. Folders with other names are
/// searched.
fn touches(folder: &Path, window: Window) -> bool {
    let parts: Vec<_> = folder.parts().collect();
    let value = |index: usize, name: &str| {
        let part = parts.get(parts.len().checked_sub(index)?)?.as_ref();
        part.strip_prefix(name).map(str::to_owned)
    };
    let begin = value(2, "date=").zip(value(1, "hour=")).and_then(|(date, hour)| {
        let date = chrono::NaiveDate::parse_from_str(&date, "%Y-%m-%d").ok()?;
        Some(date.and_hms_opt(hour.parse().ok()?, 0, 0)?.and_utc().timestamp_micros())
    });
    begin.is_none_or(|begin| window.touches(begin, begin.saturating_add(HOUR)))
}
