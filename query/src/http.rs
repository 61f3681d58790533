//! The HTTP API. It turns parameters into questions and answers into JSON; what the answers are is decided elsewhere.
//!
//! Everything but health and metrics asks for the secret as Bearer token. Every error is an `ErrorAnswer`.

mod flows;
mod sql;
mod status;
mod why;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use netverdict_flowlog::answer::ErrorAnswer;
use netverdict_service::telemetry::continue_trace;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use tracing::Span;

use crate::{Executor, QueryError, flows::Followers, guard::MAX_STATEMENT, secret::Secret};

/// What is added to the longest statement before a request is given up as a whole: its answer is put together.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all requests share.
pub struct Api {
    pub executor: Executor,
    pub followers: Followers,
    pub secret: Secret,
    pub max_rows: usize,
    pub statement_timeout: Duration,
    pub started: DateTime<Utc>,
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    let patience = api.statement_timeout + PATIENCE;
    let open = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics));
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
        .layer(from_fn_with_state(Arc::clone(&api), authorized));
    open.merge(closed)
        .layer(DefaultBodyLimit::max(MAX_STATEMENT * 2))
        .layer(from_fn(move |request, next| patient(patience, request, next)))
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

/// Serves until `stop`; requests that are being answered may end.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, api: Arc<Api>, stop: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router(api)).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}

/// The last resort: what takes longer is no question of a statement.
async fn patient(patience: Duration, request: Request, next: Next) -> Response {
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

async fn authorized(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") && api.secret.is(token.trim_ascii()) => {
            next.run(request).await
        }
        _ => {
            api.executor.metrics().refused_login("http");
            let answer = ErrorAnswer {
                code: "unauthorized".into(),
                message: "expected the service's secret as Bearer token".into(),
                remedy: "send `Authorization: Bearer` with the content of the file that --secret-file names".into(),
            };
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], Json(answer)).into_response()
        }
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
