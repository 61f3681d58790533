//! Observations with a still unknown pod at one end, held for a moment: a job that lives 300 ms is over before the API
//! server tells its address.
//!
//! Held observations are written at the next flush at the latest, so that nothing is committed without them.

use std::collections::VecDeque;

use crate::observation::Observation;

/// A kubelet reports within a second or two.
const HELD_NS: u64 = 3_000_000_000;
/// Beyond it the oldest is written as it is.
const MOST_HELD: usize = 4_096;

/// An event of our probe on its way to a row.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) ingest_ns: i64,
    pub(super) seq: u64,
    /// Nanoseconds since boot.
    pub(super) boot_time: u64,
    pub(super) observation: Observation,
}

/// In the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Held(VecDeque<Counted>);

impl Held {
    /// Holds an event. Returns the oldest held event if there is no room left.
    pub(super) fn push(&mut self, event: Counted) -> Option<Counted> {
        self.0.push_back(event);
        if self.0.len() > MOST_HELD { self.0.pop_front() } else { None }
    }

    /// Events that have been held for long enough, and events whose ends are known by now.
    pub(super) fn take_due(&mut self, boot_time: u64, is_known: impl Fn(&Observation) -> bool) -> Vec<Counted> {
        let is_due =
            |event: &Counted| event.boot_time.saturating_add(HELD_NS) <= boot_time || is_known(&event.observation);
        let (due, held) = self.0.drain(..).partition(is_due);
        self.0 = held;
        Vec::from(due)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
