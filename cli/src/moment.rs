//! Moments as people type them: an RFC 3339 time, or how long ago.

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;

/// A moment, absolute or counted back from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    At(DateTime<Utc>),
    Ago(TimeDelta),
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("expected how long ago (90s, 15m, 2h, 7d, 1h30m) or an RFC 3339 time (2026-05-01T12:00:00Z), found `{0}`")]
pub(crate) struct MomentError(String);

impl Moment {
    /// For clap.
    pub(crate) fn parse(text: &str) -> Result<Self, MomentError> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(time.to_utc()));
        }
        duration(text).map(Self::Ago).ok_or_else(|| MomentError(text.to_owned()))
    }

    /// Before the earliest time there is, that one.
    pub(crate) fn resolve(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => now.checked_sub_signed(span).unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }
}

/// `1h30m` and the like; `None` for anything else, and for more than ten years.
fn duration(text: &str) -> Option<TimeDelta> {
    const MOST: TimeDelta = TimeDelta::days(3653);
    let mut total = TimeDelta::zero();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let amount: i64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let unit = match &rest[digits..unit_end] {
            "ms" => TimeDelta::try_milliseconds(amount)?,
            "s" => TimeDelta::try_seconds(amount)?,
            "m" => TimeDelta::try_minutes(amount)?,
            "h" => TimeDelta::try_hours(amount)?,
            "d" => TimeDelta::try_days(amount)?,
            "w" => TimeDelta::try_weeks(amount)?,
            _ => return None,
        };
        total = total.checked_add(&unit)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty() && total <= MOST).then_some(total)
}

/// `12 s ago`, in the largest unit that fits; `just now` under a second, and for what lies ahead.
pub(crate) fn ago(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - time).num_seconds();
    match seconds {
        ..1 => "just now".to_owned(),
        1..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `12s`, `3m`, `7h`, `10d`: in the largest unit that fits. What lies ahead is `0s`.
pub(crate) fn span(time: TimeDelta) -> String {
    let seconds = time.num_seconds();
    match seconds {
        ..1 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// As tables show a time: UTC, to the millisecond.
pub(crate) fn stamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    #[test]
    fn reads_spans_and_times() {
        let now = at("2026-05-01T12:00:00Z");
        for (text, expected) in [
            ("90s", "2026-05-01T11:58:30Z"),
            ("15m", "2026-05-01T11:45:00Z"),
            ("1h30m", "2026-05-01T10:30:00Z"),
            ("7d", "2026-04-24T12:00:00Z"),
            ("2026-04-30T23:00:00+01:00", "2026-04-30T22:00:00Z"),
        ] {
            assert_eq!(Moment::parse(text).unwrap().resolve(now), at(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in ["", "5", "h", "5x", "-5m", "99999999999999999999s", "999999d", "yesterday", "5mé"] {
            assert_eq!(Moment::parse(text), Err(MomentError(text.to_owned())));
        }
    }

    #[test]
    fn ages_are_in_the_largest_unit_that_fits() {
        let now = at("2026-05-01T12:00:00Z");
        for (time, expected) in [
            ("2026-05-01T12:00:05Z", "just now"),
            ("2026-05-01T11:59:48Z", "12 s ago"),
            ("2026-05-01T11:57:00Z", "3 min ago"),
            ("2026-05-01T05:00:00Z", "7 h ago"),
            ("2026-04-21T05:00:00Z", "10 days ago"),
        ] {
            assert_eq!(ago(at(time), now), expected);
        }
    }
}
