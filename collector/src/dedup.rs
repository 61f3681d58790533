//! Dedup window of foreign reports: a report that its sender sends again is recorded once.
//!
//! A sender repeats reports that it believes to be unacknowledged: after a timeout, after a crash of the collector, after a
//! crash of its own. A report is recognised by its [`Cursor`]. The windows of the last hour are remembered, in the
//! checkpoint as well, so that a restart records nothing twice. Bounded in windows and keys; the oldest windows go
//! first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use netverdict_flowlog::row::Receiver;
use serde::{Deserialize, Serialize};

use crate::observation::{Cursor, Window};

/// Seconds of windows that are remembered. A sender of five-minute windows gives up after minutes.
const REMEMBERED: i64 = 3_600;
/// Keys that are remembered in all; the newest window is kept whole.
const MOST_KEYS: usize = 262_144;
/// Damaged records that are remembered.
const MOST_DAMAGED: usize = 1_024;
/// Hexadecimal digits of a key.
const DIGITS: usize = 32;

/// Reports that are on record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Stored>", into = "Vec<Stored>")]
pub struct Dedup {
    windows: BTreeMap<(Receiver, Window), BTreeSet<u128>>,
    /// Hashes of records that could not be read, oldest first: they have no window.
    damaged: VecDeque<(Receiver, u128)>,
    keys: usize,
    /// End of the newest window.
    newest: BTreeMap<Receiver, i64>,
}

impl Dedup {
    /// Takes note of a report. `false`: it is on record already.
    pub fn insert(&mut self, receiver: Receiver, cursor: Cursor) -> bool {
        let inserted = self.windows.entry((receiver, cursor.window)).or_default().insert(cursor.key);
        if inserted {
            self.keys += 1;
            self.forget(receiver, cursor.window.end);
        }
        inserted
    }

    /// Takes note of a record that cannot be read, by its hash. `false`: it is accounted for already.
    pub fn insert_damaged(&mut self, receiver: Receiver, hash: u128) -> bool {
        if self.damaged.contains(&(receiver, hash)) {
            return false;
        }
        if self.damaged.len() >= MOST_DAMAGED {
            self.damaged.pop_front();
        }
        self.damaged.push_back((receiver, hash));
        true
    }

    fn forget(&mut self, receiver: Receiver, end: i64) {
        let newest = self.newest.entry(receiver).or_insert(end);
        *newest = end.max(*newest);
        let (newest, oldest) = (*newest, newest.saturating_sub(REMEMBERED));
        let first = (receiver, Window { start: i64::MIN, end: i64::MIN });
        while let Some((&(known, window), _)) = self.windows.range(first..).next() {
            let is_superfluous = window.end < oldest || self.keys > MOST_KEYS && window.end < newest;
            if known != receiver || !is_superfluous {
                break;
            }
            self.keys -= self.windows.remove(&(known, window)).map_or(0, |keys| keys.len());
        }
    }
}

/// A window as the checkpoint has it: JSON has no 128-bit numbers, and one text costs less than a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    receiver: Receiver,
    /// `None`: the hashes of damaged records.
    window: Option<Window>,
    /// Hexadecimal digits, 32 a key.
    keys: String,
}

impl From<Dedup> for Vec<Stored> {
    fn from(dedup: Dedup) -> Self {
        let Dedup { windows, damaged, keys: _, newest: _ } = dedup;
        let stored = |((receiver, window), keys): ((Receiver, Window), BTreeSet<u128>)| Stored {
            receiver,
            window: Some(window),
            keys: text(keys.iter()),
        };
        let mut all: Self = windows.into_iter().map(stored).collect();
        let receivers: BTreeSet<Receiver> = damaged.iter().map(|(receiver, _)| *receiver).collect();
        for receiver in receivers {
            let hashes = damaged.iter().filter(|(known, _)| *known == receiver).map(|(_, hash)| hash);
            all.push(Stored { receiver, window: None, keys: text(hashes) });
        }
        all
    }
}

impl From<Vec<Stored>> for Dedup {
    fn from(all: Vec<Stored>) -> Self {
        let mut dedup = Self::default();
        for Stored { receiver, window, keys } in all {
            let digits = (0..keys.len()).step_by(DIGITS).filter_map(|at| keys.get(at..at + DIGITS));
            let keys = digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok());
            match window {
                Some(window) => {
                    let keys: BTreeSet<u128> = keys.collect();
                    dedup.keys += keys.len();
                    let newest = dedup.newest.entry(receiver).or_insert(window.end);
                    *newest = window.end.max(*newest);
                    dedup.windows.insert((receiver, window), keys);
                }
                None => dedup.damaged.extend(keys.map(|hash| (receiver, hash))),
            }
        }
        dedup
    }
}

fn text<'a>(keys: impl Iterator<Item = &'a u128>) -> String {
    use std::fmt::Write as _;
    keys.fold(String::new(), |mut text, key| {
        // Writing to a string does not fail.
        let _ = write!(text, "{key:032x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(start: i64, key: u128) -> Cursor {
        Cursor { window: Window { start, end: start + 300 }, key }
    }

    #[test]
    fn report_is_on_record_once_over_a_restart() {
        let mut dedup = Dedup::default();
        assert!(dedup.insert(Receiver::Goldmane, cursor(0, 1)));
        assert!(dedup.insert(Receiver::Goldmane, cursor(0, u128::MAX)));
        assert!(dedup.insert(Receiver::Goldmane, cursor(300, 1)), "another window");
        assert!(dedup.insert_damaged(Receiver::Goldmane, 7));
        let mut restored: Dedup = serde_json::from_str(&serde_json::to_string(&dedup).unwrap()).unwrap();
        assert_eq!(restored, dedup);
        assert!(!restored.insert(Receiver::Goldmane, cursor(0, 1)));
        assert!(!restored.insert(Receiver::Goldmane, cursor(0, u128::MAX)));
        assert!(!restored.insert_damaged(Receiver::Goldmane, 7));
    }

    #[test]
    fn windows_older_than_an_hour_are_forgotten() {
        let mut dedup = Dedup::default();
        for start in (0..7_200).step_by(300) {
            dedup.insert(Receiver::Goldmane, cursor(start, 1));
        }
        assert_eq!(dedup.windows.len(), 13);
        assert_eq!(dedup.keys, 13);
    }

    #[test]
    fn keys_are_bounded_and_the_newest_window_is_whole() {
        let mut dedup = Dedup::default();
        for key in 0..200_000 {
            dedup.insert(Receiver::Goldmane, cursor(0, key));
        }
        for key in 0..100_000 {
            assert!(dedup.insert(Receiver::Goldmane, cursor(300, key)));
        }
        assert_eq!((dedup.windows.len(), dedup.keys), (1, 100_000));
        assert!(!dedup.insert(Receiver::Goldmane, cursor(300, 0)));
    }

    #[test]
    fn damaged_checkpoint_text_is_no_panic() {
        let text = r#"[{"receiver":"goldmane","window":{"start":0,"end":1},"keys":"zzÄ012"}]"#;
        assert_eq!(serde_json::from_str::<Dedup>(text).unwrap().keys, 0);
    }
}
