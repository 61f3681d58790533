//! The time that a statement has.

use std::time::Duration;

use tokio::time::Instant;

/// When a statement must have ended.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    pub(crate) at: Instant,
    /// The time from the statement's start to `at`, for error texts.
    pub(crate) timeout: Duration,
}

impl Deadline {
    pub fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }
}
