//! Rings and deliveries of other systems → write-ahead log → pipeline. A ring's position moves, and a delivery is
//! acknowledged, only after its data is in the log.
//!
//! Messages of the control thread go the same way, and always before the events that they explain: a message is sent
//! before the kernel gets the change, and read after a batch was read and before that batch is passed on.

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use netverdict_flowlog::row::GapCause;
use netverdict_probe::RingReader;
use netverdict_service::{
    error_chain::chain,
    queue::{QueueReceiver, QueueSender},
};
use tokio::sync::oneshot;

use crate::{
    batch::{ForeignBatch, RingBatch},
    clock, codes,
    health::{Health, Part},
    input::Input,
    metrics::{Metrics, signed},
    recording::SharedRecorder,
    sequence::KernelCount,
    wal::{LogRecord, Wal, WalError, WalPosition},
};

/// Some two thousand events: enough to make the costs of a batch small, few enough to be visible at once.
const BATCH_BYTES: usize = 256 << 10;
/// The flow ring wakes no reader: a new flow is on its way after this long at most.
const WAIT: Duration = Duration::from_millis(50);
/// A number may have been given out and its event not yet be in the ring: numbers are compared this much later.
const IN_FLIGHT: Duration = Duration::from_millis(200);
/// Between attempts to write the log.
const RETRY: Duration = Duration::from_millis(500);
/// How long a stop waits for the rings to be empty: the probe goes on judging.
const LAST_DRAIN: Duration = Duration::from_secs(3);
const CLOCK_SAMPLE: Duration = Duration::from_secs(1);

/// Messages of the control thread.
#[derive(Debug)]
pub enum Message {
    Input(Box<Input>),
    /// The kernel's counters at a moment.
    Counters(Instant, Vec<KernelCount>),
}

/// An input on its way to the pipeline, with how far the log is with it.
pub type Logged = (Option<WalPosition>, Input);

/// A delivery of another system, on its way to the write-ahead log.
#[derive(Debug)]
pub struct Delivery {
    /// In order; each becomes one record of the log.
    pub batches: Vec<ForeignBatch>,
    /// Answered once all of it is in the log, durably: only then may the sender get its acknowledgement.
    pub logged: oneshot::Sender<Result<(), WalError>>,
}

/// Channels of the drain thread.
pub struct Channels {
    /// From the control thread. This thread ends when the queue's senders are gone.
    pub messages: QueueReceiver<Message>,
    /// From the receivers of other systems' logs.
    pub deliveries: QueueReceiver<Delivery>,
    pub pipeline: QueueSender<Logged>,
    /// Positions that the log may be released through.
    pub released: QueueReceiver<WalPosition>,
}

pub struct Drain {
    rings: Vec<RingReader>,
    wal: Wal,
    channels: Channels,
    recorder: SharedRecorder,
    health: Arc<Health>,
    metrics: Metrics,
    waiting: VecDeque<Message>,
    counted: Option<(Instant, Vec<KernelCount>)>,
    /// Offset between the clocks, and when it was sampled.
    offset: (Instant, i64),
    log_state: LogState,
    /// The control thread has ended.
    ended: bool,
}

/// The pipeline has ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("the pipeline has ended, and nobody takes what the rings hold")]
pub struct NobodyListens;

/// Whether the log takes the rings' batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogState {
    Written,
    /// Losses of the rings have this cause from now on,
    Failing,
    /// and still has until all that the kernel counted before this moment has been accounted for.
    Recovered(Instant),
}

impl Drain {
    /// `rings`: one per lane; none where no probe runs.
    pub fn new(
        rings: Vec<RingReader>,
        wal: Wal,
        channels: Channels,
        recorder: SharedRecorder,
        health: Arc<Health>,
        metrics: Metrics,
    ) -> Self {
        Self {
            rings,
            wal,
            channels,
            recorder,
            health,
            metrics,
            waiting: VecDeque::new(),
            counted: None,
            offset: (Instant::now(), clock::offset_ns()),
            log_state: LogState::Written,
            ended: false,
        }
    }

