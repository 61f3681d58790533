//! How full a map is, as status reports and metrics show it.

use serde::Serialize;

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapOccupancy {
    pub map: &'static str,
    /// Entries, or bytes of a ring; `None` where counting would mean reading a large map whole.
    pub used: Option<u64>,
    /// Entries, or bytes of a ring, that fit.
    pub limit: u64,
}
