//! Accounts for sequence numbers: every event that the kernel numbered is a row, a gap, or still in flight.
//!
//! The kernel numbers the events of each CPU and lane from 1, lost ones included, and a ring keeps their order. So a
//! number that was passed over is lost for good, and a number that comes a second time is on record already (the
//! collector died between the write-ahead log and the ring). It writes nothing; its results are [`GapRow`]s.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use netverdict_flowlog::row::{GapCause, GapRow, LaneName};
use serde::{Deserialize, Serialize};

use crate::observation::EventId;

/// The account of one node's boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    counts: Vec<Count>,
    /// The kernel had counted before this account began: its first number is no measure of earlier ones.
    adopted: bool,
    /// Events that could not be read and whose number is not known: they explain numbers passed over later.
    unreadable: Vec<(LaneName, u64)>,
    #[serde(skip)]
    open: BTreeMap<(LaneName, u32, GapCause), OpenGap>,
}

/// One CPU's count of one lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Count {
    lane: LaneName,
    cpu: u32,
    /// Last number accounted for, as the record counts: from 1 within the boot.
    last: u64,
    /// Difference between the record's count and the kernel's: its maps were removed and made anew within the boot.
    base: u64,
    time: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq)]
struct OpenGap {
    first_seq: u64,
    last_seq: u64,
    lost: u64,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// Numbers of one CPU and lane that did not come.
#[derive(Clone, Copy, Debug)]
struct Missing {
    lane: LaneName,
    cpu: u32,
    first: u64,
    last: u64,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// The kernel's counter of one CPU and lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCount {
    pub lane: LaneName,
    pub cpu: u32,
    pub seq: u64,
}

impl Sequence {
    /// Takes note of an event. `None`: it is on record already. Otherwise its number within the boot.
    ///
    /// `cause`: why numbers that were passed over are missing.
    pub fn see(&mut self, event: EventId, time: DateTime<Utc>, cause: GapCause) -> Option<u64> {
        let EventId { lane, cpu, seq } = event;
        let count = count_of(&mut self.counts, lane, cpu);
        let seq = seq.saturating_add(count.base);
        if seq <= count.last {
            return None;
        }
        let before = count.time;
        let missing =
            Missing { lane, cpu, first: count.last + 1, last: seq - 1, from: before.unwrap_or(time), to: time };
        count.last = seq;
        count.time = Some(time);
        let cause = if self.adopted && before.is_none() { GapCause::UncleanStop } else { cause };
        self.lose_passed_over(missing, cause);
        Some(seq)
    }

    /// Takes note of an event that could not be read, though its number could. `false`: it is accounted for already.
    pub fn see_unreadable(&mut self, event: EventId, time: DateTime<Utc>, cause: GapCause) -> bool {
        let Some(seq) = self.see(event, time, cause) else { return false };
        let EventId { lane, cpu, .. } = event;
        self.lose(Missing { lane, cpu, first: seq, last: seq, from: time, to: time }, GapCause::Unreadable);
        true
    }

    /// Takes note of an event that could not be read at all.
    pub fn see_unnumbered(&mut self, lane: LaneName) {
        match self.unreadable.iter_mut().find(|(known, _)| *known == lane) {
            Some((_, count)) => *count += 1,
            None => self.unreadable.push((lane, 1)),
        }
    }

    /// Compares with the kernel's counters before the rings were last seen empty: an event that has a number and did not
    /// come is lost.
    pub fn reconcile(&mut self, kernel: &[KernelCount], time: DateTime<Utc>, cause: GapCause) {
        for &KernelCount { lane, cpu, seq } in kernel {
            let count = count_of(&mut self.counts, lane, cpu);
            let seq = seq.saturating_add(count.base);
            if seq <= count.last {
                continue;
            }
            let from = count.time.unwrap_or(time);
            let missing = Missing { lane, cpu, first: count.last + 1, last: seq, from, to: time };
            count.last = seq;
            count.time = Some(time);
            self.lose_passed_over(missing, cause);
        }
    }

    /// The kernel's counters begin at 1 again within the same boot; the record counts on.
    pub fn restart_counters(&mut self) {
        for count in &mut self.counts {
            count.base = count.last;
        }
    }

