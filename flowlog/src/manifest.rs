//! The manifest of a segment: which files it consists of, and its place in its node's chain of segments.
//!
//! A segment's files count as part of the record once its manifest is in place; a reader asks the manifest, not file
//! names. So a writer publishes all files of a segment with one rename, and a compacted segment replaces the files
//! that it supersedes in the same instant. Files of format version 1 have no manifest and count by their names.
//!
//! A manifest is two lines of JSON. The first is sealed: the next manifest of the node holds its SHA-256, so neither it
//! nor any file that it lists can change unnoticed. The second is the upload state, which changes later.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    file::{self, FileError, Written},
    path::{ManifestPath, SegmentPath},
    row::LaneName,
};

/// Key of a file's metadata: the path of the manifest that lists the file. A file without it needs no manifest.
pub const MANIFEST: &str = "netverdict.manifest";

/// Version of the layout of manifests.
const VERSION: u32 = 1;

/// A larger file is not parsed: one line for each table and hour, and each CPU's counts, stay far below.
pub const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("manifest {} could not be read", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("manifest is not readable: {found}; expected two lines of JSON: restore the file from a copy")]
    Shape { found: String },
    #[error("manifest has layout version {found}, expected up to {VERSION}: read it with a newer release")]
    Version { found: u32 },
    #[error("manifest has {found} bytes, expected at most {MAX_BYTES}")]
    TooLarge { found: u64 },
    #[error("manifest names segment {found}, expected {expected}: it was moved or renamed")]
    Misplaced { expected: Box<ManifestPath>, found: Box<ManifestPath> },
}

/// Why a copy of a file cannot be put in place.
#[derive(Debug, Error)]
pub enum CopyError {
    #[error("{path} has {bytes} bytes with SHA-256 {found}, its manifest says {expected}: it was changed or damaged")]
    Different { path: Box<SegmentPath>, bytes: usize, found: String, expected: String },
    #[error(transparent)]
    File(#[from] FileError),
}

/// One committed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    sealed: Sealed,
    /// SHA-256 of the sealed line, in hexadecimal.
    sha256: String,
    pub upload: Upload,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sealed {
    version: u32,
    path: ManifestPath,
    committed_at: DateTime<Utc>,
    files: Vec<ManifestFile>,
    previous: Option<Link>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    supersedes: Vec<SegmentPath>,
}

/// A file of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    pub path: SegmentPath,
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Of the file's bytes, in hexadecimal.
    pub sha256: String,
    /// Files of `flows`: the events that their rows count, by boot, lane and CPU. Empty for other tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneCounts>,
}

/// Events that the rows of a file stand for, on one lane of one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneCounts {
    /// The boot in which the kernel numbered the events.
    pub boot: Arc<str>,
    /// `None` for rows of other systems, as are `cpu` and the numbers.
    pub lane: Option<LaneName>,
    pub cpu: Option<u32>,
    /// Sum of `count` over the rows.
    pub events: u64,
    /// Lowest and highest number of the rows; rows of other files may lie between.
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

/// A manifest as its successor names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub path: ManifestPath,
    pub sha256: String,
}

/// Whether the segment's files are in an object store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "upload", rename_all = "snake_case")]
pub enum Upload {
    /// They are where the manifest is, and nowhere else.
    #[default]
    Local,
    /// The store confirmed all of them.
    Uploaded { at: DateTime<Utc> },
}

impl Manifest {
    /// `previous` is the node's manifest before this one; `None` only for a node's first.
    pub fn new(
        path: ManifestPath,
        committed_at: DateTime<Utc>,
        files: Vec<ManifestFile>,
        previous: Option<Link>,
        supersedes: Vec<SegmentPath>,
    ) -> Self {
        let sealed = Sealed { version: VERSION, path, committed_at, files, previous, supersedes };
        let sha256 = sha256(&line(&sealed));
        Self { sealed, sha256, upload: Upload::Local }
    }

    pub fn path(&self) -> &ManifestPath {
        &self.sealed.path
    }

    pub fn committed_at(&self) -> DateTime<Utc> {
        self.sealed.committed_at
    }

