//! The one time that packages have: that of their source.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{output, root};

/// The variable of reproducible builds, which dpkg-deb reads too.
pub(super) const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) u64);

impl Moment {
    /// SOURCE_DATE_EPOCH, or else the time of the last commit.
    pub(super) fn of_commit() -> Result<Self> {
        let text = match std::env::var(VARIABLE) {
            Ok(text) => text,
            Err(_) => output(Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]))
                .with_context(|| {
                    format!("the time of the source is not known: set {VARIABLE} to its seconds since 1970")
                })?,
        };
        let seconds = text.trim().parse();
        Ok(Self(seconds.with_context(|| format!("{VARIABLE}: expected seconds since 1970, found `{}`", text.trim()))?))
    }

    /// As changelogs have it: `Sun, 29 Nov 2026 00:00:00 +0000`.
    pub(super) fn written_out(self) -> Result<String> {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C").args(["--utc", "--rfc-email", &format!("--date=@{}", self.0)]);
        Ok(output(&mut date)?.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_in_a_changelog() {
        assert_eq!(Moment(86_400).written_out().unwrap(), "Fri, 02 Jan 1970 00:00:00 +0000");
    }
}
