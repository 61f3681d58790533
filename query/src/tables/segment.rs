//! A file of the record that can be read, and the files of a table.

use std::sync::Arc;

use netverdict_flowlog::path::SegmentPath;
use object_store::ObjectMeta;

use super::footer::Contents;
use crate::notes::Notes;

/// Names a file for as long as this process runs. A file that takes its place has another id.
pub(crate) type FileId = u64;

/// A file to be read.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub path: SegmentPath,
    pub object: ObjectMeta,
    pub id: FileId,
    pub contents: Arc<Contents>,
}

/// The files of a table.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// To be read, oldest first.
    pub segments: Vec<Segment>,
    /// Files whose rows a collector has served already, as far as they were examined before.
    pub served: Vec<FileId>,
}

/// Notes that a file is not in the answer, and why.
pub(super) fn left_out(notes: &Notes, path: &SegmentPath, reason: &str) {
    notes.stale(format!("file {path} cannot be read and is left out: {reason}"));
}
