//! The grace period: the wait until every program that was running when maps were last written has ended. Before that,
//! entries that a program may still use cannot be deleted, and no key may be written a second time (see `validated_read` in the
//! programs).

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{MembarrierCommand, membarrier};

#[derive(Debug)]
pub(super) struct GracePeriod {
    /// When maps were last written; `None` once the programs that were running then have ended.
    written: Option<Instant>,
    /// How long to wait before the first look, and how long programs are assumed to run where the kernel gives no answer.
    duration: Duration,
}

impl GracePeriod {
    /// Begins now: an earlier process may have written just before this one started.
    pub(super) fn new(duration: Duration) -> Self {
        Self { written: Some(Instant::now()), duration }
    }

    /// Maps were written: begins anew.
    pub(super) fn restart(&mut self) {
        self.written = Some(Instant::now());
    }

    /// Whether its duration has passed, so that [`Self::wait`] will hardly block.
    pub(super) fn has_passed(&self) -> bool {
        self.written.is_none_or(|written| written.elapsed() >= self.duration)
    }

    /// Blocks until the programs have ended. Returns at once if maps were not written since the last wait.
    pub(super) fn wait(&mut self) {
        if let Some(written) = self.written.take() {
            wait_for_programs(written, self.duration);
        }
    }
}

/// Returns when every program that was running at `since` has ended. `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace
/// period (`kernel/sched/membarrier.c`, since Linux 4.3), and a BPF program runs inside an RCU read-side critical
/// section. Where the kernel refuses the command (`nohz_full`, or a filter of system calls), programs are assumed to
/// run no longer than `assumed`.
fn wait_for_programs(since: Instant, assumed: Duration) {
    if membarrier(MembarrierCommand::Global).is_err() {
        thread::sleep((since + assumed).saturating_duration_since(Instant::now()));
    }
}