    /// Runs until the control thread has ended and the rings were drained once more.
    ///
    /// # Errors
    /// The pipeline has ended.
    pub fn run(mut self) -> Result<(), NobodyListens> {
        let result = self.follow();
        let Self { mut wal, channels, recorder, .. } = self;
        let Channels { messages: _, deliveries, pipeline, released } = channels;
        // A sender that waits for an acknowledgement gets an error.
        drop(deliveries);
        drop(pipeline);
        // The pipeline commits its rows; the log files that it then releases can go.
        while let Ok(through) = released.recv() {
            release(&mut wal, through);
        }
        if let Err(error) = wal.sync() {
            tracing::error!(error = %chain(&error), "write-ahead log not synced at the end");
        }
        recorder.finish();
        result
    }

    fn follow(&mut self) -> Result<(), NobodyListens> {
        let mut ends: Option<Instant> = None;
        let mut synced = true;
        loop {
            self.channels.released.try_iter().for_each(|through| release(&mut self.wal, through));
            self.metrics.log_bytes.set(signed(self.wal.bytes()));
            self.listen();
            if self.ended && ends.is_none() {
                ends = Some(Instant::now() + LAST_DRAIN);
            }
            self.pass_on()?;
            let mut read = false;
            for ring in 0..self.rings.len() {
                read |= self.drain(ring)?;
            }
            synced &= !read;
            let delivered = self.take_delivery()?;
            let (used, idle) = self.measure();
            if idle && !read {
                self.catch_up()?;
            }
            match ends {
                Some(ends) if Instant::now() >= ends || (used == 0 && self.counted.is_none()) => return Ok(()),
                Some(_) if self.log_state == LogState::Failing && !read => return Ok(()),
                _ if read || delivered => {}
                _ => {
                    if !synced {
                        // No more events for the moment: a good time to sync.
                        synced = self.wal.sync().is_ok();
                    }
                    self.wait();
                }
            }
        }
    }

    fn wait(&mut self) {
        let Some(ring) = self.rings.first_mut() else {
            std::thread::sleep(WAIT);
            return;
        };
        if let Err(error) = ring.wait(WAIT) {
            tracing::error!(%error, "rings cannot be waited for");
            std::thread::sleep(WAIT);
        }
    }

