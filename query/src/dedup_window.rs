//! A dedup window: hands each record to a reader once, although records arrive late and out of order.
//!
//! The reader asks again for all records that arrived within the last [`LATE`] seconds before the newest one it has, and
//! leaves out the records that it was given. A record that becomes visible later than that is lost to the reader.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

/// The longest time, in seconds, between a record's arrival and the moment at which it can be read.
pub(crate) const LATE: i64 = 60;
/// Most records that are remembered.
const MAX_SEEN: usize = 40_000;

/// A record as the window knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The same for the same record, whenever it is read.
    pub(crate) id: u64,
    /// When it was recorded (`ingest_time`).
    pub(crate) time: DateTime<Utc>,
}

/// Records that one reader was given.
#[derive(Debug)]
pub(crate) struct DedupWindow {
    /// The reader has all that arrived until then, whether it was given to it here or not.
    begun: DateTime<Utc>,
    /// The newest arrival that the reader was given.
    newest: DateTime<Utc>,
    seen: HashMap<u64, DateTime<Utc>>,
}

impl DedupWindow {
    /// The window of a reader that has all that arrived until `begun`.
    pub(crate) fn after(begun: DateTime<Utc>) -> Self {
        Self { begun, newest: begun, seen: HashMap::new() }
    }

    /// The window of a reader that was just given these records, and wants records that arrive from then on.
    pub(crate) fn starting_with(given: &[Arrival], now: DateTime<Utc>) -> Self {
        let newest = given.iter().map(|arrival| arrival.time).fold(now - TimeDelta::seconds(LATE), DateTime::max);
        let mut window = Self::after(newest);
        window.remember(given);
        window
    }

    /// The newest arrival that the reader was given: where it goes on from.
    pub(crate) fn newest(&self) -> DateTime<Utc> {
        self.newest
    }

    /// Of these records, at most `limit` that the reader was not given yet; from now on it was.
    pub(crate) fn take_new(&mut self, arrivals: impl IntoIterator<Item = Arrival>, limit: usize) -> Vec<Arrival> {
        let is_new = |arrival: &Arrival| arrival.time > self.begun && !self.seen.contains_key(&arrival.id);
        let new: Vec<Arrival> = arrivals.into_iter().filter(is_new).take(limit).collect();
        self.remember(&new);
        new
    }

    fn remember(&mut self, given: &[Arrival]) {
        self.newest = given.iter().map(|arrival| arrival.time).fold(self.newest, DateTime::max);
        let since = self.newest - TimeDelta::seconds(LATE);
        self.seen.retain(|_, time| *time >= since);
        if self.seen.len() > MAX_SEEN {
            // So many in a minute that no reader keeps up: it begins again from the newest.
            self.seen.clear();
        }
        self.seen.extend(given.iter().map(|arrival| (arrival.id, arrival.time)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(id: u64, second: i64) -> Arrival {
        Arrival { id, time: DateTime::from_timestamp(second, 0).expect("a time") }
    }

    fn ids(arrivals: &[Arrival]) -> Vec<u64> {
        arrivals.iter().map(|arrival| arrival.id).collect()
    }

    #[test]
    fn each_record_is_given_once_however_late() {
        let mut window = DedupWindow::after(arrival(0, 100).time);
        // Of before the reader began.
        assert_eq!(ids(&window.take_new([arrival(1, 99), arrival(2, 100)], 10)), [0; 0]);
        assert_eq!(ids(&window.take_new([arrival(3, 101), arrival(4, 130)], 10)), [3, 4]);
        assert_eq!(window.newest(), arrival(0, 130).time);
        // Visible after a newer one.
        assert_eq!(ids(&window.take_new([arrival(3, 101), arrival(5, 102), arrival(4, 130)], 10)), [5]);
        assert_eq!(ids(&window.take_new([arrival(3, 101), arrival(5, 102), arrival(4, 130)], 10)), [0; 0]);
    }

    #[test]
    fn what_does_not_fit_comes_next() {
        let mut window = DedupWindow::after(arrival(0, 0).time);
        let all = [arrival(1, 1), arrival(2, 2), arrival(3, 3)];
        assert_eq!(ids(&window.take_new(all, 2)), [1, 2]);
        assert_eq!(window.newest(), arrival(0, 2).time);
        assert_eq!(ids(&window.take_new(all, 2)), [3]);
    }

    #[test]
    fn a_reader_that_starts_has_what_it_was_given() {
        let given = [arrival(1, 90), arrival(2, 95)];
        let mut window = DedupWindow::starting_with(&given, arrival(0, 100).time);
        assert_eq!(window.newest(), arrival(0, 95).time);
        assert_eq!(ids(&window.take_new([arrival(2, 95), arrival(3, 94), arrival(4, 96)], 10)), [4]);
        // Without records the reader has all but those of the last minute.
        assert_eq!(DedupWindow::starting_with(&[], arrival(0, 100).time).newest(), arrival(0, 40).time);
    }

    #[test]
    fn only_the_window_is_remembered() {
        let mut window = DedupWindow::after(arrival(0, 0).time);
        for second in 1_i64..1_000 {
            window.take_new([arrival(second.unsigned_abs(), second)], 10);
        }
        assert_eq!(window.seen.len(), 61);
        let many = (0..=MAX_SEEN as u64).map(|id| arrival(10_000 + id, 999));
        window.take_new(many, usize::MAX);
        window.take_new([arrival(1, 999)], 10);
        assert_eq!(window.seen.len(), 1);
    }
}
