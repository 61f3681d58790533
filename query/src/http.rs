//! The HTTP API: parameters into questions, answers into JSON. The answers themselves are made elsewhere.
//!
//! All paths but health and metrics need the secret as Bearer token. Every error is an `ErrorAnswer`.

mod api;
mod flows;
mod sql;
mod status;
mod why;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use netverdict_flowlog::answer::ErrorAnswer;
use netverdict_service::{
    bearer::{self, BearerGuard},
    health::{Effect, HealthRegistry},
    telemetry::continue_trace,
};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use tracing::Span;

pub use self::api::Api;
use crate::{Executor, QueryError};

/// How much longer than a statement a request may take: the answer has to be put together.
const PATIENCE: Duration = Duration::from_secs(30);

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    let patience = api.statement_timeout + PATIENCE;
    let open =
        Router::new().route("/metrics", get(status::metrics)).merge(health(&api.executor).router(api.secret.clone()));
    let refused = Arc::clone(api.executor.metrics());
    let guard = BearerGuard::new(api.secret.clone(), move |error| {
        refused.refused_login("http");
        let answer = ErrorAnswer {
            code: "unauthorized".into(),
            message: error.to_string(),
            remedy: "send `Authorization: Bearer` with the content of the file that --secret-file names".into(),
        };
        Json(answer).into_response()
    });
    let closed = Router::new()
        .route("/v1/why", get(why::why))
        .route("/v1/flows", get(flows::flows))
        .route("/v1/sql", post(sql::sql))
        .route("/v1/status", get(status::status))
        .fallback(|| async {
            let answer = ErrorAnswer {
                code: "bad-request".into(),
                message: "no such path".into(),
                remedy: "the paths are /v1/why, /v1/flows, /v1/sql and /v1/status".into(),
            };
            (StatusCode::NOT_FOUND, Json(answer))
        })
        .layer(from_fn_with_state(guard, bearer::require));
    open.merge(closed)
        .layer(DefaultBodyLimit::max(api::MAX_BODY))
        .layer(from_fn(move |request, next| in_patience(patience, request, next)))
        .layer(CatchPanicLayer::new())
        .layer(TraceLayer::new_for_http().make_span_with(span_of))
        .with_state(api)
}

/// Named as OpenTelemetry's conventions for HTTP say. Without the query: it may name pods.
fn span_of(request: &Request) -> Span {
    let (method, path) = (request.method(), request.uri().path());
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {path}"),
        otel.kind = "server",
        http.request.method = %method,
        url.path = path,
    );
    continue_trace(&span, request.headers());
    span
}

/// Ready means that the data directory can be listed.
fn health(executor: &Executor) -> HealthRegistry {
    let (health, executor) = (HealthRegistry::default(), executor.clone());
    health.register_check("store", Effect::Unready, move || {
        let executor = executor.clone();
        async move {
            let listed = executor.store().readable().await;
            listed.err().map(|error| format!("the data directory cannot be listed: {error}")).into_iter().collect()
        }
    });
    health
}

/// The last resort, for whatever is not stopped by the deadline of a statement.
async fn in_patience(patience: Duration, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(patience, next.run(request)).await;
    answered.unwrap_or_else(|_| QueryError::Timeout(patience).into_response())
}
