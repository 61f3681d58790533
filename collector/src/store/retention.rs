//! Which files lie in the data directory, which of them a crash left, and which go when they take too much space.
//!
//! Only files of this node count, and only those whose path is one of the record; anything else is left alone. Manifests
//! stay when their files go, because each is a link of the node's chain. The cap takes flows first, the oldest first, and
//! only when no flows are left gaps and the collectors' own tables. Change logs stay: past moments are evaluated with
//! them, and an old row may still describe the present. They are small.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::TimeDelta;
use netverdict_flowlog::{
    Table,
    file::{is_unfinished, is_unfinished_manifest},
    manifest::{LaneCounts, Link, Manifest},
    path::{ManifestPath, SegmentPath},
    read,
    row::{GapCause, GapRow, Row},
};
use netverdict_service::error_chain::chain;

use super::{error::StoreError, options::StoreOptions, step::Step, tally::Tally};

/// Key of a file's metadata in format version 1, which had no manifests: its [`LaneCounts`] as JSON.
const LANES: &str = "netverdict.lanes";

/// Folders below each other: table, cluster, date, hour.
const DEPTH: usize = 4;

/// When the cap is exceeded, so much less is kept that it is not exceeded again at once.
const SLACK_PERCENT: u64 = 5;

/// This node's files.
pub(super) struct Files {
    whole: Vec<(SegmentPath, u64)>,
    manifests: Vec<(ManifestPath, u64)>,
    /// Names of writes that never ended.
    unfinished: Vec<PathBuf>,
}

/// Files to remove.
pub(super) struct Expired {
    pub(super) paths: Vec<SegmentPath>,
    pub(super) bytes: u64,
    /// Gaps recorded in their place.
    pub(super) gaps: Vec<Row>,
    /// Bytes that stay.
    pub(super) left: u64,
}

impl Files {
    pub(super) fn scan(options: &StoreOptions) -> Result<Self, StoreError> {
        let mut files = Self { whole: Vec::new(), manifests: Vec::new(), unfinished: Vec::new() };
        for table in Table::ALL {
            files.walk(options, &options.data_dir.join(table.name()), DEPTH)?;
        }
        files.walk(options, &ManifestPath::folder(&options.data_dir, &options.cluster, &options.node), 0)?;
        Ok(files)
    }

