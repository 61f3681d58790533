//! The middle of the collector: inputs in, rows out. A batch becomes observations (receive); each is counted (sequence,
//! dedup), its ends named (enrich), its decider found (attribute), and repeats of it gathered (aggregate).
//!
//! It reads no clock, no file and no kernel: the same inputs give the same rows, whether they come from the rings, from
//! the write-ahead log after a crash, or from a recorded file.

mod held;
mod row;
pub mod tally;

use std::collections::BTreeMap;

use netverdict_flowlog::row::{FlowRow, GapCause, GapRow, LaneName, Row};
use serde::{Deserialize, Serialize};

use self::{
    held::{Counted, Held},
    row::RowTemplate,
    tally::Tally,
};
use crate::{
    address_history::AddressHistory,
    aggregate::Aggregate,
    attribute::Attributor,
    batch::{ForeignBatch, RingBatch},
    clock,
    dedup::Dedup,
    enrich::{Enricher, unknown_peer},
    input::{Input, Session},
    meaning::Catalogue,
    observation::{EventId, ForeignRecord, Observation, Origin},
    receive::{self, ring},
    sequence::{self, Sequence},
};

/// Refusals that are kept for the log until they are asked for.
const MOST_REFUSALS: usize = 16;

/// State that the pipeline needs after a restart to continue where it stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub session: Option<Session>,
    pub sequence: Sequence,
    /// Absent in checkpoints of before there were foreign reports.
    #[serde(default)]
    pub dedup: Dedup,
}

pub struct Pipeline {
    session: Option<Session>,
    catalogue: Catalogue,
    history: AddressHistory,
    held: Held,
    enricher: Enricher,
    attributor: Attributor,
    aggregate: Aggregate,
    sequence: Sequence,
    dedup: Dedup,
    /// Why numbers that were passed over are missing.
    cause: GapCause,
    /// Newest revision when the rings were last seen empty: events of older ones cannot come any more.
    low_watermark: u64,
    newest: u64,
    tally: Tally,
}

impl Pipeline {
    /// `window_ns`: how long repeats of a denial are counted into one row; 0 for not at all.
    pub fn new(window_ns: u64, checkpoint: Checkpoint) -> Self {
        let Checkpoint { session, sequence, dedup } = checkpoint;
        Self {
            session,
            catalogue: Catalogue::default(),
            history: AddressHistory::default(),
            held: Held::default(),
            enricher: Enricher::default(),
            attributor: Attributor::default(),
            aggregate: Aggregate::new(window_ns),
            sequence,
            dedup,
            cause: GapCause::RingFull,
            low_watermark: 0,
            newest: 0,
            tally: Tally::default(),
        }
    }

    /// Takes the next input and appends the rows that it makes.
    pub fn take(&mut self, input: Input, rows: &mut Vec<Row>) {
        match input {
            Input::Session(session) => self.begin(session, rows),
            Input::Meanings(meanings) => self.catalogue.learn(meanings),
            Input::Snapshot(state) => {
                self.newest = self.newest.max(state.revision);
                self.history.learn(&state);
                self.catalogue.announce(state);
                self.write_held(0, rows);
            }
            Input::Published { number, revision } => {
                self.newest = revision;
                self.catalogue.publish(number, revision);
            }
            Input::Abandoned { number } => self.catalogue.abandon(number),
            Input::Bound { interface, pod, uid } => self.catalogue.bind(interface, pod, uid),
            Input::Facts(facts) => rows.extend(facts.into_iter().map(Row::from)),
            Input::Ring(batch) => self.ring(&batch, rows),
            Input::Foreign(batch) => self.foreign(&batch, rows),
            Input::Counted(counts) => {
                let time = self.sequence.last_time().unwrap_or_default();
                self.sequence.reconcile(&counts, time, self.cause);
                self.low_watermark = self.newest;
            }
            Input::GapCause(cause) => self.cause = cause,
        }
    }

    /// Closes the windows that have ended by `boot_time`, and appends the gaps that were found.
    pub fn tick(&mut self, boot_time: u64, rows: &mut Vec<Row>) {
        self.write_held(boot_time, rows);
        let mut flows = Vec::new();
        self.aggregate.expire(boot_time, &mut flows);
        append(flows, rows);
        self.append_gaps(rows);
    }

