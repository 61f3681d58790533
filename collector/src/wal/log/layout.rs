//! The bytes of a log's files, and their names, as the writer writes and the reader reads them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bytes of one payload at most; longer ones are refused, because a reader would not take them.
pub const MAX_RECORD_BYTES: usize = 256 << 20;

pub(super) const MAGIC: &[u8; 8] = b"NVLOG001";
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const FRAME_BYTES: usize = 8;
const EXTENSION: &str = "log";

/// The end of a record: everything up to and including it. Grows over restarts and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WalPosition {
    /// Number of the file, from 1.
    pub segment: u64,
    /// Byte in it, from its start.
    pub offset: u64,
}

pub(super) fn checksum(length: &[u8], parts: &[&[u8]]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(length);
    for part in parts {
        sum.update(part);
    }
    sum.finalize()
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{EXTENSION}"))
}

pub(super) fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok()?;
    (path_of(path.parent()?, number) == path).then_some(number)
}
