//! The records of the write-ahead log: the content of each kind, its bytes, and the input of the pipeline that it becomes.
//!
//! Bytes, little-endian: layout (`u8`, now 2), kind (`u8`), then by kind
//! - 1, session: JSON of [`Session`];
//! - 2, ring batch: as [`RingBatch::head`] says, then events;
//! - 3, foreign batch: as [`ForeignBatch::head`] says, then the source's bytes.
//!
//! Layout 1 is still read, so that a log outlives an upgrade: it had ring batches only, and a session was one of lane 255
//! with JSON in place of events.

use crate::{
    batch::{ForeignBatch, RingBatch},
    input::{Input, Session},
};

const LAYOUT: u8 = 2;
const FORMER_LAYOUT: u8 = 1;
/// In place of a lane in the former layout.
const FORMER_SESSION: u8 = 0xff;

const SESSION: u8 = 1;
const RING: u8 = 2;
const FOREIGN: u8 = 3;

/// One record of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum LogRecord {
    /// A collector begins to read.
    Session(Session),
    /// A drained batch as the kernel wrote it.
    Ring(RingBatch),
    /// A delivery of another system, as it was received.
    Foreign(ForeignBatch),
}

/// A record as bytes: a head, and bytes that need no copy.
pub(super) struct Encoded<'a> {
    pub(super) head: Vec<u8>,
    pub(super) bytes: &'a [u8],
}

impl LogRecord {
    pub(super) fn encode(&self) -> Encoded<'_> {
        let mut head = vec![LAYOUT];
        let bytes: &[u8] = match self {
            Self::Session(session) => {
                head.push(SESSION);
                // A session is text and two numbers: JSON refuses nothing of it.
                head.extend(serde_json::to_vec(session).unwrap_or_default());
                &[]
            }
            Self::Ring(batch) => {
                head.push(RING);
                head.extend(batch.head());
                &batch.bytes
            }
            Self::Foreign(batch) => {
                head.push(FOREIGN);
                head.extend(batch.head());
                &batch.bytes
            }
        };
        Encoded { head, bytes }
    }

    /// `None` for bytes that no collector of this or an earlier version wrote.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (&layout, rest) = payload.split_first()?;
        match layout {
            LAYOUT => {
                let (&kind, rest) = rest.split_first()?;
                match kind {
                    SESSION => serde_json::from_slice(rest).ok().map(Self::Session),
                    RING => RingBatch::decode(rest).map(Self::Ring),
                    FOREIGN => ForeignBatch::decode(rest).map(Self::Foreign),
                    _ => None,
                }
            }
            FORMER_LAYOUT if rest.first() == Some(&FORMER_SESSION) => {
                let json = rest.get(1 + 2 * size_of::<i64>()..)?;
                serde_json::from_slice(json).ok().map(Self::Session)
            }
            FORMER_LAYOUT => RingBatch::decode(rest).map(Self::Ring),
            _ => None,
        }
    }
}

impl From<LogRecord> for Input {
    fn from(record: LogRecord) -> Self {
        match record {
            LogRecord::Session(session) => Self::Session(session),
            LogRecord::Ring(batch) => Self::Ring(batch),
            LogRecord::Foreign(batch) => Self::Foreign(batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use netverdict_flowlog::row::{LaneName, ModeName, Receiver};

    use super::*;

    fn session() -> Session {
        Session { node: "n".into(), boot_id: "b".into(), mode: ModeName::Audit, fresh: true, time_ns: 7 }
    }

    fn decoded(record: &LogRecord) -> Option<LogRecord> {
        let Encoded { head, bytes } = record.encode();
        LogRecord::decode(&[&head, bytes].concat())
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let records = [
            LogRecord::Session(session()),
            LogRecord::Ring(RingBatch { lane: LaneName::Flow, ingest_ns: -1, offset_ns: 5, bytes: vec![1, 2] }),
            LogRecord::Foreign(ForeignBatch { receiver: Receiver::Goldmane, ingest_ns: 3, bytes: b"{}".to_vec() }),
        ];
        for record in records {
            assert_eq!(decoded(&record), Some(record));
        }
    }

    #[test]
    fn records_of_the_former_layout_are_read() {
        let ring = [&[1, 0][..], &9_i64.to_le_bytes(), &(-2_i64).to_le_bytes(), &[5, 6, 7]].concat();
        let batch = RingBatch { lane: LaneName::Denied, ingest_ns: 9, offset_ns: -2, bytes: vec![5, 6, 7] };
        assert_eq!(LogRecord::decode(&ring), Some(LogRecord::Ring(batch)));
        let json = br#"{"node":"n","boot_id":"b","mode":"audit","fresh":true,"time_ns":7}"#;
        let began = [&[1, 0xff][..], &7_i64.to_le_bytes(), &0_i64.to_le_bytes(), json].concat();
        assert_eq!(LogRecord::decode(&began), Some(LogRecord::Session(session())));
    }

    #[test]
    fn bytes_of_no_collector_are_no_record() {
        let strange: [&[u8]; 8] = [
            &[],
            &[2],
            &[3, 1],
            &[2, 9, 0],
            &[2, 1, b'{'],
            &[2, 2, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[2, 3, 9, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0xff, 0],
        ];
        for bytes in strange {
            assert_eq!(LogRecord::decode(bytes), None, "{bytes:?}");
        }
    }
}
