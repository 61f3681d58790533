//! Lines that could not be read, and why.

use thiserror::Error;

/// Longest line: a flow with some hundred policies has a few tens of KiB.
pub const MAX_LINE_BYTES: usize = 256 << 10;
/// Characters of an error text that are kept: it may quote the line.
pub(super) const MOST_DETAIL: usize = 200;

/// Why a line was not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    #[error("line has {found} bytes, expected at most {MAX_LINE_BYTES}")]
    Length { found: usize },
    #[error("line is no flow in JSON: {found}")]
    Json { found: String },
    #[error("flow has no Key")]
    Key,
    #[error("flow field {field} holds {found}, which is not in its list")]
    Code { field: &'static str, found: String },
    #[error(
        "window from {start} to {end} is not near its receipt at {received} (seconds since 1970): check the clocks"
    )]
    Window { start: i64, end: i64, received: i64 },
}

impl Unreadable {
    /// Label of the metric: a closed list.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Length { .. } => "length",
            Self::Json { .. } => "json",
            Self::Key => "key",
            Self::Code { .. } => "code",
            Self::Window { .. } => "window",
        }
    }

    pub(super) fn code(field: &'static str, found: impl ToString) -> Self {
        Self::Code { field, found: found.to_string().chars().take(MOST_DETAIL).collect() }
    }
}
