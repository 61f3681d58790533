//! An append-only log of byte strings in numbered files, cut off cleanly wherever a crash tore it.
//!
//! A file starts with a header (`NVLOG001`, its number); then frames: length, CRC-32 of length and payload, payload,
//! all little endian. A new file is begun after [`SEGMENT_BYTES`] and at every opening, so that nothing is ever
//! appended to a file that another process wrote. The unreadable rest of a file is counted, never guessed.

mod frames;
mod layout;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use netverdict_flowlog::file::{is_disk_full, sync_folder};

pub(crate) use self::frames::{Frame, Frames};
pub use self::layout::{MAX_RECORD_BYTES, WalPosition};
use self::{
    frames::Reader,
    layout::{HEADER_BYTES, MAGIC, checksum, number_of, path_of},
};
use super::WalError;

/// A file is closed once it holds this much; one frame may make it longer.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;

/// Memory that is kept from one record to the next.
const MOST_BUFFER: usize = 4 << 20;

/// When an appended record is safe from a loss of power. From a crash of the process it is safe at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// When the kernel sees fit, some 30 s.
    None,
    /// With the first append after this long.
    Interval(Duration),
    /// With every append.
    Batch,
}

/// State of the log's end as its opening found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes at the end of the newest file that are no whole record and were cut off: a write that a crash tore.
    pub torn_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    policy: FsyncPolicy,
    /// Closed files, oldest first: number and length.
    closed: Vec<(u64, u64)>,
    active: Option<Active>,
    /// Number that the next file gets.
    next: u64,
    segment_bytes: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Active {
    file: File,
    number: u64,
    length: u64,
    synced: Instant,
    dirty: bool,
}