    pub fn files(&self) -> &[ManifestFile] {
        &self.sealed.files
    }

    /// The node's manifest before this one.
    pub fn previous(&self) -> Option<&Link> {
        self.sealed.previous.as_ref()
    }

    /// Files that this segment holds the rows of: a reader that reads this segment leaves them out.
    pub fn supersedes(&self) -> &[SegmentPath] {
        &self.sealed.supersedes
    }

    /// As the next manifest of the node names this one.
    pub fn link(&self) -> Link {
        Link { path: self.sealed.path.clone(), sha256: self.sha256.clone() }
    }

    /// The entry of a file.
    pub fn file(&self, path: &SegmentPath) -> Option<&ManifestFile> {
        self.sealed.files.iter().find(|file| file.path == *path)
    }

    /// Reads a manifest that was found at `path`.
    ///
    /// # Errors
    /// The bytes are no manifest, or that of another segment.
    pub fn parse(path: &ManifestPath, bytes: &[u8]) -> Result<Self, ManifestError> {
        let length = bytes.len() as u64;
        if length > MAX_BYTES {
            return Err(ManifestError::TooLarge { found: length });
        }
        let shape = |found: String| ManifestError::Shape { found };
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let sealed = lines.next().filter(|line| !line.is_empty()).ok_or_else(|| shape("it is empty".into()))?;
        let state = lines.next().ok_or_else(|| shape("its second line is missing".into()))?;
        let Version { version } = serde_json::from_slice(sealed).map_err(|error| shape(error.to_string()))?;
        if version > VERSION {
            return Err(ManifestError::Version { found: version });
        }
        let sha256 = sha256(sealed);
        let sealed: Sealed = serde_json::from_slice(sealed).map_err(|error| shape(error.to_string()))?;
        let upload = serde_json::from_slice(state).map_err(|error| shape(error.to_string()))?;
        if sealed.path != *path {
            return Err(ManifestError::Misplaced { expected: Box::new(path.clone()), found: Box::new(sealed.path) });
        }
        Ok(Self { sealed, sha256, upload })
    }

    /// # Errors
    /// The file is missing, unreadable, or no manifest of this segment.
    pub fn read(data_dir: &Path, path: &ManifestPath) -> Result<Self, ManifestError> {
        let file = path.below(data_dir);
        let io = |source| ManifestError::Io { path: file.clone(), source };
        let found = std::fs::metadata(&file).map_err(io)?.len();
        if found > MAX_BYTES {
            return Err(ManifestError::TooLarge { found });
        }
        Self::parse(path, &std::fs::read(&file).map_err(io)?)
    }

    /// Puts the manifest in place, instead of an older one of the segment, and makes that durable. The segment's files
    /// must be in place before.
    ///
    /// # Errors
    /// On an error it may be in place all the same, but not durably.
    pub fn publish(&self, data_dir: &Path) -> Result<u64, FileError> {
        let bytes = self.to_bytes();
        file::replace(data_dir, &self.sealed.path.below(data_dir), &bytes)?;
        Ok(bytes.len() as u64)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        [line(&self.sealed), line(&self.upload), Vec::new()].join(&b'\n')
    }
}

impl ManifestFile {
    pub fn new(written: &Written, lanes: Vec<LaneCounts>) -> Self {
        let Written { path, rows, bytes, sha256 } = written;
        Self { path: path.clone(), rows: *rows as u64, bytes: *bytes, sha256: sha256.clone(), lanes }
    }

    /// Whether it is below the directory, with its size.
    pub fn is_in(&self, data_dir: &Path) -> bool {
        std::fs::metadata(self.path.below(data_dir)).is_ok_and(|file| file.len() == self.bytes)
    }

    /// Puts a copy in place, and makes that durable.
    ///
    /// # Errors
    /// The bytes differ from the manifest, or cannot be written.
    pub fn place(&self, data_dir: &Path, bytes: &[u8]) -> Result<(), CopyError> {
        let found = sha256(bytes);
        if bytes.len() as u64 != self.bytes || found != self.sha256 {
            let (path, expected) = (Box::new(self.path.clone()), self.sha256.clone());
            return Err(CopyError::Different { path, bytes: bytes.len(), found, expected });
        }
        Ok(file::replace(data_dir, &self.path.below(data_dir), bytes)?)
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Only maps with keys that are no text, and failing writers, make this fail.
    serde_json::to_vec(value).unwrap_or_default()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Table, path::Hour};

