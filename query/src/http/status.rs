//! Metrics, and the state of the service and of its sources.

use std::sync::Arc;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use netverdict_flowlog::FORMAT_VERSION;
use netverdict_service::endpoint_url::without_credentials;
use serde_json::{Value, json};

use super::api::Api;

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content)], api.executor.metrics().text())
}

/// The state of the service and its collectors, and the files that cannot be read.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Value> {
    let store = api.executor.store();
    let collectors = store.collectors();
    let statuses = collectors.statuses().await;
    let of_each: Vec<Value> = statuses
        .iter()
        .map(|(url, status)| match status {
            Ok(status) => json!({ "url": without_credentials(url.as_str()), "status": status }),
            Err(problem) => json!({ "url": without_credentials(url.as_str()), "problem": problem }),
        })
        .collect();
    let skipped: Vec<Value> =
        store.unreadable().into_iter().map(|(file, reason)| json!({ "file": file, "reason": reason })).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "format_version": FORMAT_VERSION,
        "started": api.started,
        "collectors": of_each,
        "skipped_files": skipped,
        "stale": collectors.problems().await,
    }))
}
