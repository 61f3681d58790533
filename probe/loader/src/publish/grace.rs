//! Waits for the programs that are running on any CPU.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{MembarrierCommand, membarrier};

/// Returns when every program that was running at `since` has ended. `assumed`: how long that takes at most, where the
/// kernel will not say (one with `nohz_full`, or a filter of system calls).
pub(super) fn wait(since: Instant, assumed: Duration) {
    // It waits for an RCU grace period, and every BPF program is an RCU reader.
    if membarrier(MembarrierCommand::Global).is_err() {
        thread::sleep((since + assumed).saturating_duration_since(Instant::now()));
    }
}
