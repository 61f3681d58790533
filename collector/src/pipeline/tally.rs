//! The counts of the pipeline, beside the rows that it gives.

use std::collections::BTreeMap;

/// The numbers of a pipeline that cannot be seen in its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By lane; all readable events, repeats of the ring included.
    pub events: BTreeMap<&'static str, u64>,
    /// By the label of the error.
    pub unreadable: BTreeMap<&'static str, u64>,
    /// Events that were on record already.
    pub repeated: u64,
    /// Reports of other systems by outcome.
    pub reports: Reports,
    /// The first refusals since the last call, for the log.
    pub refusals: Vec<String>,
}

/// Reports of other systems, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    pub recorded: u64,
    /// On record already: their sender repeats itself.
    pub repeated: u64,
    /// Without any traffic, so without a row.
    pub empty: u64,
}
