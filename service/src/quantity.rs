//! Times and amounts of bytes as people write them in options: `500ms`, `15m`, `20GiB`.

use std::time::Duration;

/// A century: more than any use needs, and keeps sums of times far from overflow.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);

/// A length of time: `500ms`, `2s`, `15m`, `2h`, `7d`, `1w`; a bare number is seconds.
///
/// # Errors
/// Names the expected form beside the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a time such as 500ms, 2s, 15m, 2h or 7d, found `{text}`");
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return Err(wrong()),
    };
    let time = number.and_then(|number| number.checked_mul(milliseconds)).map(Duration::from_millis);
    time.filter(|time| *time <= LONGEST).ok_or_else(|| format!("expected at most a hundred years, found `{text}`"))
}

/// As [`duration`], but not zero: for settings that with zero would never end, or never begin.
///
/// # Errors
/// Names the expected form beside the text.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("expected more than 0, found `{text}`")),
        time => Ok(time),
    }
}

/// An amount of bytes: `500MiB`, `20GiB`, `1TB`; a bare number is bytes.
///
/// # Errors
/// Names the expected form beside the text.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected an amount such as 500MiB, 20GiB or 1TB, found `{text}`");
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let amount = number.and_then(|number| number.checked_mul(unit));
    amount.ok_or_else(|| format!("expected at most 16 EiB, found `{text}`"))
}

/// `None` without digits; the number is `None` when it is too large for any unit.
fn number_and_unit(text: &str) -> Option<(Option<u64>, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (!number.is_empty()).then(|| (number.parse().ok(), unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("3", 3_000),
            ("15m", 900_000),
            ("15 min", 900_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, expected) in [("20GiB", 20 << 30), ("5 MB", 5_000_000), ("0", 0), ("512B", 512), ("1kB", 1_000)] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_was_expected() {
        for wrong in ["", "s", "m", "-1s", "1.5h", "1 fortnight", "3 fortnights", "0x10"] {
            let error = duration(wrong).expect_err(wrong);
            assert!(error.contains("expected a time such as") && error.contains(&format!("`{wrong}`")), "{error}");
            let error = bytes(wrong).expect_err(wrong);
            assert!(error.contains("expected an amount such as"), "{error}");
        }
        for long in ["99999999999999999999d", "40000000000d", "18446744073709551615h"] {
            assert!(duration(long).expect_err(long).contains("at most a hundred years"));
        }
        for large in ["99999999999999999999", "18446744073709551615KiB"] {
            assert!(bytes(large).expect_err(large).contains("at most 16 EiB"));
        }
        assert!(positive_duration("0s").expect_err("zero").contains("more than 0"));
    }
}
