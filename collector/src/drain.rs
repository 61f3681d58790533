//! Rings → write-ahead log → pipeline. A ring's position moves only after what was read is in the log.
//!
//! What the control thread has to say goes the same way, and always before the events that it explains: it is sent
//! before the kernel is told, and looked for after a batch was read and before it is passed on.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use netverdict_flowlog::row::{GapCause, LaneName};
use netverdict_probe::RingReader;
use netverdict_service::{
    error_chain::chain,
    queue::{QueueReceiver, QueueSender},
};

use crate::{
    clock,
    health::{Health, Part},
    input::{Input, RawBatch, Session},
    metrics::{Metrics, signed},
    receive::lane_name,
    recording::{Recorder, lane_number, lane_of},
    sequence::KernelCount,
    wal::{Wal, WalError, WalPosition, WalRecord},
};

/// Some two thousand events: enough to make the costs of a batch small, few enough to be visible at once.
const BATCH_BYTES: usize = 256 << 10;
/// The flow ring wakes nobody: a new flow is on its way after this long at most.
const WAIT: Duration = Duration::from_millis(50);
/// A number may have been given out and its event not yet be in the ring: numbers are compared this much later.
const IN_FLIGHT: Duration = Duration::from_millis(200);
/// Between attempts to write the log.
const RETRY: Duration = Duration::from_millis(500);
/// How long a stop waits for the rings to be empty: the probe goes on judging.
const LAST_DRAIN: Duration = Duration::from_secs(3);
const CLOCK_SAMPLE: Duration = Duration::from_secs(1);
const SESSION_RECORD: u8 = 0xff;

/// What the control thread sends.
#[derive(Debug)]
pub enum Message {
    Input(Box<Input>),
    /// What the kernel had counted at a moment.
    Counters(Instant, Vec<KernelCount>),
    /// For the recorded file alone: the pipeline has it by another way.
    Recorded(Box<Input>),
}

/// An input on its way to the pipeline, with how far the log is with it.
pub type Logged = (Option<WalPosition>, Input);

pub struct Drain {
    pub rings: [RingReader; 2],
    pub wal: Wal,
    pub messages: QueueReceiver<Message>,
    pub pipeline: QueueSender<Logged>,
    /// Positions that the log may be released through.
    pub released: QueueReceiver<WalPosition>,
    pub recorder: Option<Recorder>,
    pub health: Arc<Health>,
    pub metrics: Metrics,
}

/// The pipeline has ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("the pipeline has ended, and nobody takes what the rings hold")]
pub struct NobodyListens;

impl Drain {
    /// Runs until the control thread has ended and the rings were drained once more.
    ///
    /// # Errors
    /// The pipeline has ended.
    pub fn run(self) -> Result<(), NobodyListens> {
        let Self { rings, wal, messages, pipeline, released, recorder, health, metrics } = self;
        let mut state = State {
            wal,
            pipeline,
            recorder,
            health,
            metrics,
            waiting: VecDeque::new(),
            counted: None,
            offset: (Instant::now(), clock::offset_ns()),
            log_state: LogState::Written,
            ended: false,
        };
        let result = state.follow(rings, &messages, &released);
        let State { mut wal, pipeline, recorder, .. } = state;
        drop(pipeline);
        // The pipeline commits what it has; what it then gives free can go.
        while let Ok(through) = released.recv() {
            release(&mut wal, through);
        }
        if let Err(error) = wal.sync() {
            tracing::error!(error = %chain(&error), "write-ahead log not synced at the end");
        }
        if let Some(Err(error)) = recorder.map(Recorder::finish) {
            tracing::error!(error = %chain(&error), "recorded file not finished");
        }
        result
    }
}

struct State {
    wal: Wal,
    pipeline: QueueSender<Logged>,
    recorder: Option<Recorder>,
    health: Arc<Health>,
    metrics: Metrics,
    waiting: VecDeque<Message>,
    counted: Option<(Instant, Vec<KernelCount>)>,
    /// The clocks' distance, and when it was sampled.
    offset: (Instant, i64),
    log_state: LogState,
    /// The control thread has ended.
    ended: bool,
}

/// Whether the log takes what the rings hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogState {
    Written,
    /// What is lost from now on is put down to that,
    Failing,
    /// and still is until all that the kernel counted before this moment has been accounted for.
    Recovered(Instant),
}

impl State {
    fn follow(
        &mut self,
        mut rings: [RingReader; 2],
        messages: &QueueReceiver<Message>,
        released: &QueueReceiver<WalPosition>,
    ) -> Result<(), NobodyListens> {
        let mut ends: Option<Instant> = None;
        let mut synced = true;
        loop {
            released.try_iter().for_each(|through| release(&mut self.wal, through));
            self.metrics.log_bytes.set(signed(self.wal.bytes()));
            self.listen(messages);
            if self.ended && ends.is_none() {
                ends = Some(Instant::now() + LAST_DRAIN);
            }
            self.pass_on(messages)?;
            let mut read = false;
            for ring in &mut rings {
                read |= self.drain(ring, messages)?;
            }
            synced &= !read;
            let (used, idle) = self.measure(&rings);
            if idle && !read {
                self.catch_up()?;
            }
            match ends {
                Some(ends) if Instant::now() >= ends || (used == 0 && self.counted.is_none()) => return Ok(()),
                Some(_) if self.log_state == LogState::Failing && !read => return Ok(()),
                _ if read => {}
                _ => {
                    if !synced {
                        // Nothing more comes just now: a good moment.
                        synced = self.wal.sync().is_ok();
                    }
                    if let Err(error) = rings[0].wait(WAIT) {
                        tracing::error!(%error, "rings cannot be waited for");
                        std::thread::sleep(WAIT);
                    }
                }
            }
        }
    }

