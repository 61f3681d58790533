//! Followers: clients that poll for new records. Keeps each one's position and the records that it has.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    QueryError,
    dedup_window::{Arrival, DedupWindow},
};

/// Followers that are remembered, and for how long after their last question.
const MAX_FOLLOWERS: usize = 64;
const FORGOTTEN: Duration = Duration::from_secs(300);

/// The followers that asked lately.
#[derive(Debug, Default)]
pub struct Followers(Mutex<HashMap<u64, Follower>>);

#[derive(Debug)]
struct Follower {
    used: Instant,
    window: DedupWindow,
}

/// Where a follower is, as the client keeps it: the arrival of the newest record that it was given, and its number here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) newest: DateTime<Utc>,
    follower: u64,
}

impl Cursor {
    pub(super) fn parse(text: &str) -> Result<Self, QueryError> {
        let parsed = text.split_once('-').and_then(|(newest, follower)| {
            let newest = DateTime::from_timestamp_micros(newest.parse().ok()?)?;
            Some(Self { newest, follower: u64::from_str_radix(follower, 16).ok()? })
        });
        parsed.ok_or_else(|| QueryError::BadRequest {
            message: "after is no cursor".into(),
            remedy: "give back the cursor of the last answer as it was".into(),
        })
    }

    pub(super) fn text(&self) -> String {
        format!("{}-{:016x}", self.newest.timestamp_micros(), self.follower)
    }
}

impl Followers {
    /// A new follower, which was given these records.
    pub(super) fn begin(&self, given: &[Arrival], now: DateTime<Utc>) -> Cursor {
        let window = DedupWindow::starting_with(given, now);
        let cursor = Cursor { newest: window.newest(), follower: random() };
        self.with(|followers| followers.insert(cursor.follower, Follower { used: Instant::now(), window }));
        cursor
    }

    /// Of these records, at most `limit` that a follower was not given yet; and where that leaves it. Of a follower that
    /// is forgotten only its cursor is known: it has all records that arrived until then.
    pub(super) fn take_new(
        &self,
        cursor: Cursor,
        arrivals: impl IntoIterator<Item = Arrival>,
        limit: usize,
    ) -> (Vec<Arrival>, Cursor) {
        self.with(|followers| {
            let known = followers.remove(&cursor.follower).map(|follower| follower.window);
            let mut window = known.unwrap_or_else(|| DedupWindow::after(cursor.newest));
            let new = window.take_new(arrivals, limit);
            let cursor = Cursor { newest: window.newest().max(cursor.newest), ..cursor };
            followers.insert(cursor.follower, Follower { used: Instant::now(), window });
            (new, cursor)
        })
    }

    /// Does work with the followers that are not forgotten; there is room for one more.
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<u64, Follower>) -> T) -> T {
        let mut followers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|_, follower| follower.used.elapsed() < FORGOTTEN);
        if followers.len() >= MAX_FOLLOWERS
            && let Some(oldest) =
                followers.iter().max_by_key(|(_, follower)| follower.used.elapsed()).map(|(id, _)| *id)
        {
            followers.remove(&oldest);
        }
        work(&mut followers)
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers followers share a window, and miss records that others were given.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}
