//! Records that were copied out of a ring, and their iterator.
//!
//! Layout: for each record its length as a little-endian `u32`, then its bytes. The same layout is written to disk, so
//! the iterator must handle a truncated batch.

use netverdict_abi::Lane;
use thiserror::Error;

/// Size of the length prefix of a record.
pub(super) const PREFIX: usize = size_of::<u32>();

/// Records of one ring, in the order in which the programs reserved them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub lane: Lane,
    /// (little-endian `u32` length, record)*.
    pub bytes: Vec<u8>,
    /// How many records `bytes` holds.
    pub records: u32,
}

impl Batch {
    /// Iterates over the records in `bytes`. [`Truncated`] is always the last item.
    pub fn records_of(bytes: &[u8]) -> Records<'_> {
        Records { rest: bytes, offset: 0 }
    }

    /// Appends a record of `length` bytes, which `copy` writes. If `copy` fails, the batch stays unchanged.
    pub(super) fn push_with(&mut self, length: usize, copy: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let start = self.bytes.len();
        // The kernel's length field has 30 bits.
        let Ok(prefix) = u32::try_from(length) else { return false };
        self.bytes.extend_from_slice(&prefix.to_le_bytes());
        if !copy(&mut self.bytes) || self.bytes.len() - start != PREFIX + length {
            self.bytes.truncate(start);
            return false;
        }
        self.records += 1;
        true
    }
}

/// The bytes end inside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("batch ends inside the record at byte {offset}: expected {expected} bytes, found {found}")]
pub struct Truncated {
    /// Where the record's length prefix begins.
    pub offset: usize,
    /// Bytes that should follow `offset`, the prefix included.
    pub expected: usize,
    pub found: usize,
}

/// Iterator of [`Batch::records_of`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = self.rest.len();
        let Some((prefix, rest)) = self.rest.split_first_chunk::<PREFIX>() else {
            return Some(Err(self.cut(PREFIX, found)));
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        let Some((record, rest)) = rest.split_at_checked(length) else {
            return Some(Err(self.cut(PREFIX.saturating_add(length), found)));
        };
        self.rest = rest;
        self.offset += PREFIX + length;
        Some(Ok(record))
    }
}

impl Records<'_> {
    fn cut(&mut self, expected: usize, found: usize) -> Truncated {
        self.rest = &[];
        Truncated { offset: self.offset, expected, found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(records: &[&[u8]]) -> Batch {
        let mut batch = Batch { lane: Lane::Flow, bytes: Vec::new(), records: 0 };
        for record in records {
            assert!(batch.push_with(record.len(), |bytes| {
                bytes.extend_from_slice(record);
                true
            }));
        }
        batch
    }

    #[test]
    fn records_come_back_in_order() {
        let batch = batch(&[b"one", b"", b"three"]);
        let read: Vec<_> = Batch::records_of(&batch.bytes).map(Result::unwrap).collect();
        assert_eq!(read, [b"one".as_slice(), b"", b"three"]);
        assert_eq!(batch.records, 3);
    }

    #[test]
    fn cut_batch_yields_whole_records_then_says_where_it_ends() {
        let batch = batch(&[b"one", b"three"]);
        for end in 8..batch.bytes.len() {
            let read: Vec<_> = Batch::records_of(&batch.bytes[..end]).collect();
            assert_eq!(read.len(), 2, "cut at {end}");
            assert_eq!(read[0], Ok(b"one".as_slice()));
            assert!(matches!(read[1], Err(Truncated { offset: 7, found, .. }) if found == end - 7), "{:?}", read[1]);
        }
    }

    #[test]
    fn length_beyond_everything_is_reported_not_allocated() {
        let error = Batch::records_of(&[0xff; 9]).next().unwrap().unwrap_err();
        assert_eq!(error.found, 9);
    }
}
