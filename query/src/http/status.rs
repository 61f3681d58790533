//! Metrics, and the state of the service and of its sources.

use std::sync::Arc;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use netverdict_flowlog::answer::ServiceStatus;

use super::api::Api;
use crate::status;

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content)], api.executor.metrics().text())
}

/// The state of the service and its collectors, and the files that cannot be read.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<ServiceStatus> {
    Json(status::of(&api.executor, &api.health, api.started).await)
}
