//! The admin port: metrics and health. It tells nothing of the record, so it asks for nothing.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

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

/// One line of `/readyz`.
#[derive(Serialize)]
struct Trouble<'a> {
    part: &'static str,
    /// Whether it makes the node unready.
    unready: bool,
    problem: &'a str,
}

/// `GET /metrics`, `GET /healthz` and `GET /readyz`.
pub fn router(health: Arc<Health>, metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(measured))
        // Every thread is watched: when one ends, so does the process. Who answers here is alive.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Port { health, metrics })
}

async fn measured(State(port): State<Port>) -> Response {
    for part in Part::ALL {
        port.metrics.troubles(part, port.health.of(part).len());
    }
    ([(header::CONTENT_TYPE, OPEN_METRICS)], port.metrics.text()).into_response()
}

/// 200 when the node can be relied on; in any case what is wrong, a JSON object a line.
async fn ready(State(port): State<Port>) -> Response {
    let status = if port.health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let all = port.health.all();
    let line = |(part, problem): &(Part, String)| {
        let trouble = Trouble { part: part.as_str(), unready: part.makes_unready(), problem };
        // Two texts and a flag: JSON refuses nothing of it.
        serde_json::to_string(&trouble).unwrap_or_default() + "\n"
    };
    let body: String = all.iter().map(line).collect();
    (status, [(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}