    /// Fetches the messages of the control thread.
    fn listen(&mut self) {
        loop {
            match self.channels.messages.try_recv() {
                Ok(message) => self.waiting.push_back(message),
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    /// Passes on the messages of the control thread.
    fn pass_on(&mut self) -> Result<(), NobodyListens> {
        while let Some(message) = self.waiting.pop_front() {
            match message {
                Message::Input(input) => match *input {
                    Input::Session(session) => {
                        let record = LogRecord::Session(session);
                        let position = self.log(&record)?;
                        self.forward(position, record.into())?;
                    }
                    input => self.forward(None, input)?,
                },
                // Earlier counters that still wait for their moment are kept.
                Message::Counters(at, counts) => _ = self.counted.get_or_insert((at, counts)),
            }
        }
        Ok(())
    }

    /// Reads one batch of a ring and passes it on. Returns whether there was one.
    fn drain(&mut self, ring: usize) -> Result<bool, NobodyListens> {
        let Some(batch) = self.rings[ring].drain(BATCH_BYTES) else { return Ok(false) };
        // The inputs that explain these events were sent before the events were decided.
        self.listen();
        self.pass_on()?;
        let lane = codes::lane_name(batch.lane);
        self.metrics.drained(lane, batch.bytes.len());
        let (ingest_ns, offset_ns) = (clock::now_ns(), self.offset());
        let record = LogRecord::Ring(RingBatch { lane, ingest_ns, offset_ns, bytes: batch.bytes });
        let Some(position) = self.log(&record)? else { return Ok(false) };
        self.rings[ring].commit();
        self.forward(Some(position), record.into())?;
        Ok(true)
    }

    /// Logs one delivery of another system, passes it on and acknowledges it. Returns whether there was one.
    ///
    /// One attempt: the sender repeats an unacknowledged delivery, and the rings must not wait for it.
    fn take_delivery(&mut self) -> Result<bool, NobodyListens> {
        let Ok(Delivery { batches, logged }) = self.channels.deliveries.try_recv() else { return Ok(false) };
        let mut outcome = Ok(());
        for batch in batches {
            let record = LogRecord::Foreign(batch);
            match self.wal.append_durably(&record) {
                Ok(position) => self.forward(Some(position), record.into())?,
                Err(error) => {
                    self.metrics.failed(Part::Log);
                    tracing::error!(error = %chain(&error), "delivery not logged; its sender will repeat it");
                    outcome = Err(error);
                    break;
                }
            }
        }
        // The sender may have given up: then the delivery comes again, and is recognised.
        let _ = logged.send(outcome);
        Ok(true)
    }

    /// Appends to the log, however long that takes: until then the rings keep their events. `None`: it was not to be
    /// done before the end, and the next collector finds it in the rings.
    fn log(&mut self, record: &LogRecord) -> Result<Option<WalPosition>, NobodyListens> {
        loop {
            match self.wal.append(record) {
                Ok(position) => {
                    if self.log_state == LogState::Failing {
                        self.log_state = LogState::Recovered(Instant::now());
                        self.health.set(Part::Log, Vec::new());
                        tracing::info!("write-ahead log is written again");
                    }
                    return Ok(Some(position));
                }
                Err(error) => self.cannot_log(&error)?,
            }
            self.listen();
            if self.ended {
                return Ok(None);
            }
        }
    }

    fn cannot_log(&mut self, error: &WalError) -> Result<(), NobodyListens> {
        self.metrics.failed(Part::Log);
        if self.health.set(Part::Log, vec![chain(error)]) {
            tracing::error!(error = %chain(error), "write-ahead log cannot be written; the rings keep what they hold");
        }
        if std::mem::replace(&mut self.log_state, LogState::Failing) == LogState::Written {
            self.forward(None, Input::GapCause(GapCause::DiskFull))?;
        }
        std::thread::sleep(RETRY);
        Ok(())
    }

    /// Updates the rings' fill. Returns the bytes that wait in both, and whether there are none.
    fn measure(&self) -> (u64, bool) {
        let mut all = 0;
        for ring in &self.rings {
            let (used, size) = ring.fill();
            self.metrics.ring(codes::lane_name(ring.lane()), used, size);
            all += used;
        }
        (all, all == 0)
    }

    /// The rings are empty: events that the kernel had counted a while ago have come, or are lost.
    fn catch_up(&mut self) -> Result<(), NobodyListens> {
        if let Some((counted_at, counts)) = self.counted.take_if(|(at, _)| at.elapsed() >= IN_FLIGHT) {
            self.forward(None, Input::Counted(counts))?;
            if matches!(self.log_state, LogState::Recovered(at) if counted_at >= at) {
                self.log_state = LogState::Written;
                self.forward(None, Input::GapCause(GapCause::RingFull))?;
            }
        }
        Ok(())
    }

    fn forward(&mut self, position: Option<WalPosition>, input: Input) -> Result<(), NobodyListens> {
        self.recorder.write(&input);
        self.channels.pipeline.send((position, input)).map_err(|_| NobodyListens)
    }

    fn offset(&mut self) -> i64 {
        if self.offset.0.elapsed() >= CLOCK_SAMPLE {
            self.offset = (Instant::now(), clock::offset_ns());
            self.metrics.clock_offset(self.offset.1);
        }
        self.offset.1
    }
}

fn release(wal: &mut Wal, through: WalPosition) {
    if let Err(error) = wal.release(through) {
        tracing::warn!(error = %chain(&error), "write-ahead log not shortened");
    }
}
