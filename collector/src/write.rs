//! The pipeline's thread: inputs in, rows into the store, files when it is time.
//!
//! One thread does it all, so that a commit accounts for exactly the inputs up to a position of the log.

mod catch_up;
mod commit;
mod facts;
mod heartbeat;

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use netverdict_flowlog::row::{CollectorState, Row};
use thiserror::Error;

pub use self::facts::{FactLog, append_rows};
use netverdict_service::{
    queue::{QueueReceiver, QueueSender},
    shutdown::Shutdown,
};

use crate::{
    clock,
    drain::Logged,
    health::Health,
    input::Input,
    metrics::Metrics,
    pipeline::Pipeline,
    snapshots::Snapshots,
    store::{Store, StoreError},
    wal::{WalError, WalPosition},
};

/// Interval at which rows are given to the store at the latest: rows in the store can be queried.
const HAND_OVER: Duration = Duration::from_millis(100);
/// And as soon as there are so many.
const MOST_ROWS: usize = 8_192;
/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(60);
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
    /// Set when the collector is to end.
    pub stop: Shutdown,
    rows: Vec<Row>,
    through: Option<WalPosition>,
    /// Position that the store's newest checkpoint belongs to.
    checkpointed: Option<WalPosition>,
    handed_over: Instant,
    /// The pipeline's low watermark when the last commit began.
    low_watermark: u64,
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
            checkpointed: None,
            handed_over: Instant::now(),
            low_watermark: 0,
            lost: 0,
        }
    }

    /// Runs until all senders are gone, then commits everything. `released`: how far the log may be released.
    ///
    /// # Errors
    /// The rows cannot be accounted for.
    pub fn run(
        mut self,
        inputs: &QueueReceiver<Logged>,
        released: &QueueSender<WalPosition>,
    ) -> Result<Self, WriteError> {
        let mut heartbeat = Instant::now();
        loop {
            match inputs.recv_timeout(HAND_OVER) {
                Ok((position, input)) => {
                    let starts = matches!(input, Input::Session(_));
                    self.take(position, input);
                    if starts {
                        self.append_heartbeat(CollectorState::Started);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if self.rows.len() >= MOST_ROWS || self.handed_over.elapsed() >= HAND_OVER {
                self.pipeline.tick(clock::boot_time_ns(), &mut self.rows);
                self.hand_over()?;
                if heartbeat.elapsed() >= HEARTBEAT {
                    heartbeat = Instant::now();
                    self.append_heartbeat(CollectorState::Running);
                }
                self.commit_when_due(released);
            }
        }
        self.append_heartbeat(CollectorState::Stopped);
        self.finish(released)?;
        Ok(self)
    }

    /// Takes one input.
    pub fn take(&mut self, position: Option<WalPosition>, input: Input) {
        self.through = self.through.max(position);
        self.pipeline.take(input, &mut self.rows);
    }
}