    const BOOT: &str = "3f2b8c1e-5a77-4d09-9b1c-0123456789ab";

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn file(table: Table, segment: u64) -> ManifestFile {
        let hour = Hour::of(time("2026-11-19T08:00:00Z"));
        ManifestFile {
            path: SegmentPath::new(table, "prod", hour, "node-1", BOOT, segment).unwrap(),
            rows: 3,
            bytes: 100,
            sha256: "ab".repeat(32),
            lanes: vec![LaneCounts {
                boot: BOOT.into(),
                lane: Some(LaneName::Denied),
                cpu: Some(1),
                events: 5,
                first_seq: Some(1),
                last_seq: Some(9),
                from: time("2026-11-19T08:00:00Z"),
                to: time("2026-11-19T08:01:00Z"),
            }],
        }
    }

    fn manifest(segment: u64, previous: Option<Link>) -> Manifest {
        let file = file(Table::Flows, segment);
        let path = file.path.manifest();
        Manifest::new(path, time("2026-11-19T08:02:00Z"), vec![file], previous, Vec::new())
    }

    #[test]
    fn what_was_published_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = manifest(1, None);
        first.publish(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path(), first.path()).unwrap(), first);
        let second = manifest(2, Some(first.link()));
        second.publish(dir.path()).unwrap();
        let read = Manifest::read(dir.path(), second.path()).unwrap();
        assert_eq!(read.previous(), Some(&first.link()));
        assert!(read.file(&file(Table::Flows, 2).path).is_some());
        assert!(read.file(&file(Table::Gaps, 2).path).is_none());
    }

    #[test]
    fn the_upload_state_changes_without_breaking_the_chain() {
        let mut manifest = manifest(1, None);
        let link = manifest.link();
        manifest.upload = Upload::Uploaded { at: time("2026-11-19T09:00:00Z") };
        let read = Manifest::parse(manifest.path(), &manifest.to_bytes()).unwrap();
        assert_eq!(read.upload, manifest.upload);
        assert_eq!(read.link(), link);
    }

    #[test]
    fn a_changed_file_entry_changes_the_link() {
        let manifest = manifest(1, None);
        let text = String::from_utf8(manifest.to_bytes()).unwrap();
        let forged = text.replace("\"rows\":3", "\"rows\":2");
        assert_ne!(text, forged);
        let read = Manifest::parse(manifest.path(), forged.as_bytes()).unwrap();
        assert_ne!(read.link(), manifest.link());
    }

    #[test]
    fn a_copy_that_differs_from_its_manifest_is_not_put_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let good = b"the bytes of a file";
        let entry = ManifestFile { bytes: good.len() as u64, sha256: sha256(good), ..file(Table::Flows, 1) };
        assert!(matches!(entry.place(dir.path(), b"the bytes of a fine"), Err(CopyError::Different { .. })));
        assert!(matches!(entry.place(dir.path(), b"the bytes"), Err(CopyError::Different { .. })));
        assert!(!entry.is_in(dir.path()));
        entry.place(dir.path(), good).unwrap();
        assert!(entry.is_in(dir.path()));
    }

    #[test]
    fn damaged_and_foreign_manifests_are_refused() {
        let good = manifest(1, None);
        let bytes = good.to_bytes();
        for end in 0..bytes.len() - 1 {
            assert!(Manifest::parse(good.path(), &bytes[..end]).is_err(), "cut at {end}");
        }
        let elsewhere = manifest(2, None);
        assert!(matches!(Manifest::parse(elsewhere.path(), &bytes), Err(ManifestError::Misplaced { .. })));
        let later = String::from_utf8(bytes).unwrap().replacen("\"version\":1", "\"version\":9", 1);
        assert!(matches!(Manifest::parse(good.path(), later.as_bytes()), Err(ManifestError::Version { found: 9 })));
    }
}