    fn walk(&mut self, options: &StoreOptions, folder: &Path, depth: usize) -> Result<(), StoreError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // Removed meanwhile, by compaction for instance.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(StoreError::io(folder, source)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| StoreError::io(folder, source))?;
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth > 0 {
                self.walk(options, &path, depth - 1)?;
            } else if kind.is_file() {
                self.add(options, path, || entry.metadata().map_or(0, |metadata| metadata.len()));
            }
        }
        Ok(())
    }

    fn add(&mut self, options: &StoreOptions, path: PathBuf, length: impl Fn() -> u64) {
        let own = |segment: &SegmentPath| segment.node() == options.node;
        if let Some(segment) = SegmentPath::of_file(&options.data_dir, &path).filter(own) {
            self.whole.push((segment, length()));
        } else if let Some(manifest) = ManifestPath::of_file(&options.data_dir, &path) {
            self.manifests.push((manifest, length()));
        } else if is_unfinished(&options.data_dir, &path).as_ref().is_some_and(own)
            || is_unfinished_manifest(&options.data_dir, &path).is_some()
        {
            self.unfinished.push(path);
        }
    }

    /// 0 for none.
    pub(super) fn newest_segment(&self) -> u64 {
        let files = self.whole.iter().map(|(path, _)| path.segment());
        files.chain(self.manifests.iter().map(|(path, _)| path.segment())).max().unwrap_or(0)
    }

    /// Where the node's chain goes on if the state directory is lost. A newest manifest that cannot be read does not keep
    /// the collector from recording: the chain begins anew, and its verification finds the break at that segment.
    pub(super) fn newest_manifest(&self, options: &StoreOptions) -> Option<Link> {
        let newest = self.manifests.iter().map(|(path, _)| path).max_by_key(|path| path.segment())?;
        match Manifest::read(&options.data_dir, newest) {
            Ok(manifest) => Some(manifest.link()),
            Err(error) => {
                tracing::error!(
                    manifest = %newest,
                    error = %chain(&error),
                    "the node's newest manifest cannot be read: its chain of segments begins anew after it"
                );
                None
            }
        }
    }

    /// Removes leftovers of a crash: files of segments after `committed`, of any boot. Returns their number, and the
    /// bytes of the remaining files.
    pub(super) fn remove_uncommitted(
        self,
        options: &StoreOptions,
        committed: u64,
        observe: &dyn Fn(Step) -> Result<(), StoreError>,
    ) -> Result<(usize, u64), StoreError> {
        let (mut leftovers, mut bytes) = (self.unfinished, 0);
        // Manifests first: without its manifest a file no longer counts, so no reader sees half of a removed segment.
        for (path, length) in self.manifests {
            match path.segment() > committed {
                true => leftovers.push(path.below(&options.data_dir)),
                false => bytes += length,
            }
        }
        for (path, length) in self.whole {
            match path.segment() > committed {
                true => leftovers.push(path.below(&options.data_dir)),
                false => bytes += length,
            }
        }
        for path in &leftovers {
            observe(Step::Cleaning)?;
            fs::remove_file(path).map_err(|source| StoreError::io(path, source))?;
        }
        Ok((leftovers.len(), bytes))
    }

    /// Chooses the files to remove so that the rest is below the cap; `newest` never goes.
    pub(super) fn expire(self, options: &StoreOptions, cap: u64, newest: u64) -> Expired {
        let lengths = self.whole.iter().map(|(_, length)| length);
        let mut left: u64 = lengths.chain(self.manifests.iter().map(|(_, length)| length)).sum();
        let mut candidates: Vec<_> = self
            .whole
            .into_iter()
            .filter(|(path, _)| !path.table().is_change_log() && path.segment() < newest)
            .map(|(path, length)| (path.table() != Table::Flows, path, length))
            .collect();
        candidates.sort_unstable();
        let goal = cap - cap / 100 * SLACK_PERCENT;
        let mut expired = Expired { paths: Vec::new(), bytes: 0, gaps: Vec::new(), left };
        let mut tally = Tally::default();
        let node: Arc<str> = options.node.as_str().into();
        let mut counts = CountsReader { data_dir: &options.data_dir, manifests: BTreeMap::new() };
        for (_, path, length) in candidates {
            if left <= goal {
                break;
            }
            left = left.saturating_sub(length);
            expired.bytes += length;
            match counts.of(&path) {
                Some(counts) => tally.merge(counts),
                None => expired.gaps.push(uncounted(&node, &path)),
            }
            expired.paths.push(path);
        }
        expired.gaps.extend(tally.gaps(&node, GapCause::Expired, CAPPED));
        expired.left = left;
        expired
    }
}

const CAPPED: &str = "removed to stay below the cap on disk use: raise the cap to keep records longer";

/// Removes a file, and folders that are empty then. A failed removal is logged, and the file stays.
pub(super) fn remove(data_dir: &Path, path: &SegmentPath) {
    let file = path.below(data_dir);
    match fs::remove_file(&file) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::error!(error = %error, path = %file.display(), "expired file could not be removed");
            return;
        }
    }
    // The hour and the date; neither goes if anything is in it.
    for folder in file.ancestors().skip(1).take(2) {
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
}

/// Event counts of files that are about to go.
struct CountsReader<'a> {
    data_dir: &'a Path,
    /// A segment's files mostly go together. `None`: it cannot be read.
    manifests: BTreeMap<ManifestPath, Option<Manifest>>,
}

impl CountsReader<'_> {
    /// `None` where they cannot be known, or for another table than `flows`.
    fn of(&mut self, path: &SegmentPath) -> Option<Vec<LaneCounts>> {
        if path.table() != Table::Flows {
            return None;
        }
        let manifest = self
            .manifests
            .entry(path.manifest())
            .or_insert_with_key(|manifest| Manifest::read(self.data_dir, manifest).ok());
        if let Some(file) = manifest.as_ref().and_then(|manifest| manifest.file(path)) {
            return Some(file.lanes.clone());
        }
        let footer = read::footer(&path.below(self.data_dir)).ok()?;
        serde_json::from_str(footer.metadata.get(LANES)?).ok()
    }
}

fn uncounted(node: &Arc<str>, path: &SegmentPath) -> Row {
    let from = path.hour().start();
    let to = from.checked_add_signed(TimeDelta::hours(1)).unwrap_or(from);
    let detail = format!("rows of table {} {CAPPED}", path.table());
    Row::Gap(Box::new(GapRow::of(GapCause::Expired, node, &path.boot().into(), from, to, detail)))
}