    /// The kernel counted on while no account was kept: the numbers before the first are a gap `unclean_stop`.
    pub fn adopt_counters(&mut self) {
        self.adopted = true;
    }

    /// A gap for everything found since the last call.
    pub fn take_gaps(&mut self, node: &Arc<str>, boot_id: &Arc<str>) -> Vec<GapRow> {
        let row = |((lane, cpu, cause), gap): ((LaneName, u32, GapCause), OpenGap)| GapRow {
            lane: Some(lane),
            cpu: Some(cpu),
            first_seq: Some(gap.first_seq),
            last_seq: Some(gap.last_seq),
            lost_events: gap.lost,
            // One event is one packet.
            lost_packets: Some(gap.lost),
            ..GapRow::of(cause, node, boot_id, gap.from, gap.to, detail(cause))
        };
        std::mem::take(&mut self.open).into_iter().map(row).collect()
    }

    /// Gaps for unreadable events whose numbers were never found; for the end of a boot.
    pub fn take_unnumbered(&mut self, node: &Arc<str>, boot_id: &Arc<str>, time: DateTime<Utc>) -> Vec<GapRow> {
        let cause = GapCause::Unreadable;
        let row = |(lane, lost)| GapRow {
            lane: Some(lane),
            lost_events: lost,
            ..GapRow::of(cause, node, boot_id, time, time, detail(cause))
        };
        std::mem::take(&mut self.unreadable).into_iter().map(row).collect()
    }

    /// Last number accounted for, per lane and CPU (`denied/0`).
    pub fn last(&self) -> BTreeMap<String, i64> {
        let text = |count: &Count| {
            (format!("{}/{}", count.lane.as_str(), count.cpu), i64::try_from(count.last).unwrap_or(i64::MAX))
        };
        self.counts.iter().map(text).collect()
    }

    /// When the kernel decided the last event.
    pub fn last_time(&self) -> Option<DateTime<Utc>> {
        self.counts.iter().filter_map(|count| count.time).max()
    }

    /// Numbers that were passed over: as many as were unreadable are explained by that, the others by `cause`.
    fn lose_passed_over(&mut self, missing: Missing, cause: GapCause) {
        let Missing { lane, first, last, .. } = missing;
        if first > last {
            return;
        }
        let unreadable = self.explain(lane, last - first + 1);
        if unreadable > 0 {
            self.lose(Missing { last: first + unreadable - 1, ..missing }, GapCause::Unreadable);
        }
        if first + unreadable <= last {
            self.lose(Missing { first: first + unreadable, ..missing }, cause);
        }
    }

    /// Takes at most `most` from the unreadable events of a lane whose numbers are not known.
    fn explain(&mut self, lane: LaneName, most: u64) -> u64 {
        let Some(index) = self.unreadable.iter().position(|(known, _)| *known == lane) else { return 0 };
        let (_, count) = &mut self.unreadable[index];
        let explained = most.min(*count);
        *count -= explained;
        if *count == 0 {
            self.unreadable.remove(index);
        }
        explained
    }

