//! Figures and times that the status of the collector is made of: set by the parts, and read back from the metrics.

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    answer::{EventCounts, Loss},
    row::{GapCause, LaneName},
};
use netverdict_policy::{Reason, Verdict};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::{CauseLabel, LaneLabel, Metrics, VerdictLabel};
use crate::{clock, sequence};

impl Metrics {
    /// A snapshot came into force now.
    pub fn in_force(&self) {
        set_now(&self.in_force_at);
    }

    /// When the snapshot in force came into force; `None`: none has since the start.
    pub fn in_force_at(&self) -> Option<DateTime<Utc>> {
        time(&self.in_force_at)
    }

    /// Since when a source cannot see changes, in nanoseconds since 1970; `None`: all can.
    pub fn stale(&self, since_ns: Option<i64>) {
        self.stale_since.set(since_ns.map_or(0, |ns| clock::at(ns).timestamp()));
    }

    pub fn stale_since(&self) -> Option<DateTime<Utc>> {
        time(&self.stale_since)
    }

    /// Rows were flushed to files now.
    pub fn flushed(&self) {
        self.flushes.inc();
        set_now(&self.flushed_at);
    }

    /// When rows were last flushed; `None`: not since the start.
    pub fn flushed_at(&self) -> Option<DateTime<Utc>> {
        time(&self.flushed_at)
    }

    /// Events of rows that memory has no room for, now: the store makes their gap itself.
    pub fn dropped(&self, events: u64) {
        self.lost(GapCause::DiskFull, events, clock::at(clock::now_ns()).timestamp());
    }

    pub fn event_counts(&self) -> EventCounts {
        let lane = |lane: &LaneName| {
            let label = LaneLabel { lane: lane.as_str() };
            (lane.to_string(), count(self.events.get(&label).as_deref()))
        };
        let verdicts = Verdict::ALL.iter().flat_map(|verdict| Reason::ALL.iter().map(move |reason| (verdict, reason)));
        let recorded = verdicts.map(|(verdict, reason)| {
            let label = VerdictLabel { verdict: verdict.as_str(), reason: reason.as_str() };
            count(self.verdicts.get(&label).as_deref())
        });
        EventCounts {
            read: LaneName::ALL.iter().map(lane).collect(),
            repeated: self.repeated.get(),
            recorded: recorded.sum(),
        }
    }

    /// Causes that events were lost for.
    pub fn losses(&self) -> Vec<Loss> {
        let loss = |cause: &GapCause| {
            let label = CauseLabel { cause: cause.as_str() };
            let events = count(self.lost.get(&label).as_deref());
            (events > 0).then(|| Loss {
                cause: cause.to_string(),
                events,
                last: self.lost_at.get(&label).as_deref().and_then(time),
                detail: sequence::detail(*cause).to_owned(),
            })
        };
        GapCause::ALL.iter().filter_map(loss).collect()
    }
}

fn count(counter: Option<&Counter>) -> u64 {
    counter.map_or(0, Counter::get)
}

fn set_now(gauge: &Gauge) {
    gauge.set(clock::at(clock::now_ns()).timestamp());
}

/// To the second; `None` for 0.
fn time(gauge: &Gauge) -> Option<DateTime<Utc>> {
    Some(gauge.get()).filter(|seconds| *seconds > 0).and_then(|seconds| DateTime::from_timestamp(seconds, 0))
}

#[cfg(test)]
mod tests {
    use netverdict_flowlog::row::{FlowRow, GapRow, Row};

    use super::*;

    #[test]
    fn losses_are_told_by_cause_with_the_last_time_and_gaps_without_events_are_none() {
        let metrics = Metrics::default();
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let gap = |cause, lost_events, to| {
            let row = GapRow::of(cause, &"n".into(), &"b".into(), at(to - 1), at(to), "");
            Row::Gap(Box::new(GapRow { lost_events, ..row }))
        };
        metrics.rows(&[
            gap(GapCause::RingFull, 5, 200),
            gap(GapCause::RingFull, 2, 100),
            gap(GapCause::Unattached, 0, 300),
        ]);
        let [loss] = metrics.losses().try_into().unwrap();
        assert_eq!((loss.cause.as_str(), loss.events, loss.last), ("ring_full", 7, Some(at(200))));
        assert!(loss.detail.contains("--ring-seconds"), "{}", loss.detail);
        metrics.dropped(3);
        assert_eq!(metrics.losses().iter().map(|loss| loss.events).sum::<u64>(), 10);
    }

    #[test]
    fn events_of_every_verdict_and_lane_are_counted() {
        let metrics = Metrics::default();
        let row =
            |verdict, reason, count| Row::Flow(Box::new(FlowRow { verdict, reason, count, ..FlowRow::default() }));
        metrics.rows(&[
            row(Verdict::Denied, Reason::IsolatedNoMatch, 4),
            row(Verdict::Allowed, Reason::NoPolicy, 1),
            row(Verdict::Unknown, Reason::UnknownPod, 2),
        ]);
        let counts = metrics.event_counts();
        assert_eq!((counts.recorded, counts.repeated), (7, 0));
        assert_eq!(counts.read.keys().collect::<Vec<_>>(), ["denied", "flow"]);
    }

    #[test]
    fn times_are_none_until_something_has_happened() {
        let metrics = Metrics::default();
        assert_eq!((metrics.in_force_at(), metrics.flushed_at(), metrics.stale_since()), (None, None, None));
        metrics.stale(Some(1_777_634_400_000_000_000));
        assert_eq!(metrics.stale_since(), DateTime::from_timestamp(1_777_634_400, 0));
        metrics.stale(None);
        metrics.in_force();
        metrics.flushed();
        assert!(metrics.in_force_at().is_some() && metrics.flushed_at().is_some() && metrics.stale_since().is_none());
    }
}
