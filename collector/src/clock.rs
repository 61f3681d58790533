//! The clocks: the boot, the time, and the difference between the kernel's clock and the calendar.

use std::{
    io,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use rustix::time::{ClockId, clock_gettime};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const NANOSECONDS: i64 = 1_000_000_000;

/// The kernel's name for this boot, a UUID.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// Now, in nanoseconds since 1970 (until the year 2262).
pub fn now_ns() -> i64 {
    read(ClockId::Realtime)
}

/// Nanoseconds since boot, suspended time included: the clock of events.
pub fn boot_time_ns() -> u64 {
    u64::try_from(read(ClockId::Boottime)).unwrap_or(0)
}

/// Difference between a time since 1970 and a time since boot. It changes when the calendar is set, so it is sampled
/// repeatedly, and every batch keeps the sample of its own time.
pub fn offset_ns() -> i64 {
    // The calendar was read halfway between the two readings of the other clock.
    let before = read(ClockId::Boottime);
    let calendar = read(ClockId::Realtime);
    let after = read(ClockId::Boottime);
    calendar - (before + (after - before) / 2)
}

/// A moment as rows have it.
pub fn at(ns: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(ns)
}

/// The time of an event, in nanoseconds since 1970.
pub fn event_ns(boot_time: u64, offset: i64) -> i64 {
    i64::try_from(boot_time).unwrap_or(i64::MAX).saturating_add(offset)
}

/// A moment of the standard library's clock as rows have it.
pub fn of(time: SystemTime) -> DateTime<Utc> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    at(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Nanoseconds since 1970 as a moment of the standard library's clock.
pub fn time_of(ns: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(NANOSECONDS).saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_of_this_moment_is_dated_now() {
        let dated = event_ns(boot_time_ns(), offset_ns());
        assert!((now_ns() - dated).abs() < NANOSECONDS, "off by {} ns", now_ns() - dated);
    }

    #[test]
    fn absurd_boot_times_do_not_overflow() {
        assert_eq!(event_ns(u64::MAX, i64::MAX), i64::MAX);
    }
}
