//! The pipeline at work: inputs in, rows into the store, files when it is time.
//!
//! One thread does it all, so that whatever is committed accounts for exactly the inputs up to a position of the log.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use netverdict_flowlog::row::{CollectorRow, GapCause, GapRow, Row};
use netverdict_service::{
    error_chain::chain,
    queue::{QueueReceiver, QueueSender},
    shutdown::Shutdown,
};
use thiserror::Error;

use crate::{
    clock,
    drain::{Logged, logged_input},
    health::{Health, Part},
    input::Input,
    metrics::{Metrics, signed},
    pipeline::Pipeline,
    snapshots::Snapshots,
    store::{Store, StoreError},
    wal::{Replay, Replayed, WalError, WalPosition},
};

/// Rows are given to the store at least so often: what is there can be asked for.
const HAND_OVER: Duration = Duration::from_millis(100);
/// And as soon as there are so many.
const MOST_ROWS: usize = 8_192;
/// A collector says that it is there.
const ALIVE: Duration = Duration::from_secs(60);
/// While no file can be written and memory is full.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Error)]
pub enum WriteError {
    #[error("write-ahead log cannot be read back")]
    Log(#[from] WalError),
    #[error("rows cannot be written")]
    Store(#[from] StoreError),
    #[error("rows cannot be accounted for")]
    Checkpoint(#[source] serde_json::Error),
}

pub struct Writer {
    pub pipeline: Pipeline,
    pub store: Arc<Store>,
    pub snapshots: Option<Snapshots>,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    /// Turned when the collector is to end.
    pub stop: Shutdown,
    rows: Vec<Row>,
    through: Option<WalPosition>,
    handed_over: Instant,
    /// Snapshots older than this have been drained past, and what was drained is committed with the next rotation.
    drained: u64,
    lost: u64,
}

impl Writer {
    pub fn new(
        pipeline: Pipeline,
        store: Arc<Store>,
        snapshots: Option<Snapshots>,
        health: Arc<Health>,
        metrics: Metrics,
        stop: Shutdown,
    ) -> Self {
        Self {
            pipeline,
            store,
            snapshots,
            health,
            metrics,
            stop,
            rows: Vec::new(),
            through: None,
            handed_over: Instant::now(),
            drained: 0,
            lost: 0,
        }
    }

    /// Takes again what the log holds beyond the last commit. `meanings`: what a boot's ids mean.
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
                Replayed::Record(position, record) => {
                    records += 1;
                    match logged_input(record) {
                        Some(Input::Session(session)) => {
                            let before = self.pipeline.session().map(|session| session.boot_id.clone());
                            let boot = session.boot_id.clone();
                            self.take(Some(position), Input::Session(session));
                            if before.as_ref() != Some(&boot) {
                                meanings(&boot).into_iter().for_each(|input| self.take(None, input));
                            }
                        }
                        Some(input) => self.take(Some(position), input),
                        None => self.damaged(position, 0),
                    }
                }
                Replayed::Damaged(position, bytes) => self.damaged(position, bytes),
            }
            self.hand_over_if_many()?;
        }
        self.take(None, Input::Blame(GapCause::RingFull));
        self.hand_over()?;
        tracing::info!(wal.records = records, "write-ahead log taken again");
        Ok(())
    }

