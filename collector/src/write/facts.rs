//! Rows that come from nowhere else: changes of the cluster, gaps without events, the collector's own state. The store
//! journals them before any reader relies on them.

use std::sync::Arc;

use netverdict_flowlog::row::Row;
use netverdict_service::error_chain::chain;

use crate::{
    health::Part,
    input::{Fact, Input},
    metrics::Metrics,
    recording::SharedRecorder,
    store::Store,
};

/// Where facts go: into the store, and into the recorded file if one is being written.
#[derive(Clone)]
pub struct FactLog {
    pub store: Arc<Store>,
    pub recorder: SharedRecorder,
    pub metrics: Metrics,
}

impl FactLog {
    /// Appends facts. Returns whether they are durable.
    pub fn append(&self, facts: Vec<Fact>) -> bool {
        let input = Input::Facts(facts);
        self.recorder.write(&input);
        let Input::Facts(facts) = input else { return false };
        append_rows(&self.store, &self.metrics, facts.into_iter().map(Row::from).collect())
    }
}

/// Appends rows that no input gives again. Returns whether they are durable.
pub fn append_rows(store: &Store, metrics: &Metrics, rows: Vec<Row>) -> bool {
    if rows.is_empty() {
        return true;
    }
    metrics.rows(&rows);
    match store.append(rows, None) {
        Ok(appended) => appended.unsafe_rows == 0,
        Err(error) => {
            metrics.failed(Part::Store);
            tracing::error!(error = %chain(&error), "rows not journalled");
            false
        }
    }
}
