//! Rows of the collector's state: at its start, every minute, and at its stop.

use netverdict_flowlog::row::{CollectorRow, CollectorState, Row};

use super::{Writer, facts::append_rows};
use crate::clock;

impl Writer {
    /// Appends a row of `collectors`.
    pub(super) fn append_heartbeat(&mut self, state: CollectorState) {
        let Some(session) = self.pipeline.session().cloned() else { return };
        let row = CollectorRow {
            time: clock::at(clock::now_ns()),
            node: session.node,
            boot_id: session.boot_id,
            state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: session.mode,
            last_seq: self.pipeline.last_seq(),
            lost_events: self.lost,
            endpoints: u64::try_from(self.metrics.endpoints.get()).unwrap_or(0),
        };
        append_rows(&self.store, &self.metrics, vec![Row::Collector(Box::new(row))]);
    }
}