    /// Runs until nobody sends any more, then commits everything. `released`: how far the log may be released.
    ///
    /// # Errors
    /// The rows cannot be accounted for.
    pub fn run(
        mut self,
        inputs: &QueueReceiver<Logged>,
        released: &QueueSender<WalPosition>,
    ) -> Result<Self, WriteError> {
        let mut alive = Instant::now();
        loop {
            match inputs.recv_timeout(HAND_OVER) {
                Ok((position, input)) => {
                    let starts = matches!(input, Input::Session(_));
                    self.take(position, input);
                    if starts {
                        self.tell_state("started");
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if self.rows.len() >= MOST_ROWS || self.handed_over.elapsed() >= HAND_OVER {
                self.pipeline.tick(clock::boot_time_ns(), &mut self.rows);
                self.hand_over()?;
                if alive.elapsed() >= ALIVE {
                    alive = Instant::now();
                    self.tell_state("running");
                }
                self.release(released);
                // More rows than memory is meant for: the rings bridge it, and count what they cannot.
                while self.store.held_rows() >= self.store.options().held_rows && !self.stop.is_requested() {
                    std::thread::sleep(PAUSE);
                    self.release(released);
                }
            }
        }
        self.tell_state("stopped");
        self.finish(released)?;
        Ok(self)
    }

    /// Takes one input.
    pub fn take(&mut self, position: Option<WalPosition>, input: Input) {
        self.through = self.through.max(position);
        self.pipeline.take(input, &mut self.rows);
    }

    /// Commits everything that was taken.
    ///
    /// # Errors
    /// The rows cannot be accounted for.
    pub fn finish(&mut self, released: &QueueSender<WalPosition>) -> Result<(), WriteError> {
        self.pipeline.flush(&mut self.rows);
        self.hand_over()?;
        for attempt in 0.. {
            match self.rotate(released) {
                Ok(()) => break,
                Err(error) if attempt >= 2 => {
                    tracing::error!(error = %chain(&error), "rows stay in the write-ahead log; the next start writes them");
                    break;
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        Ok(())
    }

    /// A row that says how the collector is.
    pub fn tell_state(&mut self, state: &'static str) {
        let Some(session) = self.pipeline.session().cloned() else { return };
        let row = CollectorRow {
            time: clock::at(clock::now_ns()),
            node: session.node,
            boot_id: session.boot_id,
            state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: session.mode,
            last_seq: self.pipeline.last_seq(),
            lost_events: self.lost,
            endpoints: u64::try_from(self.metrics.endpoints.get()).unwrap_or(0),
        };
        tell(&self.store, &self.metrics, vec![Row::Collector(Box::new(row))]);
    }

    fn damaged(&mut self, position: WalPosition, bytes: u64) {
        self.through = self.through.max(Some(position));
        tracing::error!(damaged.bytes = bytes, "part of the write-ahead log cannot be read");
        self.take(None, Input::Blame(GapCause::Unreadable));
        let Some(session) = self.pipeline.session().cloned() else { return };
        let now = clock::at(clock::now_ns());
        // How many events they were comes to light by their numbers, in gaps of their own.
        self.rows.push(Row::Gap(Box::new(GapRow {
            node: session.node,
            boot_id: session.boot_id,
            lane: None,
            cpu: None,
            endpoint: String::new(),
            cause: GapCause::Unreadable,
            first_seq: None,
            last_seq: None,
            lost_events: 0,
            lost_packets: None,
            from: now,
            to: now,
            detail: format!("{bytes} bytes of the write-ahead log are damaged"),
        })));
    }

    /// Gives the rows made so far to the store.
    fn hand_over(&mut self) -> Result<(), WriteError> {
        self.handed_over = Instant::now();
        let tally = self.pipeline.take_tally();
        self.metrics.tally(&tally);
        for refusal in &tally.refusals {
            tracing::warn!(event.refusal = %refusal, "event cannot be read");
        }
        let rows = std::mem::take(&mut self.rows);
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
                if appended.dropped > 0 {
                    tracing::error!(rows.dropped = appended.dropped, "no room for rows; a gap stands for them");
                }
            }
            // Nothing has been logged yet, so nothing has been read.
            None => _ = tell(&self.store, &self.metrics, rows),
        }
        Ok(())
    }

    fn release(&mut self, released: &QueueSender<WalPosition>) {
        if self.store.due(Instant::now()) {
            // What is wrong is in health; it is tried again when it is due again.
            let _ = self.rotate(released);
        }
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
        // The log is released at the next rotation.
        let nobody = QueueSender::disconnected();
        self.release(&nobody);
        while self.store.held_rows() >= self.store.options().held_rows && !self.stop.is_requested() {
            std::thread::sleep(PAUSE);
            self.release(&nobody);
        }
        Ok(())
    }

    fn rotate(&mut self, released: &QueueSender<WalPosition>) -> Result<(), WriteError> {
        self.pipeline.flush(&mut self.rows);
        self.hand_over()?;
        let drained = self.pipeline.drained_revision();
        let began = Instant::now();
        let rotation = match self.store.rotate() {
            Ok(rotation) => rotation,
            Err(error) => {
                self.metrics.failed(Part::Store);
                if self.health.set(Part::Store, vec![chain(&error)]) {
                    tracing::error!(error = %chain(&error), "rows cannot be written to files");
                }
                return Err(error.into());
            }
        };
        self.metrics.rotations.inc();
        self.metrics.rotate_seconds.observe(began.elapsed().as_secs_f64());
        let over = "the data directory exceeds --disk-cap, and what is left may not be removed: raise the cap";
        self.health.set(Part::Store, if rotation.over_cap { vec![over.to_owned()] } else { Vec::new() });
        for path in &rotation.removed {
            tracing::warn!(file.path = %path, "removed to stay below the cap on disk use");
        }
        tracing::debug!(
            segment.number = rotation.segment,
            segment.rows = rotation.rows,
            segment.files = rotation.files.len(),
            segment.bytes = signed(rotation.bytes),
            "segment written"
        );
        if let Some(through) = rotation.wal {
            // Without room, the next position releases this part of the log as well; if the drain has ended, the next
            // start does.
            let _ = released.try_send(through);
        }
        // What was drained before the rotation began is in files now, and its snapshots are needed no more.
        let forgotten = self.pipeline.forget_snapshots_before(self.drained);
        self.drained = drained;
        if let Some(snapshots) = &self.snapshots
            && let Some(number) = forgotten
            && let Err(error) = snapshots.forget_through(number)
        {
            tracing::warn!(error = %chain(&error), "kept snapshots not removed");
        }
        Ok(())
    }
}

/// Gives rows to the store that come from nowhere else. Says whether they are safe.
pub fn tell(store: &Store, metrics: &Metrics, rows: Vec<Row>) -> bool {
    if rows.is_empty() {
        return true;
    }
    metrics.rows(&rows);
    match store.append(rows, None) {
        Ok(appended) => appended.unsafe_rows == 0,
        Err(error) => {
            metrics.failed(Part::Store);
            tracing::error!(error = %chain(&error), "rows not journalled");
            false
        }
    }
}
