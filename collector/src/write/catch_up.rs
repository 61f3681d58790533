//! After a restart: records of the write-ahead log beyond the last commit go through the pipeline again.

use netverdict_flowlog::row::{GapCause, GapRow, Row};

use super::{WriteError, Writer};
use crate::{
    clock,
    input::Input,
    wal::{LogRecord, Replay, Replayed, WalPosition},
};

impl Writer {
    /// Replays the records of the log beyond the last commit. `meanings`: the meanings of a boot's ids.
    ///
    /// # Errors
    /// The log cannot be read, or the rows not be kept.
    pub fn replay(&mut self, replay: Replay, meanings: impl Fn(&str) -> Vec<Input>) -> Result<(), WriteError> {
        let torn = replay.recovered().torn_bytes;
        if torn > 0 {
            tracing::warn!(torn.bytes = torn, "end of the write-ahead log was torn by a crash and cut off");
        }
        let boot = self.pipeline.session().map(|session| session.boot_id.clone());
        boot.iter().flat_map(|boot| meanings(boot)).for_each(|input| self.take(None, input));
        let mut records = 0_u64;
        for replayed in replay {
            match replayed? {
                Replayed::Record(position, LogRecord::Session(session)) => {
                    records += 1;
                    let before = self.pipeline.session().map(|session| session.boot_id.clone());
                    let boot = session.boot_id.clone();
                    self.take(Some(position), Input::Session(session));
                    if before.as_ref() != Some(&boot) {
                        meanings(&boot).into_iter().for_each(|input| self.take(None, input));
                    }
                }
                Replayed::Record(position, record) => {
                    records += 1;
                    self.take(Some(position), record.into());
                }
                Replayed::Damaged(position, bytes) => self.damaged(position, bytes),
            }
            self.hand_over_if_many()?;
        }
        self.take(None, Input::GapCause(GapCause::RingFull));
        self.hand_over()?;
        tracing::info!(wal.records = records, "write-ahead log replayed");
        Ok(())
    }

    fn damaged(&mut self, position: WalPosition, bytes: u64) {
        self.through = self.through.max(Some(position));
        tracing::error!(damaged.bytes = bytes, "part of the write-ahead log cannot be read");
        self.take(None, Input::GapCause(GapCause::Unreadable));
        let Some(session) = self.pipeline.session() else { return };
        let now = clock::at(clock::now_ns());
        let detail = format!("{bytes} bytes of the write-ahead log are damaged");
        // The number of lost events follows from sequence numbers, in gaps of their own.
        let gap = GapRow::of(GapCause::Unreadable, &session.node, &session.boot_id, now, now, detail);
        self.rows.push(Row::Gap(Box::new(gap)));
    }
}
