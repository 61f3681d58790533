//! Rows into the store, and from there into files: when it is time, and waiting while it cannot be done.

use std::time::Instant;

use netverdict_flowlog::row::Row;

use super::{MOST_ROWS, PAUSE, WriteError, Writer, facts::append_rows};
use netverdict_service::{error_chain::chain, queue::QueueSender};

use crate::{health::Part, metrics::signed, wal::WalPosition};

impl Writer {
    /// Gives the rows made so far to the store.
    pub(super) fn hand_over(&mut self) -> Result<(), WriteError> {
        self.handed_over = Instant::now();
        let tally = self.pipeline.take_tally();
        self.metrics.tally(&tally);
        for refusal in &tally.refusals {
            tracing::warn!(event.refusal = %refusal, "event or report cannot be read");
        }
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() && self.through == self.checkpointed {
            return Ok(());
        }
        self.metrics.rows(&rows);
        for row in &rows {
            if let Row::Gap(gap) = row {
                self.lost += gap.lost_events;
            }
        }
        match self.through {
            Some(through) => {
                let checkpoint = serde_json::to_string(&self.pipeline.checkpoint()).map_err(WriteError::Checkpoint)?;
                let appended = self.store.append_checkpointed(rows, through, checkpoint)?;
                self.checkpointed = Some(through);
                if appended.dropped > 0 {
                    self.lost += appended.dropped;
                    self.metrics.dropped(appended.dropped);
                    tracing::error!(events.dropped = appended.dropped, "no room for rows; a gap stands for them");
                }
            }
            // Nothing has been logged yet, so nothing has been read.
            None => _ = append_rows(&self.store, &self.metrics, rows),
        }
        Ok(())
    }

    /// Gives rows to the store once they are many, and writes files when it is time. For inputs that come from a file:
    /// they can wait.
    ///
    /// # Errors
    /// The rows cannot be accounted for.
    pub fn hand_over_if_many(&mut self) -> Result<(), WriteError> {
        if self.rows.len() < MOST_ROWS {
            return Ok(());
        }
        self.hand_over()?;
        // The log is released at the next commit.
        let nobody = QueueSender::disconnected();
        self.commit_when_due(&nobody);
        Ok(())
    }

    /// Writes files when it is time, and waits while memory holds more rows than it is meant for: meanwhile the rings
    /// keep new events, and count those that they cannot keep.
    pub(super) fn commit_when_due(&mut self, released: &QueueSender<WalPosition>) {
        self.commit_if_due(released);
        while self.store.unflushed_rows() >= self.store.options().memtable_rows && !self.stop.is_requested() {
            std::thread::sleep(PAUSE);
            self.commit_if_due(released);
        }
    }

    fn commit_if_due(&mut self, released: &QueueSender<WalPosition>) {
        if self.store.due(Instant::now()) {
            // The failure is in health; the next attempt comes when a flush is due again.
            let _ = self.commit(released);
        }
    }

    /// Commits everything that was taken.
    ///
    /// # Errors
    /// The rows cannot be accounted for.
    pub fn finish(&mut self, released: &QueueSender<WalPosition>) -> Result<(), WriteError> {
        self.pipeline.flush(&mut self.rows);
        self.hand_over()?;
        for attempt in 0.. {
            match self.commit(released) {
                Ok(()) => break,
                Err(error) if attempt >= 2 => {
                    tracing::error!(error = %chain(&error), "rows remain in the write-ahead log and are replayed at the next start");
                    break;
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        Ok(())
    }

    fn commit(&mut self, released: &QueueSender<WalPosition>) -> Result<(), WriteError> {
        self.pipeline.flush(&mut self.rows);
        self.hand_over()?;
        let low_watermark = self.pipeline.low_watermark();
        let began = Instant::now();
        let flushed = match self.store.flush() {
            Ok(flushed) => flushed,
            Err(error) => {
                self.metrics.failed(Part::Store);
                if self.health.set(Part::Store, vec![chain(&error)]) {
                    tracing::error!(error = %chain(&error), "rows cannot be written to files");
                }
                return Err(error.into());
            }
        };
        self.metrics.flushed();
        self.metrics.flush_seconds.observe(began.elapsed().as_secs_f64());
        let over = "the data directory exceeds --disk-cap, and what is left may not be removed: raise the cap";
        self.health.set(Part::Store, if flushed.over_cap { vec![over.to_owned()] } else { Vec::new() });
        for path in &flushed.removed {
            tracing::warn!(file.path = %path, "removed to stay below the cap on disk use");
        }
        tracing::debug!(
            segment.number = flushed.segment,
            segment.rows = flushed.rows,
            segment.files = flushed.files.len(),
            segment.bytes = signed(flushed.bytes),
            "segment written"
        );
        if let Some(through) = flushed.wal {
            // Without room, the next position releases this part of the log as well; if the drain has ended, the next
            // start does.
            let _ = released.try_send(through);
        }
        // Events of revisions below the watermark of the commit before are in files now: their snapshots are needed no
        // more.
        let forgotten = self.pipeline.forget_snapshots_before(self.low_watermark);
        self.low_watermark = low_watermark;
        if let Some(snapshots) = &self.snapshots
            && let Some(number) = forgotten
            && let Err(error) = snapshots.forget_through(number)
        {
            tracing::warn!(error = %chain(&error), "kept snapshots not removed");
        }
        Ok(())
    }
}
