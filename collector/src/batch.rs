//! Batches: undecoded deliveries of a source, and their bytes in the write-ahead log and in recorded files.

use netverdict_flowlog::row::{LaneName, Receiver};

use crate::codes;

/// Events of our own probe as they were drained from a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingBatch {
    pub lane: LaneName,
    /// When it was drained, in nanoseconds since 1970.
    pub ingest_ns: i64,
    /// [`crate::clock::offset_ns`] at that moment.
    pub offset_ns: i64,
    /// As [`netverdict_probe::Batch`] holds it.
    pub bytes: Vec<u8>,
}

/// A delivery of another system, or a part of it, as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignBatch {
    /// Never `ring`.
    pub receiver: Receiver,
    /// When it was received, in nanoseconds since 1970.
    pub ingest_ns: i64,
    /// Whole records in the format of the other system.
    pub bytes: Vec<u8>,
}

impl RingBatch {
    /// Header before [`Self::bytes`], little-endian: lane (`u8`), ingest time and clock offset (`i64` each).
    pub(crate) fn head(&self) -> [u8; 17] {
        let mut head = [0; 17];
        head[0] = codes::lane_number(self.lane);
        head[1..9].copy_from_slice(&self.ingest_ns.to_le_bytes());
        head[9..].copy_from_slice(&self.offset_ns.to_le_bytes());
        head
    }

    /// `None` for bytes that begin with no such head.
    pub(crate) fn decode(written: &[u8]) -> Option<Self> {
        let (&lane, rest) = written.split_first()?;
        let (ingest, rest) = rest.split_first_chunk()?;
        let (offset, bytes) = rest.split_first_chunk()?;
        Some(Self {
            lane: codes::lane_of(lane)?,
            ingest_ns: i64::from_le_bytes(*ingest),
            offset_ns: i64::from_le_bytes(*offset),
            bytes: bytes.to_vec(),
        })
    }
}

impl ForeignBatch {
    /// Header before [`Self::bytes`], little-endian: receiver (`u8`), ingest time (`i64`).
    pub(crate) fn head(&self) -> [u8; 9] {
        let mut head = [0; 9];
        head[0] = codes::receiver_number(self.receiver);
        head[1..].copy_from_slice(&self.ingest_ns.to_le_bytes());
        head
    }

    /// `None` for bytes that begin with no such head.
    pub(crate) fn decode(written: &[u8]) -> Option<Self> {
        let (&receiver, rest) = written.split_first()?;
        let (ingest, bytes) = rest.split_first_chunk()?;
        Some(Self {
            receiver: codes::receiver_of(receiver).filter(|receiver| *receiver != Receiver::Ring)?,
            ingest_ns: i64::from_le_bytes(*ingest),
            bytes: bytes.to_vec(),
        })
    }
}
