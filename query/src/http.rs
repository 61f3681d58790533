//! The HTTP API. It turns parameters into questions and answers into JSON; the answers are computed elsewhere.
//!
//! Everything but health and metrics needs the secret as Bearer token. Every error is an `ErrorAnswer`.

mod flows;
mod sql;
mod status;
mod why;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, Request, rejection::QueryRejection},
    http::StatusCode,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use netverdict_flowlog::answer::ErrorAnswer;
use netverdict_service::{
    bearer::{self, BearerGuard},
    health::{Effect, HealthRegistry},
    secret::SharedSecret,
    telemetry::continue_trace,
};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use tracing::Span;

use crate::{Executor, QueryError, flows::Followers, guard::MAX_STATEMENT};

/// Time beyond the longest statement before a request is given up: its answer has to be put together.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all requests share.
pub struct Api {
    pub executor: Executor,
    pub followers: Followers,
    pub secret: SharedSecret,
    pub max_rows: usize,
    pub statement_timeout: Duration,
    pub started: DateTime<Utc>,
}

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
        .layer(DefaultBodyLimit::max(MAX_STATEMENT * 2))
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

/// The last resort: statements have limits of their own.
async fn in_patience(patience: Duration, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(patience, next.run(request)).await;
    answered.unwrap_or_else(|_| QueryError::Timeout(patience).into_response())
}

impl Api {
    /// A question may ask several statements, and has the time of one.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, QueryError>>) -> Result<T, QueryError> {
        let timeout = self.statement_timeout;
        tokio::time::timeout(timeout, answer).await.unwrap_or(Err(QueryError::Timeout(timeout)))
    }
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::BadRequest { .. } | Self::BadSql(_) => StatusCode::BAD_REQUEST,
            Self::UnknownPod { .. } => StatusCode::NOT_FOUND,
            Self::RefusedSql { .. } => StatusCode::FORBIDDEN,
            Self::Resources(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreadable(_) | Self::Internal(_) => {
                tracing::error!(error = %self, "request failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, Json(self.answer())).into_response()
    }
}

/// The parameters, or what is wrong with them.
fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, QueryError> {
    query.map(|Query(parameters)| parameters).map_err(|rejection| {
        let text = rejection.body_text();
        let message = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text).to_owned();
        QueryError::BadRequest { message, remedy: String::new() }
    })
}
