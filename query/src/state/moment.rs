//! A moment in the history of policy states.

use chrono::{DateTime, Utc};

/// Which state is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Newest,
    At(DateTime<Utc>),
    /// By its number.
    Number(u64),
}
