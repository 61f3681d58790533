//! The recorded file: every input of a live collector's pipeline, for replay elsewhere.
//!
//! Layout, little-endian: `NVRECORD`, version (`u32`), then frames: kind (`u8`), length (`u32`), CRC-32 of kind, length
//! and payload (`u32`), payload. The first frame is a header. Inputs are JSON, except batches ([`crate::batch`]); those of
//! other systems came with version 2. A file that was cut off ends at its last whole frame, and its reader gets an error there.

mod shared;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use netverdict_abi::ABI_VERSION;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::shared::SharedRecorder;
use crate::{
    batch::{ForeignBatch, RingBatch},
    input::Input,
};

const MAGIC: &[u8; 8] = b"NVRECORD";
/// Raised when a reader of today could not read the file of tomorrow.
pub const VERSION: u32 = 2;
/// Oldest version that is still read.
const OLDEST: u32 = 1;
/// Longest frame: a snapshot of a large cluster is some tens of MiB of JSON.
const MOST_BYTES: usize = 256 << 20;
const HEADER: u8 = 0;
const INPUT: u8 = 1;
const RING: u8 = 2;
const FOREIGN: u8 = 3;

/// Origin of a recording: cluster, node, boot and versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Of the events in it.
    pub abi_version: u8,
    pub cluster: String,
    pub node: String,
    pub boot_id: String,
    /// [`crate::clock::offset_ns`] when it was begun.
    pub clock_offset_ns: i64,
    /// Of the collector that wrote it.
    pub collector_version: String,
}

#[derive(Debug, Error)]
pub enum RecordingError {
    #[error("recorded file {path} cannot be {action}")]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error("{path} is no recorded file: expected it to begin with NVRECORD; make one with --record")]
    Foreign { path: PathBuf },
    #[error(
        "recorded file is of version {found}, expected {OLDEST} to {VERSION}: read it with a collector of its own version"
    )]
    Version { found: u32 },
    #[error(
        "recorded events are of ABI version {found}, expected {ABI_VERSION}: read them with a collector of their own version"
    )]
    Abi { found: u8 },
    #[error("recorded file is cut off or damaged in frame {frame}: {what}")]
    Damaged { frame: u64, what: &'static str },
    #[error("frame {frame} cannot be understood")]
    Content { frame: u64, source: serde_json::Error },
}

/// Writes a recorded file.
pub struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Recorder {
    /// # Errors
    /// The file cannot be made. An existing file is replaced.
    pub fn create(path: &Path, header: &Header) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::File { path: path.into(), action: "made", source };
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        file.write_all(MAGIC).and_then(|()| file.write_all(&VERSION.to_le_bytes())).map_err(failed)?;
        let mut recorder = Self { path: path.into(), file };
        let header = serde_json::to_vec(header).map_err(|source| RecordingError::Content { frame: 0, source })?;
        recorder.frame(HEADER, &[&header])?;
        Ok(recorder)
    }

    /// # Errors
    /// The file cannot be written: it ends with the input before.
    pub fn write(&mut self, input: &Input) -> Result<(), RecordingError> {
        match input {
            Input::Ring(batch) => self.frame(RING, &[&batch.head(), &batch.bytes]),
            Input::Foreign(batch) => self.frame(FOREIGN, &[&batch.head(), &batch.bytes]),
            other => {
                let json = serde_json::to_vec(other).map_err(|source| RecordingError::Content { frame: 0, source })?;
                self.frame(INPUT, &[&json])
            }
        }
    }

    /// # Errors
    /// The last inputs are not in the file.
    pub fn finish(mut self) -> Result<(), RecordingError> {
        self.file.flush().map_err(|source| RecordingError::File { path: self.path, action: "written", source })
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), RecordingError> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let Some(length) = u32::try_from(length).ok().filter(|length| *length as usize <= MOST_BYTES) else {
            let source = io::Error::other(format!("an input has {length} bytes, expected at most {MOST_BYTES}"));
            return Err(RecordingError::File { path: self.path.clone(), action: "written", source });
        };
        let mut sum = crc32fast::Hasher::new();
        sum.update(&[kind]);
        sum.update(&length.to_le_bytes());
        parts.iter().for_each(|part| sum.update(part));
        let write = |file: &mut BufWriter<File>| {
            file.write_all(&[kind])?;
            file.write_all(&length.to_le_bytes())?;
            file.write_all(&sum.finalize().to_le_bytes())?;
            parts.iter().try_for_each(|part| file.write_all(part))
        };
        let path = &self.path;
        write(&mut self.file).map_err(|source| RecordingError::File { path: path.clone(), action: "written", source })
    }
}