    fn lose(&mut self, missing: Missing, cause: GapCause) {
        let Missing { lane, cpu, first, last, from, to } = missing;
        let lost = last - first + 1;
        self.open
            .entry((lane, cpu, cause))
            .and_modify(|gap| {
                gap.last_seq = last;
                gap.lost += lost;
                gap.to = to;
            })
            .or_insert(OpenGap { first_seq: first, last_seq: last, lost, from, to });
    }
}

fn count_of(counts: &mut Vec<Count>, lane: LaneName, cpu: u32) -> &mut Count {
    // A handful of CPUs and two lanes: a list is found through faster than a map.
    let index = counts.iter().position(|count| count.lane == lane && count.cpu == cpu).unwrap_or_else(|| {
        counts.push(Count { lane, cpu, last: 0, base: 0, time: None });
        counts.len() - 1
    });
    &mut counts[index]
}

/// Meaning of a gap's cause, for the reader of the record.
pub const fn detail(cause: GapCause) -> &'static str {
    match cause {
        GapCause::RingFull => "the ring had no room; state a longer outage in --ring-seconds",
        GapCause::QueueFull => "the queue had no room",
        GapCause::DiskFull => "the write-ahead log could not be written and the ring filled up; free disk space",
        GapCause::UploadAbandoned => "the upload was given up",
        GapCause::UncleanStop => "the node stopped before its rings were drained",
        GapCause::Unattached => "the interface was there before its programs were attached",
        GapCause::Unbound => {
            "programs are attached and nobody knows the pod: its packets are not ready, which enforce mode denies"
        }
        GapCause::Expired => "removed to stay below the cap on disk use",
        GapCause::Unreadable => "events could not be read; run collector and probe of one version",
        GapCause::SourceStale => "the cluster source could not be read whole; repair what readyz names",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn event(cpu: u32, seq: u64) -> EventId {
        EventId { lane: LaneName::Denied, cpu, seq }
    }

    fn gaps(sequence: &mut Sequence) -> Vec<(GapCause, u64, u64, u64)> {
        let rows = sequence.take_gaps(&"n".into(), &"b".into());
        rows.into_iter().map(|g| (g.cause, g.first_seq.unwrap(), g.last_seq.unwrap(), g.lost_events)).collect()
    }

    #[test]
    fn numbers_passed_over_are_one_exact_gap() {
        let mut sequence = Sequence::default();
        for seq in [1, 2, 5, 9] {
            assert_eq!(sequence.see(event(0, seq), time(1), GapCause::RingFull), Some(seq));
        }
        assert_eq!(sequence.see(event(1, 1), time(1), GapCause::RingFull), Some(1), "CPUs count apart");
        assert_eq!(gaps(&mut sequence), [(GapCause::RingFull, 3, 8, 5)]);
        assert_eq!(gaps(&mut sequence), [], "told once");
    }

    #[test]
    fn event_that_comes_twice_is_recorded_once() {
        let mut sequence = Sequence::default();
        assert!(sequence.see(event(0, 1), time(1), GapCause::RingFull).is_some());
        assert!(sequence.see(event(0, 1), time(1), GapCause::RingFull).is_none());
        let restored: Sequence = serde_json::from_str(&serde_json::to_string(&sequence).unwrap()).unwrap();
        assert_eq!(restored, sequence);
    }

    #[test]
    fn unreadable_events_explain_what_is_passed_over() {
        let mut sequence = Sequence::default();
        sequence.see(event(0, 1), time(1), GapCause::RingFull);
        sequence.see_unnumbered(LaneName::Denied);
        sequence.see(event(0, 4), time(1), GapCause::RingFull);
        assert_eq!(gaps(&mut sequence), [(GapCause::RingFull, 3, 3, 1), (GapCause::Unreadable, 2, 2, 1)]);
        assert!(sequence.take_unnumbered(&"n".into(), &"b".into(), time(2)).is_empty());
    }

    #[test]
    fn losses_at_the_end_come_to_light_by_the_kernels_counters() {
        let mut sequence = Sequence::default();
        sequence.see(event(0, 3), time(1), GapCause::RingFull);
        gaps(&mut sequence);
        let counters = [KernelCount { lane: LaneName::Denied, cpu: 0, seq: 7 }];
        sequence.reconcile(&counters, time(2), GapCause::RingFull);
        sequence.reconcile(&counters, time(3), GapCause::RingFull);
        assert_eq!(gaps(&mut sequence), [(GapCause::RingFull, 4, 7, 4)]);
        assert_eq!(sequence.see(event(0, 8), time(3), GapCause::RingFull), Some(8));
        assert_eq!(gaps(&mut sequence), []);
    }

    #[test]
    fn counters_made_anew_count_on_in_the_record() {
        let mut sequence = Sequence::default();
        sequence.see(event(0, 1), time(1), GapCause::RingFull);
        sequence.see(event(0, 2), time(1), GapCause::RingFull);
        sequence.restart_counters();
        assert_eq!(sequence.see(event(0, 1), time(2), GapCause::RingFull), Some(3));
        assert_eq!(gaps(&mut sequence), []);
    }
}
