//! Settings of the store, and the names of the files that it writes.

use std::{path::PathBuf, time::Duration};

use netverdict_flowlog::{
    Table,
    path::{Hour, ManifestPath, PathError, SegmentPath},
};

/// How long rows wait for their file.
pub(super) const FLUSH_AFTER: Duration = Duration::from_secs(60);
/// A row group: more would not make a file better.
const FLUSH_ROWS: usize = 262_144;
const FLUSH_BYTES: usize = 256 << 20;
const MEMTABLE_ROWS: usize = 2 * FLUSH_ROWS;
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where the tables' files go. May be read by others at any time.
    pub data_dir: PathBuf,
    /// The commit record and the journal. Used by one collector alone.
    pub state_dir: PathBuf,
    pub cluster: String,
    pub node: String,
    /// A UUID in lower case.
    pub boot_id: String,
    pub flush_after: Duration,
    /// A flush is due as soon as so many rows wait,
    pub flush_rows: usize,
    /// or rows that take so many bytes of memory (an estimate).
    pub flush_bytes: usize,
    /// Flow rows in memory at most, including rows that wait because flushes fail.
    pub memtable_rows: usize,
    /// Bytes that this node's files may take; `None`: no cap.
    pub disk_cap: Option<u64>,
}

impl StoreOptions {
    /// With the defaults for everything that has one.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        state_dir: impl Into<PathBuf>,
        cluster: impl Into<String>,
        node: impl Into<String>,
        boot_id: impl Into<String>,
    ) -> Self {
        Self {
            data_dir: data_dir.into(),
            state_dir: state_dir.into(),
            cluster: cluster.into(),
            node: node.into(),
            boot_id: boot_id.into(),
            flush_after: FLUSH_AFTER,
            flush_rows: FLUSH_ROWS,
            flush_bytes: FLUSH_BYTES,
            memtable_rows: MEMTABLE_ROWS,
            disk_cap: None,
        }
    }
}

impl StoreOptions {
    pub(super) fn path(&self, table: Table, hour: Hour, segment: u64) -> Result<SegmentPath, PathError> {
        SegmentPath::new(table, &self.cluster, hour, &self.node, &self.boot_id, segment)
    }

    pub(super) fn manifest_path(&self, segment: u64) -> Result<ManifestPath, PathError> {
        ManifestPath::new(&self.cluster, &self.node, &self.boot_id, segment)
    }
}
