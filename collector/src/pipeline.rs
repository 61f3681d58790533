//! The middle of the collector: inputs in, rows out. receive → account → enrich → attribute → aggregate.
//!
//! It reads no clock, no file and no kernel: the same inputs give the same rows, whether they come from the rings, from
//! the write-ahead log after a crash, or from a recorded file.

use std::collections::BTreeMap;

use netverdict_flowlog::row::{FlowRow, GapCause, GapRow, LaneName, Method, Receiver, RecordType, Reporter, Row};
use netverdict_policy::{Direction, Reason};
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::Aggregate,
    attribute::{Attributed, Attributor},
    clock,
    enrich::{Ends, Enricher},
    input::{Input, RawBatch, Session},
    meaning::Catalogue,
    receive::{self, Judged, Unreadable},
    sequence::{self, Sequence},
};

/// Refusals that are kept for the log until they are asked for.
const MOST_REFUSALS: usize = 16;

/// What the pipeline has to be told again after a restart, to go on where it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub session: Option<Session>,
    pub sequence: Sequence,
}

/// What cannot be seen in the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By lane; those that could be read, repeats of the ring included.
    pub events: BTreeMap<&'static str, u64>,
    /// By [`Unreadable::label`].
    pub unreadable: BTreeMap<&'static str, u64>,
    /// Events that were on record already.
    pub repeated: u64,
    /// The first refusals since the last call, for the log.
    pub refusals: Vec<Unreadable>,
}

pub struct Pipeline {
    session: Option<Session>,
    catalogue: Catalogue,
    enricher: Enricher,
    attributor: Attributor,
    aggregate: Aggregate,
    sequence: Sequence,
    /// What numbers that were passed over are put down to.
    cause: GapCause,
    /// Newest revision when the rings were last seen empty: older ones cannot come any more.
    drained: u64,
    newest: u64,
    tally: Tally,
}

