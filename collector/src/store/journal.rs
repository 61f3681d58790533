//! The journal: rows that have no other source are safe there until they are in a file. It also notes which files the disk
//! cap is about to remove, so that a crash between the note and the removal is made good.
//!
//! A record is a line of JSON with its tables and removals, then for each table an Arrow IPC stream.

use std::path::Path;

use arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use netverdict_flowlog::{Table, columns, path::SegmentPath, read, row::Row};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use crate::wal::{Frame, FsyncPolicy, Log, WalError, WalPosition};

const FOLDER: &str = "journal";

#[derive(Debug)]
pub(super) struct Journal {
    log: Log,
}

#[derive(Serialize, Deserialize)]
struct Head {
    /// Table and length of its stream, in order.
    tables: Vec<(String, usize)>,
    /// Paths below the data directory.
    removes: Vec<String>,
}

/// Contents of the journal at the start.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) rows: Vec<Row>,
    pub(super) removes: Vec<SegmentPath>,
    pub(super) through: Option<WalPosition>,
    /// Bytes that cannot be read.
    pub(super) damaged: u64,
}

impl Journal {
    /// Opens the journal with everything in it that is not in a committed segment.
    pub(super) fn open(state_dir: &Path, committed: Option<WalPosition>) -> Result<(Self, Recovered), StoreError> {
        let dir = state_dir.join(FOLDER);
        // Rows here are few, and no source repeats them, so every batch is synced.
        let (mut log, torn) = Log::open(&dir, FsyncPolicy::Batch, committed).map_err(StoreError::Journal)?;
        let mut recovered = Recovered::default();
        if torn.torn_bytes > 0 {
            // Its append never returned: no caller relies on it.
            tracing::info!(bytes = torn.torn_bytes, "end of the journal was torn and is cut off");
        }
        for frame in log.replay(committed) {
            match frame.map_err(StoreError::Journal)? {
                Frame::Payload(position, payload) => {
                    recovered.through = Some(position);
                    if decode(&payload, &mut recovered).is_none() {
                        recovered.damaged += payload.len() as u64;
                    }
                }
                Frame::Damaged(position, bytes) => {
                    recovered.through = Some(position);
                    recovered.damaged += bytes;
                }
            }
        }
        if let Some(committed) = committed {
            log.release(committed).map_err(StoreError::Journal)?;
        }
        Ok((Self { log }, recovered))
    }

    pub(super) fn append(&mut self, rows: &[Row], removes: &[SegmentPath]) -> Result<WalPosition, StoreError> {
        let mut streams = Vec::new();
        let mut head = Head { tables: Vec::new(), removes: removes.iter().map(SegmentPath::to_string).collect() };
        for table in Table::ALL {
            for batch in columns::batches(table, rows.iter().filter(|row| Table::of(row) == table))? {
                let start = streams.len();
                encode(&batch, &mut streams).map_err(|source| columns::BatchError::Schema { table, source })?;
                head.tables.push((table.name().into(), streams.len() - start));
            }
        }
        let mut line = serde_json::to_vec(&head).map_err(|source| StoreError::io(Path::new(FOLDER), source.into()))?;
        line.push(b'\n');
        self.log.append(&[&line, &streams]).map_err(StoreError::Journal)
    }

    pub(super) fn release(&mut self, through: WalPosition) -> Result<(), WalError> {
        self.log.release(through)
    }
}

fn encode(batch: &arrow::array::RecordBatch, to: &mut Vec<u8>) -> Result<(), arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(to, &batch.schema())?;
    writer.write(batch)?;
    writer.finish()
}

/// All of a record's rows, or none of them.
fn decode(payload: &[u8], recovered: &mut Recovered) -> Option<()> {
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    let (line, mut streams) = (&payload[..end], &payload[end + 1..]);
    let head: Head = serde_json::from_slice(line).ok()?;
    let mut rows = Vec::new();
    for (table, length) in head.tables {
        let table = Table::from_name(&table)?;
        let (stream, rest) = streams.split_at_checked(length)?;
        streams = rest;
        for batch in StreamReader::try_new(stream, None).ok()? {
            rows.extend(read::rows(table, &batch.ok()?).ok()?);
        }
    }
    recovered.rows.extend(rows);
    recovered.removes.extend(head.removes.iter().filter_map(|path| path.parse().ok()));
    Some(())
}
