//! The time between attempts: it doubles with each failure up to a limit, and half of it is chance, so that the nodes of
//! a cluster do not come back to a restarted API server all at once.

use std::time::Duration;

/// The longest wait that a server may ask for.
const MOST_ASKED: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// How long to wait after a failure. `asked`: the wait that the server asks for, as with 429.
    pub(super) fn after_failure(&mut self, asked: Option<Duration>) -> Duration {
        let half = self.next / 2;
        let wait = half + half.mul_f64(fastrand::f64());
        self.next = (self.next * 2).min(self.most);
        // A little more than asked, for the same reason.
        let asked = asked.map(|asked| asked.min(MOST_ASKED).mul_f64(1.0 + fastrand::f64() / 4.0));
        wait.max(asked.unwrap_or_default())
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_a_server_may_ask_for_longer_ones() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let waits: Vec<Duration> = (0..20).map(|_| backoff.after_failure(None)).collect();
        assert!(waits[0] >= Duration::from_millis(250) && waits[0] <= Duration::from_millis(500), "{waits:?}");
        assert!(waits[10..].iter().all(|wait| *wait >= Duration::from_secs(15) && *wait <= Duration::from_secs(30)));
        backoff.reset();
        assert!(backoff.after_failure(None) <= Duration::from_millis(500));
        assert!(backoff.after_failure(Some(Duration::from_secs(20))) >= Duration::from_secs(20));
        assert!(backoff.after_failure(Some(Duration::MAX)) <= MOST_ASKED.mul_f64(1.25));
    }
}