impl Pipeline {
    /// `window_ns`: how long repeats of a denial are counted into one row; 0 for not at all.
    pub fn new(window_ns: u64, checkpoint: Checkpoint) -> Self {
        let Checkpoint { session, sequence } = checkpoint;
        Self {
            session,
            catalogue: Catalogue::default(),
            enricher: Enricher::default(),
            attributor: Attributor::default(),
            aggregate: Aggregate::new(window_ns),
            sequence,
            cause: GapCause::RingFull,
            drained: 0,
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
                self.catalogue.announce(state);
            }
            Input::Published { number, revision } => {
                self.newest = revision;
                self.catalogue.publish(number, revision);
            }
            Input::Abandoned { number } => self.catalogue.abandon(number),
            Input::Bound { interface, pod, uid } => self.catalogue.bind(interface, pod, uid),
            Input::Facts(facts) => rows.extend(facts.into_iter().map(Row::from)),
            Input::Batch(batch) => self.batch(&batch, rows),
            Input::Counted(counts) => {
                let time = self.sequence.last_time().unwrap_or_default();
                self.sequence.reconcile(&counts, time, self.cause);
                self.drained = self.newest;
            }
            Input::Blame(cause) => self.cause = cause,
        }
    }

    /// Closes the windows that have ended by `boot_time`, and tells the gaps that were found.
    pub fn tick(&mut self, boot_time: u64, rows: &mut Vec<Row>) {
        let mut flows = Vec::new();
        self.aggregate.expire(boot_time, &mut flows);
        append(flows, rows);
        self.tell_gaps(rows);
    }

    /// Gives out everything that is held back: after it, the rows account for every input taken so far.
    pub fn flush(&mut self, rows: &mut Vec<Row>) {
        let mut flows = Vec::new();
        self.aggregate.flush(&mut flows);
        append(flows, rows);
        self.tell_gaps(rows);
    }

    /// To be kept beside what was flushed.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { session: self.session.clone(), sequence: self.sequence.clone() }
    }

    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Last number accounted for, per lane and CPU.
    pub fn last_seq(&self) -> BTreeMap<String, i64> {
        self.sequence.last()
    }

    /// What was counted since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The revision below which no event can come any more.
    pub fn drained_revision(&self) -> u64 {
        self.drained
    }

    /// Forgets snapshots older than `revision`; the number of the last of them.
    pub fn forget_snapshots_before(&mut self, revision: u64) -> Option<u64> {
        self.catalogue.forget_before(revision)
    }

    fn begin(&mut self, session: Session, rows: &mut Vec<Row>) {
        let mut flows = Vec::new();
        self.aggregate.close_all(&mut flows);
        append(flows, rows);
        self.tell_gaps(rows);
        self.cause = GapCause::RingFull;
        match &self.session {
            Some(before) if before.boot_id != session.boot_id => {
                let time = clock::at(session.time_ns);
                let from = self.sequence.last_time().unwrap_or_else(|| clock::at(before.time_ns));
                rows.extend(
                    self.sequence.take_unnumbered(&before.node, &before.boot_id, from).into_iter().map(gap_row),
                );
                let cause = GapCause::UncleanStop;
                let (node, boot_id) = (&before.node, &before.boot_id);
                rows.push(gap_row(GapRow::of(cause, node, boot_id, from, time.max(from), sequence::detail(cause))));
                self.sequence = Sequence::default();
                self.catalogue.forget_boot();
                self.enricher.forget();
                (self.drained, self.newest) = (0, 0);
            }
            Some(_) if session.fresh => self.sequence.restart_counters(),
            Some(_) => {}
            None if session.fresh => {}
            None => self.sequence.adopt_counters(),
        }
        self.session = Some(session);
    }

    fn batch(&mut self, batch: &RawBatch, rows: &mut Vec<Row>) {
        // Without a session nobody knows whose events these are; the daemon sends one first.
        let Some(session) = self.session.clone() else { return };
        let mut flows = Vec::new();
        for event in receive::events(batch.lane, &batch.bytes) {
            match event {
                Ok(event) => self.event(&session, batch, &event, &mut flows),
                Err(unreadable) => self.refuse(batch, unreadable),
            }
        }
        append(flows, rows);
    }

    fn event(&mut self, session: &Session, batch: &RawBatch, event: &Judged, flows: &mut Vec<FlowRow>) {
        *self.tally.events.entry(batch.lane.as_str()).or_default() += 1;
        let event_ns = clock::event_ns(event.boot_time, batch.offset_ns);
        let Some(seq) = self.sequence.see(event.place, clock::at(event_ns), self.cause) else {
            self.tally.repeated += 1;
            return;
        };
        let ends = self.enricher.ends(&self.catalogue, event, event_ns);
        let attributed = self.attributor.attribute(&self.catalogue, event, &ends);
        let snapshot = self.catalogue.snapshot(event.revision).map_or(0, |state| state.number);
        let row = flow_row(session, batch, event, Numbers { seq, event_ns, snapshot }, ends, attributed);
        match event.place.lane {
            LaneName::Denied => {
                self.aggregate.expire(event.boot_time, flows);
                self.aggregate.take(event, row, flows);
            }
            LaneName::Flow => flows.push(row),
        }
    }

    fn refuse(&mut self, batch: &RawBatch, unreadable: Unreadable) {
        let time = clock::at(batch.ingest_ns);
        match unreadable.place() {
            Some(place) => {
                // The ring that it came from tells the lane better than a record that contradicts itself.
                let place = receive::Place { lane: batch.lane, ..place };
                if !self.sequence.see_unreadable(place, time, self.cause) {
                    self.tally.repeated += 1;
                    return;
                }
            }
            None => self.sequence.see_unnumbered(batch.lane),
        }
        *self.tally.unreadable.entry(unreadable.label()).or_default() += 1;
        if self.tally.refusals.len() < MOST_REFUSALS {
            self.tally.refusals.push(unreadable);
        }
    }

    fn tell_gaps(&mut self, rows: &mut Vec<Row>) {
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

struct Numbers {
    seq: u64,
    event_ns: i64,
    snapshot: u64,
}

fn flow_row(
    session: &Session,
    batch: &RawBatch,
    event: &Judged,
    numbers: Numbers,
    ends: Ends,
    attributed: Attributed,
) -> FlowRow {
    let time = clock::at(numbers.event_ns);
    let Attributed { attribution, reason, drop_reason, confidence, verdict_if_enforced, near_misses } = attributed;
    FlowRow {
        record_type: RecordType::Verdict,
        node: session.node.clone(),
        boot_id: session.boot_id.clone(),
        lane: Some(event.place.lane),
        cpu: Some(event.place.cpu),
        seq: Some(numbers.seq),
        time,
        ingest_time: clock::at(batch.ingest_ns),
        receiver: Receiver::Ring,
        direction: event.direction,
        reporter: match event.direction {
            Direction::Egress => Reporter::Source,
            Direction::Ingress => Reporter::Destination,
        },
        // Of a packet whose head could not be read, the addresses are unspecified ones of IPv6.
        family: match event.family {
            0 if event.source.is_ipv4() => 4,
            0 => 6,
            family => family,
        },
        source_ip: event.source,
        destination_ip: event.destination,
        source_port: event.source_port,
        destination_port: event.destination_port,
        protocol: event.protocol,
        tcp_flags: event.tcp_flags,
        icmp_type: event.icmp_type,
        icmp_code: event.icmp_code,
        verdict: event.verdict,
        verdict_if_enforced,
        disposition: event.disposition,
        mode: event.mode,
        reason,
        drop_reason,
        method: Method::Enforced,
        confidence,
        attribution,
        attribution_id: event.attribution,
        near_misses,
        snapshot: numbers.snapshot,
        source: ends.source,
        destination: ends.destination,
        packets: 1,
        bytes: u64::from(event.length),
        count: 1,
        first_time: time,
        last_time: time,
        identity_window_open: ends.identity_window_open,
        spoof: reason == Reason::SpoofedSource,
        ..FlowRow::default()
    }
}

#[cfg(test)]
mod tests;