impl Log {
    /// Opens the log, makes its end whole again and lists its files. Positions up to `committed` need no replay, and
    /// numbers go on after it even if the files are gone.
    pub(crate) fn open(
        dir: &Path,
        policy: FsyncPolicy,
        committed: Option<WalPosition>,
    ) -> Result<(Self, Recovered), WalError> {
        let io = |source| WalError::io(dir, source);
        fs::create_dir_all(dir).map_err(io)?;
        // Of no use are durable files in a folder that a loss of power takes.
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.map_or(Ok(()), sync_folder).map_err(io)?;
        let mut closed = Vec::new();
        for entry in fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            if let Some(number) = number_of(&entry.path()) {
                closed.push((number, entry.metadata().map_err(io)?.len()));
            }
        }
        closed.sort_unstable();
        let mut recovered = Recovered::default();
        if let Some((number, length)) = closed.last_mut() {
            recovered.torn_bytes = cut_tail(&path_of(dir, *number), *number, length)?;
        }
        let last = closed.last().map_or(0, |(number, _)| *number);
        let next = last.max(committed.map_or(0, |position| position.segment)).saturating_add(1);
        let log = Self {
            dir: dir.into(),
            policy,
            closed,
            active: None,
            next,
            segment_bytes: SEGMENT_BYTES,
            buffer: Vec::new(),
        };
        Ok((log, recovered))
    }

    /// Everything after `position` that is in closed files, in order. Call it before the first append.
    pub(crate) fn replay(&self, after: Option<WalPosition>) -> Frames {
        let has_more = |(number, length): &&(u64, u64)| {
            after.is_none_or(|after| WalPosition { segment: *number, offset: *length } > after)
        };
        let files = self.closed.iter().filter(has_more).map(|(number, _)| *number).collect();
        Frames::new(&self.dir, files, after)
    }

    /// Appends one record. On an error nothing of it is in the log.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Result<WalPosition, WalError> {
        self.write(parts, false)
    }

    /// The same, and makes everything appended so far durable under every policy.
    pub(crate) fn append_durably(&mut self, parts: &[&[u8]]) -> Result<WalPosition, WalError> {
        self.write(parts, true)
    }

    fn write(&mut self, parts: &[&[u8]], durably: bool) -> Result<WalPosition, WalError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > MAX_RECORD_BYTES {
            return Err(WalError::TooLarge { found: length });
        }
        if self.active.as_ref().is_some_and(|active| active.length >= self.segment_bytes) {
            self.close()?;
        }
        if self.active.is_none() {
            self.begin()?;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        frame(&mut buffer, parts);
        let appended = self.append_frame(&buffer, durably);
        buffer.clear();
        buffer.shrink_to(MOST_BUFFER);
        self.buffer = buffer;
        appended
    }

    fn append_frame(&mut self, frame: &[u8], durably: bool) -> Result<WalPosition, WalError> {
        let Some(active) = self.active.as_mut() else {
            return Err(WalError::io(&self.dir, io::ErrorKind::NotFound.into()));
        };
        let path = path_of(&self.dir, active.number);
        if let Err(source) = active.file.write_all(frame) {
            // A part may be in the file. If it cannot be cut off, the file is left as it is, its end to be found torn
            // by the reader, and the next record goes to a new one.
            let cut = active.file.set_len(active.length);
            if cut.is_err() {
                let abandoned = (active.number, active.length);
                self.closed.push(abandoned);
                self.active = None;
            }
            return Err(WalError::io(&path, source));
        }
        active.length += frame.len() as u64;
        active.dirty = true;
        let position = WalPosition { segment: active.number, offset: active.length };
        let due = match self.policy {
            FsyncPolicy::None => false,
            FsyncPolicy::Interval(interval) => active.synced.elapsed() >= interval,
            FsyncPolicy::Batch => true,
        };
        if (due || durably)
            && let Err(error) = self.sync()
        {
            self.take_back(position.segment, position.offset - frame.len() as u64);
            return Err(error);
        }
        Ok(position)
    }

    /// A record that could not be made durable as promised is taken out again: the caller keeps its source.
    fn take_back(&mut self, segment: u64, length: u64) {
        if let Some(active) = self.active.as_mut().filter(|active| active.number == segment)
            && active.file.set_len(length).is_ok()
        {
            active.length = length;
        }
    }

    /// Makes everything appended so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), WalError> {
        if let Some(active) = self.active.as_mut().filter(|active| active.dirty) {
            active.file.sync_data().map_err(|source| WalError::io(&path_of(&self.dir, active.number), source))?;
            active.synced = Instant::now();
            active.dirty = false;
        }
        Ok(())
    }

    /// Removes files that hold nothing after `through`.
    pub(crate) fn release(&mut self, through: WalPosition) -> Result<(), WalError> {
        let all_released = |number, length| through >= WalPosition { segment: number, offset: length };
        if let Some(active) = &self.active
            && all_released(active.number, active.length)
        {
            self.close()?;
        }
        let mut failed = None;
        self.closed.retain(|(number, length)| {
            let path = path_of(&self.dir, *number);
            // A later file's position releases all earlier files, torn ends included.
            if through.segment <= *number && !all_released(*number, *length) {
                return true;
            }
            match fs::remove_file(&path) {
                Ok(()) => false,
                Err(source) if source.kind() == io::ErrorKind::NotFound => false,
                Err(source) => {
                    failed.get_or_insert(WalError::io(&path, source));
                    true
                }
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// Bytes in all files.
    pub(crate) fn bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|(_, length)| length).sum();
        closed + self.active.as_ref().map_or(0, |active| active.length)
    }

    fn begin(&mut self) -> Result<(), WalError> {
        let number = self.next;
        let path = path_of(&self.dir, number);
        let begun = || {
            // Always at the end, wherever a write that failed and was cut off had got to.
            let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            let mut header = [0; HEADER_BYTES];
            header[..8].copy_from_slice(MAGIC);
            header[8..].copy_from_slice(&number.to_le_bytes());
            file.write_all(&header)?;
            if self.policy != FsyncPolicy::None {
                file.sync_data()?;
                sync_folder(&self.dir)?;
            }
            Ok(file)
        };
        // The number is used up even if the file could not be begun.
        self.next += 1;
        let file = begun().map_err(|source| {
            let _ = fs::remove_file(&path);
            WalError::io(&path, source)
        })?;
        self.active = Some(Active { file, number, length: HEADER_BYTES as u64, synced: Instant::now(), dirty: false });
        Ok(())
    }

    /// The next append begins a new file.
    pub(crate) fn next_file(&mut self) -> Result<(), WalError> {
        match &self.active {
            Some(active) if active.length > HEADER_BYTES as u64 => self.close(),
            _ => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), WalError> {
        if self.policy != FsyncPolicy::None {
            self.sync()?;
        }
        if let Some(active) = self.active.take() {
            self.closed.push((active.number, active.length));
        }
        Ok(())
    }
}

/// Cuts off an incomplete record at the end of the newest file; returns the number of bytes cut off.
fn cut_tail(path: &Path, number: u64, length: &mut u64) -> Result<u64, WalError> {
    let io = |source| WalError::io(path, source);
    let dir = path.parent().unwrap_or(path);
    let mut reader = Reader::open(dir, number).map_err(io)?;
    let torn = loop {
        match reader.frame().map_err(io)? {
            None => break 0,
            Some(Frame::Payload(..)) => {}
            Some(Frame::Damaged(_, bytes)) => break bytes,
        }
    };
    if torn > 0 {
        *length -= torn;
        let file = OpenOptions::new().write(true).open(path).map_err(io)?;
        file.set_len(*length).and_then(|()| file.sync_all()).map_err(io)?;
    }
    Ok(torn)
}

fn frame(buffer: &mut Vec<u8>, parts: &[&[u8]]) {
    buffer.clear();
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // At most MAX_RECORD_BYTES.
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    buffer.extend_from_slice(&length);
    buffer.extend_from_slice(&checksum(&length, parts).to_le_bytes());
    for part in parts {
        buffer.extend_from_slice(part);
    }
}

impl WalError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match is_disk_full(&source) {
            true => Self::DiskFull { path, source },
            false => Self::Io { path, source },
        }
    }
}

#[cfg(test)]
impl Log {
    pub(crate) fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    pub(crate) fn cut(&mut self, position: WalPosition) {
        self.take_back(position.segment, position.offset);
    }

    /// From now on every write fails as on a full disk.
    pub(crate) fn fill_disk(&mut self) {
        if let Some(active) = &mut self.active {
            active.file = OpenOptions::new().write(true).open("/dev/full").expect("Linux has /dev/full");
        }
    }
}
