//! Reading a log's files back, frame by frame, without ever allocating more than a file holds.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use super::layout::{FRAME_BYTES, HEADER_BYTES, MAGIC, MAX_RECORD_BYTES, checksum, path_of};
use crate::wal::{WalError, WalPosition};

/// A frame as replay finds it.
#[derive(Debug)]
pub(crate) enum Frame {
    Payload(WalPosition, Vec<u8>),
    /// The rest of a file that cannot be read. The position is the file's end.
    Damaged(WalPosition, u64),
}

/// Frames of the files, oldest first.
#[derive(Debug)]
pub(crate) struct Frames {
    dir: PathBuf,
    /// Still to come, newest first.
    files: Vec<u64>,
    after: Option<WalPosition>,
    current: Option<Reader>,
}

impl Frames {
    /// Frames after position `after` in the files, whose numbers are in order.
    pub(super) fn new(dir: &Path, mut files: Vec<u64>, after: Option<WalPosition>) -> Self {
        files.reverse();
        Self { dir: dir.into(), files, after, current: None }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(reader) = &mut self.current {
                match reader.frame() {
                    Ok(Some(frame)) => {
                        let position = match &frame {
                            Frame::Payload(position, _) | Frame::Damaged(position, _) => *position,
                        };
                        if self.after.is_some_and(|after| position <= after) {
                            continue;
                        }
                        return Some(Ok(frame));
                    }
                    Ok(None) => self.current = None,
                    Err(source) => {
                        let path = path_of(&self.dir, reader.number);
                        self.current = None;
                        return Some(Err(WalError::io(&path, source)));
                    }
                }
            }
            let number = self.files.pop()?;
            match Reader::open(&self.dir, number) {
                Ok(reader) => self.current = Some(reader),
                Err(source) => return Some(Err(WalError::io(&path_of(&self.dir, number), source))),
            }
        }
    }
}

/// Reads one file from its start.
#[derive(Debug)]
pub(super) struct Reader {
    file: BufReader<File>,
    number: u64,
    length: u64,
    offset: u64,
}

impl Reader {
    pub(super) fn open(dir: &Path, number: u64) -> io::Result<Self> {
        let file = File::open(path_of(dir, number))?;
        let length = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(1 << 16, file), number, length, offset: 0 })
    }

    /// `None` at the end. After a damaged frame comes the end.
    pub(super) fn frame(&mut self) -> io::Result<Option<Frame>> {
        if self.offset == self.length {
            return Ok(None);
        }
        if self.offset == 0 && !self.header()? {
            return Ok(Some(self.damaged()));
        }
        if self.offset == self.length {
            return Ok(None);
        }
        let Some(rest) = (self.length - self.offset).checked_sub(FRAME_BYTES as u64) else {
            return Ok(Some(self.damaged()));
        };
        let mut head = [0; FRAME_BYTES];
        self.file.read_exact(&mut head)?;
        let [a, b, c, d, sum @ ..] = head;
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        // Checked before anything is allocated: never more than the file holds.
        if length > rest || length > MAX_RECORD_BYTES as u64 {
            return Ok(Some(self.damaged()));
        }
        let mut payload = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut payload)?;
        if payload.len() as u64 != length || checksum(&[a, b, c, d], &[&payload]) != u32::from_le_bytes(sum) {
            return Ok(Some(self.damaged()));
        }
        self.offset += FRAME_BYTES as u64 + length;
        Ok(Some(Frame::Payload(self.position(), payload)))
    }

    fn header(&mut self) -> io::Result<bool> {
        if self.length < HEADER_BYTES as u64 {
            return Ok(false);
        }
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact(&mut header)?;
        let fine = header.starts_with(MAGIC) && header[8..] == self.number.to_le_bytes();
        if fine {
            self.offset = HEADER_BYTES as u64;
        }
        Ok(fine)
    }

    fn damaged(&mut self) -> Frame {
        let bytes = self.length - self.offset;
        self.offset = self.length;
        Frame::Damaged(self.position(), bytes)
    }

    fn position(&self) -> WalPosition {
        WalPosition { segment: self.number, offset: self.offset }
    }
}