/// Reads a recorded file, input by input. After an error nothing follows.
pub struct Recording<R = BufReader<File>> {
    header: Header,
    source: R,
    frame: u64,
    ended: bool,
}

impl Recording {
    /// # Errors
    /// The file cannot be read, or is none that this collector can read.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::File { path: path.into(), action: "read", source };
        let file = File::open(path).map_err(failed)?;
        Self::read(BufReader::with_capacity(1 << 20, file)).map_err(|error| match error {
            RecordingError::Foreign { .. } => RecordingError::Foreign { path: path.into() },
            other => other,
        })
    }
}

impl<R: Read> Recording<R> {
    /// Reads the beginning of a recorded file.
    ///
    /// # Errors
    /// It is no recorded file that this collector can read.
    pub fn read(mut source: R) -> Result<Self, RecordingError> {
        let mut start = [0; 12];
        let foreign = || RecordingError::Foreign { path: PathBuf::new() };
        source.read_exact(&mut start).map_err(|_| foreign())?;
        let (magic, version) = start.split_first_chunk::<8>().ok_or_else(foreign)?;
        if magic != MAGIC {
            return Err(foreign());
        }
        let found = version.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if !(OLDEST..=VERSION).contains(&found) {
            return Err(RecordingError::Version { found });
        }
        let damaged = |what| RecordingError::Damaged { frame: 0, what };
        let Some((HEADER, payload)) = frame(&mut source, 0)? else { return Err(damaged("the header is missing")) };
        let header: Header =
            serde_json::from_slice(&payload).map_err(|source| RecordingError::Content { frame: 0, source })?;
        if header.abi_version != ABI_VERSION {
            return Err(RecordingError::Abi { found: header.abi_version });
        }
        Ok(Self { header, source, frame: 0, ended: false })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    fn step(&mut self) -> Result<Option<Input>, RecordingError> {
        self.frame += 1;
        let number = self.frame;
        let Some((kind, payload)) = frame(&mut self.source, number)? else { return Ok(None) };
        match kind {
            INPUT => serde_json::from_slice(&payload)
                .map(Some)
                .map_err(|source| RecordingError::Content { frame: number, source }),
            RING => RingBatch::decode(&payload).map(|batch| Some(Input::Ring(batch))).ok_or_else(|| no_head(number)),
            FOREIGN => {
                ForeignBatch::decode(&payload).map(|batch| Some(Input::Foreign(batch))).ok_or_else(|| no_head(number))
            }
            _ => Err(RecordingError::Damaged { frame: number, what: "its kind is not known" }),
        }
    }
}

impl<R: Read> Iterator for Recording<R> {
    type Item = Result<Input, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

fn no_head(frame: u64) -> RecordingError {
    RecordingError::Damaged { frame, what: "a batch has no head" }
}

/// Reads one frame; `None` at the end of the file.
fn frame(source: &mut impl Read, number: u64) -> Result<Option<(u8, Vec<u8>)>, RecordingError> {
    let damaged = |what| RecordingError::Damaged { frame: number, what };
    let mut kind = [0];
    match source.read(&mut kind) {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(_) => return Err(damaged("it cannot be read")),
    }
    let mut head = [0; 8];
    source.read_exact(&mut head).map_err(|_| damaged("its head is cut off"))?;
    let [l0, l1, l2, l3, s0, s1, s2, s3] = head;
    let length_bytes = [l0, l1, l2, l3];
    let (length, expected) = (u32::from_le_bytes(length_bytes) as usize, u32::from_le_bytes([s0, s1, s2, s3]));
    if length > MOST_BYTES {
        return Err(damaged("it says to be longer than any frame"));
    }
    // Grows with the bytes that are read: a length that a damaged file states must not allocate memory.
    let mut payload = Vec::with_capacity(length.min(1 << 20));
    let read = source.take(length as u64).read_to_end(&mut payload).map_err(|_| damaged("it cannot be read"))?;
    if read != length {
        return Err(damaged("its bytes are cut off"));
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(&kind);
    sum.update(&length_bytes);
    sum.update(&payload);
    if sum.finalize() != expected {
        return Err(damaged("its checksum is another"));
    }
    Ok(Some((kind[0], payload)))
}

#[cfg(test)]
mod tests {
    use netverdict_flowlog::row::{GapCause, LaneName, Receiver};

    use super::*;

    fn header() -> Header {
        Header {
            abi_version: ABI_VERSION,
            cluster: "c".into(),
            node: "n".into(),
            boot_id: "b".into(),
            clock_offset_ns: 7,
            collector_version: "0".into(),
        }
    }

    fn written(inputs: &[Input]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.nvr");
        let mut recorder = Recorder::create(&path, &header()).unwrap();
        inputs.iter().for_each(|input| recorder.write(input).unwrap());
        recorder.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    fn inputs() -> Vec<Input> {
        let batch = RingBatch { lane: LaneName::Flow, ingest_ns: -1, offset_ns: 5, bytes: vec![1, 2, 3] };
        let foreign = ForeignBatch { receiver: Receiver::Goldmane, ingest_ns: 7, bytes: b"{}".to_vec() };
        vec![
            Input::Published { number: 3, revision: 9 },
            Input::Ring(batch),
            Input::GapCause(GapCause::DiskFull),
            Input::Foreign(foreign),
        ]
    }

    #[test]
    fn inputs_come_back_in_order() {
        let bytes = written(&inputs());
        let recording = Recording::read(bytes.as_slice()).unwrap();
        assert_eq!(*recording.header(), header());
        let read: Vec<_> = recording.map(|input| format!("{:?}", input.unwrap())).collect();
        let expected: Vec<_> = inputs().iter().map(|input| format!("{input:?}")).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let bytes = written(&inputs());
        let whole = Recording::read(bytes.as_slice()).unwrap().count();
        for end in 0..bytes.len() {
            let Ok(recording) = Recording::read(&bytes[..end]) else { continue };
            let read: Vec<_> = recording.collect();
            let good = read.iter().filter(|input| input.is_ok()).count();
            assert!(good < whole, "cut at {end}: nothing is missing");
        }
        for at in 12..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let Ok(recording) = Recording::read(bytes.as_slice()) else { continue };
            assert!(recording.filter(Result::is_ok).count() < whole, "byte {at} flipped unnoticed");
        }
    }

    #[test]
    fn foreign_files_are_named_for_what_they_are() {
        assert!(matches!(Recording::read(b"PAR1".as_slice()), Err(RecordingError::Foreign { .. })));
        let mut later = written(&[]);
        later[8] = 3;
        assert!(matches!(Recording::read(later.as_slice()), Err(RecordingError::Version { found: 3 })));
    }

    #[test]
    fn files_of_version_1_are_read() {
        let mut former = written(&[Input::GapCause(GapCause::DiskFull)]);
        former[8] = 1;
        assert_eq!(Recording::read(former.as_slice()).unwrap().filter(Result::is_ok).count(), 1);
        let input: Input = serde_json::from_str(r#"{"blame":"disk_full"}"#).unwrap();
        assert!(matches!(input, Input::GapCause(GapCause::DiskFull)), "as version 1 names it: {input:?}");
    }
}