    /// Fetches what the control thread has sent.
    fn listen(&mut self, messages: &QueueReceiver<Message>) {
        loop {
            match messages.try_recv() {
                Ok(message) => self.waiting.push_back(message),
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    /// Passes on what the control thread has sent.
    fn pass_on(&mut self, messages: &QueueReceiver<Message>) -> Result<(), NobodyListens> {
        while let Some(message) = self.waiting.pop_front() {
            match message {
                Message::Input(input) => match *input {
                    Input::Session(session) => {
                        let position = self.log(&session_record(&session), messages)?;
                        self.forward(position, Input::Session(session))?;
                    }
                    input => self.forward(None, input)?,
                },
                Message::Recorded(input) => self.record(&input),
                // Those that wait for their moment came first.
                Message::Counters(at, counts) => _ = self.counted.get_or_insert((at, counts)),
            }
        }
        Ok(())
    }

    /// Reads one batch of a ring and passes it on. Says whether there was one.
    fn drain(&mut self, ring: &mut RingReader, messages: &QueueReceiver<Message>) -> Result<bool, NobodyListens> {
        let Some(batch) = ring.drain(BATCH_BYTES) else { return Ok(false) };
        // What explains these events was sent before they were judged.
        self.listen(messages);
        self.pass_on(messages)?;
        let lane = lane_name(batch.lane);
        self.metrics.drained(lane, batch.bytes.len());
        let batch = RawBatch { lane, ingest_ns: clock::now_ns(), offset_ns: self.offset(), bytes: batch.bytes };
        let record = WalRecord {
            lane: lane_number(lane),
            ingest_time_ns: batch.ingest_ns,
            clock_offset_ns: batch.offset_ns,
            bytes: Cow::Borrowed(&batch.bytes),
        };
        let Some(position) = self.log(&record, messages)? else { return Ok(false) };
        ring.commit();
        self.forward(Some(position), Input::Batch(batch))?;
        Ok(true)
    }

    /// Appends to the log, however long that takes: until then the rings keep what they hold. `None`: it was not to be
    /// done before the end, and the next collector finds it in the rings.
    fn log(
        &mut self,
        record: &WalRecord<'_>,
        messages: &QueueReceiver<Message>,
    ) -> Result<Option<WalPosition>, NobodyListens> {
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
            self.listen(messages);
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
            self.forward(None, Input::Blame(GapCause::DiskFull))?;
        }
        std::thread::sleep(RETRY);
        Ok(())
    }

    /// Updates the rings' fill. Returns the bytes that wait in both, and whether there are none.
    fn measure(&self, rings: &[RingReader; 2]) -> (u64, bool) {
        let mut all = 0;
        for ring in rings {
            let (used, size) = ring.fill();
            self.metrics.ring(lane_name(ring.lane()), used, size);
            all += used;
        }
        (all, all == 0)
    }

    /// The rings are empty: what the kernel had counted a while ago has come, or is lost.
    fn catch_up(&mut self) -> Result<(), NobodyListens> {
        if let Some((counted_at, counts)) = self.counted.take_if(|(at, _)| at.elapsed() >= IN_FLIGHT) {
            self.forward(None, Input::Counted(counts))?;
            if matches!(self.log_state, LogState::Recovered(at) if counted_at >= at) {
                self.log_state = LogState::Written;
                self.forward(None, Input::Blame(GapCause::RingFull))?;
            }
        }
        Ok(())
    }

    fn forward(&mut self, position: Option<WalPosition>, input: Input) -> Result<(), NobodyListens> {
        self.record(&input);
        self.pipeline.send((position, input)).map_err(|_| NobodyListens)
    }

    fn record(&mut self, input: &Input) {
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.write(input)
        {
            tracing::error!(error = %chain(&error), "recorded file ends here");
            self.recorder = None;
        }
    }

    fn offset(&mut self) -> i64 {
        if self.offset.0.elapsed() >= CLOCK_SAMPLE {
            self.offset = (Instant::now(), clock::offset_ns());
            self.metrics.clock_offset(self.offset.1);
        }
        self.offset.1
    }
}

/// What a record of the log was before it was one; `None` for one that no collector wrote.
pub fn logged_input(record: WalRecord<'static>) -> Option<Input> {
    let WalRecord { lane, ingest_time_ns, clock_offset_ns, bytes } = record;
    if lane == SESSION_RECORD {
        return serde_json::from_slice(&bytes).ok().map(Input::Session);
    }
    let lane: LaneName = lane_of(lane)?;
    Some(Input::Batch(RawBatch {
        lane,
        ingest_ns: ingest_time_ns,
        offset_ns: clock_offset_ns,
        bytes: bytes.into_owned(),
    }))
}

fn session_record(session: &Session) -> WalRecord<'static> {
    WalRecord {
        lane: SESSION_RECORD,
        ingest_time_ns: session.time_ns,
        clock_offset_ns: clock::offset_ns(),
        // A session is text and two numbers: JSON refuses nothing of it.
        bytes: Cow::Owned(serde_json::to_vec(session).unwrap_or_default()),
    }
}

fn release(wal: &mut Wal, through: WalPosition) {
    if let Err(error) = wal.release(through) {
        tracing::warn!(error = %chain(&error), "write-ahead log not shortened");
    }
}
