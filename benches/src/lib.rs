//! Shared code of the benches: processor time, memory, medians and draws that are the same in every run.
//!
//! Times are of the processor, not of the wall: other work of the machine affects a measurement little. It measures
//! nothing itself.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads of this process.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// The result of `work` and its processor time.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = cpu_time();
    let value = work();
    (value, cpu_time() - before)
}

/// The middle of an odd number of values, the upper of the middle two of an even number.
///
/// # Panics
/// There are none.
pub fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

/// A line of `/proc/self/status` that counts KiB, in bytes: `VmRSS`, or `VmHWM` for the peak.
///
/// # Errors
/// The file cannot be read, or has no such line.
pub fn memory(line: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status cannot be read")?;
    let found = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let found = found.with_context(|| format!("/proc/self/status has no line {line}"))?;
    let kib: u64 = found.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

/// Numbers that look drawn and are the same in every run.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `bound`, which is at least 1 and at most 2³¹.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound
    }

    /// # Panics
    /// The slice is empty.
    pub fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }
}