    /// Appends everything that is held back: afterwards the rows account for every input taken so far.
    pub fn flush(&mut self, rows: &mut Vec<Row>) {
        self.write_held(u64::MAX, rows);
        let mut flows = Vec::new();
        self.aggregate.flush(&mut flows);
        append(flows, rows);
        self.append_gaps(rows);
    }

    /// To be kept beside the flushed rows.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { session: self.session.clone(), sequence: self.sequence.clone(), dedup: self.dedup.clone() }
    }

    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Last number accounted for, per lane and CPU.
    pub fn last_seq(&self) -> BTreeMap<String, i64> {
        self.sequence.last()
    }

    /// Counts since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The revision below which no event can come any more.
    pub fn low_watermark(&self) -> u64 {
        self.low_watermark
    }

    /// Forgets snapshots older than `revision`; the number of the last of them.
    pub fn forget_snapshots_before(&mut self, revision: u64) -> Option<u64> {
        self.catalogue.forget_before(revision)
    }

    fn begin(&mut self, session: Session, rows: &mut Vec<Row>) {
        self.write_held(u64::MAX, rows);
        let mut flows = Vec::new();
        self.aggregate.close_all(&mut flows);
        append(flows, rows);
        self.append_gaps(rows);
        self.cause = GapCause::RingFull;
        match &self.session {
            Some(before) if before.boot_id != session.boot_id => {
                let time = clock::at(session.time_ns);
                let from = self.sequence.last_time().unwrap_or_else(|| clock::at(before.time_ns));
                rows.extend(
                    self.sequence.take_unnumbered(&before.node, &before.boot_id, from).into_iter().map(gap_row),
                );
                let cause = GapCause::UncleanStop;
                let detail = sequence::detail(cause);
                rows.push(gap_row(GapRow::of(cause, &before.node, &before.boot_id, from, time.max(from), detail)));
                self.sequence = Sequence::default();
                self.catalogue.forget_boot();
                self.enricher.forget();
                (self.low_watermark, self.newest) = (0, 0);
            }
            Some(_) if session.fresh => self.sequence.restart_counters(),
            Some(_) => {}
            None if session.fresh => {}
            None => self.sequence.adopt_counters(),
        }
        self.session = Some(session);
    }

    fn ring(&mut self, batch: &RingBatch, rows: &mut Vec<Row>) {
        // Without a session the origin of these events is unknown; the daemon sends one first.
        let Some(template) = self.session.as_ref().map(RowTemplate::new) else { return };
        let mut flows = Vec::new();
        for read in ring::observations(batch) {
            match read {
                Ok(observation) => self.event(&template, batch.ingest_ns, &observation, &mut flows),
                Err(unreadable) => self.refuse_event(batch, &unreadable),
            }
        }
        append(flows, rows);
    }

    fn event(&mut self, template: &RowTemplate, ingest_ns: i64, observation: &Observation, flows: &mut Vec<FlowRow>) {
        let Origin::Probe { event, boot_time } = observation.origin else { return };
        *self.tally.events.entry(event.lane.as_str()).or_default() += 1;
        let Some(seq) = self.sequence.see(event, clock::at(observation.first_ns), self.cause) else {
            self.tally.repeated += 1;
            return;
        };
        if event.lane == LaneName::Denied {
            self.aggregate.expire(boot_time, flows);
        }
        if unknown_peer(observation).is_some_and(|address| self.history.owner(address, observation.last_ns).is_none()) {
            let counted = Counted { ingest_ns, seq, boot_time, observation: observation.clone() };
            if let Some(oldest) = self.held.push(counted) {
                self.write(template, &oldest, flows);
            }
            return;
        }
        self.write_event(template, ingest_ns, seq, observation, flows);
    }

    /// Writes the events that have been held for long enough at `boot_time`, or whose ends are known by now.
    fn write_held(&mut self, boot_time: u64, rows: &mut Vec<Row>) {
        if self.held.is_empty() {
            return;
        }
        let Some(template) = self.session.as_ref().map(RowTemplate::new) else { return };
        let history = &self.history;
        let is_known = |observation: &Observation| {
            unknown_peer(observation).is_some_and(|address| history.owner(address, observation.last_ns).is_some())
        };
        let due = self.held.take_due(boot_time, is_known);
        let mut flows = Vec::new();
        due.iter().for_each(|event| self.write(&template, event, &mut flows));
        append(flows, rows);
    }

    fn write(&mut self, template: &RowTemplate, event: &Counted, flows: &mut Vec<FlowRow>) {
        let Counted { ingest_ns, seq, boot_time: _, observation } = event;
        self.write_event(template, *ingest_ns, *seq, observation, flows);
    }

    fn write_event(
        &mut self,
        template: &RowTemplate,
        ingest_ns: i64,
        seq: u64,
        observation: &Observation,
        flows: &mut Vec<FlowRow>,
    ) {
        let row = self.row(template, ingest_ns, Some(seq), observation);
        match row.lane {
            Some(LaneName::Denied) => self.aggregate.take(observation, row, flows),
            Some(LaneName::Flow) | None => flows.push(row),
        }
    }

    fn row(&mut self, template: &RowTemplate, ingest_ns: i64, seq: Option<u64>, observation: &Observation) -> FlowRow {
        let ends = self.enricher.ends(&self.catalogue, &self.history, observation);
        let attributed = self.attributor.attribute(&self.catalogue, observation, &ends);
        template.row(ingest_ns, seq, observation, ends, attributed)
    }

    fn refuse_event(&mut self, batch: &RingBatch, unreadable: &ring::Unreadable) {
        let time = clock::at(batch.ingest_ns);
        match unreadable.event() {
            Some(event) => {
                // A record that contradicts itself is not trusted: its lane is that of the ring it came from.
                let event = EventId { lane: batch.lane, ..event };
                if !self.sequence.see_unreadable(event, time, self.cause) {
                    self.tally.repeated += 1;
                    return;
                }
            }
            None => self.sequence.see_unnumbered(batch.lane),
        }
        self.refused(unreadable.label(), unreadable);
    }

    fn refused(&mut self, label: &'static str, unreadable: &dyn std::fmt::Display) {
        *self.tally.unreadable.entry(label).or_default() += 1;
        if self.tally.refusals.len() < MOST_REFUSALS {
            self.tally.refusals.push(unreadable.to_string());
        }
    }

    /// Records reports of another system, each once. An unreadable report does not affect the others.
    fn foreign(&mut self, batch: &ForeignBatch, rows: &mut Vec<Row>) {
        let Some(session) = &self.session else { return };
        let (template, node, boot_id) = (RowTemplate::new(session), session.node.clone(), session.boot_id.clone());
        let ForeignBatch { receiver, ingest_ns, bytes: _ } = batch;
        let mut lost = BTreeMap::<&'static str, (u64, String)>::new();
        for record in receive::foreign(batch) {
            match record {
                ForeignRecord::Flow(observation) => {
                    let Origin::Foreign { cursor, .. } = observation.origin else { continue };
                    if !self.dedup.insert(*receiver, cursor) {
                        self.tally.reports.repeated += 1;
                        continue;
                    }
                    self.tally.reports.recorded += 1;
                    let row = self.row(&template, *ingest_ns, None, &observation);
                    rows.push(Row::Flow(Box::new(row)));
                }
                ForeignRecord::Empty => self.tally.reports.empty += 1,
                ForeignRecord::Unreadable { hash, label, detail } => {
                    if !self.dedup.insert_damaged(*receiver, hash) {
                        self.tally.reports.repeated += 1;
                        continue;
                    }
                    self.refused(label, &detail);
                    lost.entry(label).or_insert_with(|| (0, detail)).0 += 1;
                }
            }
        }
        let time = clock::at(*ingest_ns);
        for (count, first) in lost.into_values() {
            let detail = format!("reports of {receiver} cannot be read; the first: {first}");
            let gap = GapRow::of(GapCause::Unreadable, &node, &boot_id, time, time, detail);
            rows.push(gap_row(GapRow { lost_events: count, ..gap }));
        }
    }

    fn append_gaps(&mut self, rows: &mut Vec<Row>) {
        if let Some(session) = &self.session {
            rows.extend(self.sequence.take_gaps(&session.node, &session.boot_id).into_iter().map(gap_row));
        }
    }
}

fn append(flows: Vec<FlowRow>, rows: &mut Vec<Row>) {
    rows.extend(flows.into_iter().map(|row| Row::Flow(Box::new(row))));
}

fn gap_row(gap: GapRow) -> Row {
    Row::Gap(Box::new(gap))
}

#[cfg(test)]
mod tests;
