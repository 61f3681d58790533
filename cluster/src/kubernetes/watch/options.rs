//! Times of a watch.

use std::time::Duration;

/// Times. The defaults are for clusters; a test has less of it.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// Between questions which kinds are served, and so the longest time until an API server that stands still is noticed.
    /// A change of the definitions is noticed at once where we may watch them.
    /// A few small requests a node: 1 000 nodes make some 100 a second.
    pub discover_every: Duration,
    /// How long a watch is asked to last, at least; twice this at most. Then the server checks our rights again.
    pub lifetime: Duration,
    /// The longest silence of a watch. A server sends a bookmark a minute.
    pub silence: Duration,
    /// How long a kind may not be watched before that is reported: a watch that is opened again at once misses nothing.
    pub grace: Duration,
    /// Between a failure and the next attempt, at first and at most.
    pub first_backoff: Duration,
    pub most_backoff: Duration,
    /// Changes that come within this time are handed out together: a rollout's, or those of a folder that is applied.
    pub window: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            discover_every: Duration::from_secs(20),
            lifetime: Duration::from_secs(300),
            silence: Duration::from_secs(100),
            grace: Duration::from_secs(3),
            first_backoff: Duration::from_millis(500),
            most_backoff: Duration::from_secs(30),
            window: Duration::from_millis(10),
        }
    }
}

impl WatchOptions {
    /// How long a watch is asked to last, in seconds: not the same for all, so that they do not end together.
    pub(super) fn watch_seconds(&self) -> u32 {
        let lifetime = self.lifetime.mul_f64(1.0 + fastrand::f64());
        u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).max(1)
    }
}
