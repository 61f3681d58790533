//! Counts of connections, for Prometheus.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::activity::Overdue;
use crate::connection_limit::Refused;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabel {
    port: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    port: &'static str,
    cause: &'static str,
}

/// Connections of all HTTP ports of a service. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct HttpServerMetrics {
    open: Family<PortLabel, Gauge>,
    refused: Family<CauseLabel, Counter>,
    closed: Family<CauseLabel, Counter>,
}

impl HttpServerMetrics {
    /// As `http_connections`, `http_refused_connections` and `http_closed_connections` below the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("http_connections", "Open HTTP connections", self.open.clone());
        registry.register(
            "http_refused_connections",
            "HTTP connections refused, by the limit that was reached: total or address",
            self.refused.clone(),
        );
        registry.register(
            "http_closed_connections",
            "HTTP connections closed because the client took too long: header, idle or write",
            self.closed.clone(),
        );
    }

    pub(super) fn port(&self, port: &'static str) -> PortMetrics {
        PortMetrics { port, open: self.open.get_or_create(&PortLabel { port }).clone(), metrics: self.clone() }
    }
}

/// The metrics of one port.
#[derive(Clone, Debug)]
pub(super) struct PortMetrics {
    port: &'static str,
    open: Gauge,
    metrics: HttpServerMetrics,
}

/// A connection that is counted as open until this is dropped.
pub(super) struct OpenConnection(Gauge);

impl PortMetrics {
    pub(super) fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    pub(super) fn refused(&self, refused: Refused) {
        let cause = match refused {
            Refused::Total(_) => "total",
            Refused::Address(_) => "address",
        };
        self.metrics.refused.get_or_create(&CauseLabel { port: self.port, cause }).inc();
    }

    pub(super) fn overdue(&self, overdue: Overdue) {
        let cause = match overdue {
            Overdue::Header => "header",
            Overdue::Idle => "idle",
            Overdue::Write => "write",
        };
        self.metrics.closed.get_or_create(&CauseLabel { port: self.port, cause }).inc();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
