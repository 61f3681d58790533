//! The metrics of the service, for Prometheus. Labels come from closed lists only.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use netverdict_service::http_server::HttpServerMetrics;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::error::QueryError;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    /// `ok` or a code of `ErrorAnswer`; of policy states `hit`, `extended` or `miss`.
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Protocol {
    /// The name of a port.
    protocol: &'static str,
}

/// How a policy state was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// From the cache.
    Kept,
    /// From a cached state and the changes since.
    Extended,
    /// From the record alone.
    Read,
}

#[derive(Debug)]
pub struct Metrics {
    registry: RwLock<Registry>,
    statements: Family<Outcome, Counter>,
    seconds: Histogram,
    rows: Counter,
    unflushed: Family<Outcome, Counter>,
    mirror_rounds: Family<Outcome, Counter>,
    states: Family<Outcome, Counter>,
    kept_states: Gauge,
    kept_state_bytes: Gauge,
    refused_logins: Family<Protocol, Counter>,
    /// Files that cannot be read, each counted once.
    pub skipped_files: Counter,
    pub http: HttpServerMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("netverdict_query");
        let metrics = Self {
            registry: RwLock::default(),
            statements: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.5, 13)),
            rows: Counter::default(),
            unflushed: Family::default(),
            mirror_rounds: Family::default(),
            states: Family::default(),
            kept_states: Gauge::default(),
            kept_state_bytes: Gauge::default(),
            refused_logins: Family::default(),
            skipped_files: Counter::default(),
            http: HttpServerMetrics::default(),
        };
        let Self {
            registry: _,
            statements,
            seconds,
            rows,
            unflushed,
            mirror_rounds,
            states,
            kept_states,
            kept_state_bytes,
            refused_logins,
            skipped_files,
            http,
        } = &metrics;
        registry.register("statements", "Statements that ended, by outcome", statements.clone());
        registry.register_with_unit(
            "statement",
            "Time from planning to the first rows",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("rows", "Rows that left the executor", rows.clone());
        registry.register(
            "unflushed_requests",
            "Requests to collectors for rows that are not in files yet",
            unflushed.clone(),
        );
        registry.register(
            "mirror_rounds",
            "Rounds of copying files of one collector, by outcome",
            mirror_rounds.clone(),
        );
        registry.register("states", "Policy states asked for: hit, extended by what came since, miss", states.clone());
        registry.register("kept_states", "Policy states that are kept", kept_states.clone());
        registry.register_with_unit(
            "kept_states_memory",
            "Approximate memory of the policy states in the cache",
            Unit::Bytes,
            kept_state_bytes.clone(),
        );
        registry.register(
            "refused_logins",
            "Logins refused: wrong or missing tokens and passwords",
            refused_logins.clone(),
        );
        registry.register("skipped_files", "Files that cannot be read", skipped_files.clone());
        http.register(&mut registry);
        Self { registry: RwLock::new(registry), ..metrics }
    }
}

impl Metrics {
    /// Adds the metrics of a part that keeps them itself.
    pub(crate) fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// A statement that ran, or failed to.
    pub(crate) fn statement<T>(&self, result: &Result<T, QueryError>, took: Duration) {
        self.count(result.as_ref().err().map_or("ok", QueryError::code), took);
    }

    /// A statement that failed before it ran.
    pub(crate) fn failed(&self, error: &QueryError, took: Duration) {
        self.count(error.code(), took);
    }

    fn count(&self, outcome: &'static str, took: Duration) {
        self.statements.get_or_create(&Outcome { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn rows(&self, rows: usize) {
        self.rows.inc_by(rows as u64);
    }

    pub(crate) fn unflushed(&self, ok: bool) {
        self.unflushed.get_or_create(&Outcome { outcome: if ok { "ok" } else { "failed" } }).inc();
    }

    pub(crate) fn mirrored(&self, ok: bool) {
        self.mirror_rounds.get_or_create(&Outcome { outcome: if ok { "ok" } else { "failed" } }).inc();
    }

    pub(crate) fn state(&self, came: Came) {
        let outcome = match came {
            Came::Kept => "hit",
            Came::Extended => "extended",
            Came::Read => "miss",
        };
        self.states.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn kept_states(&self, states: usize, bytes: usize) {
        self.kept_states.set(i64::try_from(states).unwrap_or(i64::MAX));
        self.kept_state_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn refused_login(&self, protocol: &'static str) {
        self.refused_logins.get_or_create(&Protocol { protocol }).inc();
    }

    /// In the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry.read().unwrap_or_else(PoisonError::into_inner)) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}
