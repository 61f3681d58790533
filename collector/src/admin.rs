//! The admin port: metrics and health. It serves no records, so it asks for no token. Only the text of problems is
//! protected, because it may hold paths: a client must send the token to see it.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use netverdict_service::{health::HealthRegistry, secret::SharedSecret};

use crate::{
    health::{Health, Part},
    metrics::Metrics,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Port {
    health: Arc<Health>,
    metrics: Metrics,
}

/// `GET /metrics`, `/livez`, `/healthz` and `/readyz`. Clients must send `token` to get the text of problems.
pub fn router(health: Arc<Health>, metrics: Metrics, token: SharedSecret) -> Router {
    let registry = HealthRegistry::default();
    health.register(&registry);
    Router::new().route("/metrics", get(measured)).with_state(Port { health, metrics }).merge(registry.router(token))
}

async fn measured(State(port): State<Port>) -> Response {
    for part in Part::ALL {
        port.metrics.troubles(part, port.health.of(part).len());
    }
    ([(header::CONTENT_TYPE, OPEN_METRICS)], port.metrics.text()).into_response()
}
