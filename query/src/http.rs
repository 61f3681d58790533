//! The HTTP API: parameters into questions, answers into JSON. The answers themselves are made elsewhere.
//!
//! All paths but health and metrics need the secret as Bearer token. Every error is an `ErrorAnswer`.

mod api;
mod flows;
mod sql;
mod status;
mod why;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, StatusCode},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::Utc;
use clap::Args;
use netverdict_flowlog::answer::{ErrorAnswer, PROXIED_AUTHORIZATION};
use netverdict_service::{
    bearer::{self, BearerGuard},
    http_server::{HttpLimitOptions, HttpLimits, HttpServer, bind},
    telemetry::continue_trace,
    tls::{self, TlsFiles},
};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use tracing::Span;

use self::api::Api;
use crate::{
    QueryError,
    flows::Followers,
    port::{self, GRACE, OpenPort, Parts},
};

/// In logs, metrics and the ready file.
const NAME: &str = "http";

/// How much longer than a statement a request may take: the answer has to be put together.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Listening")]
pub struct HttpOptions {
    /// HTTP address. Loopback by default: the record shows who talks to whom. Port 0 takes a free one.
    #[arg(long, env = "NETVERDICT_HTTP", default_value = "127.0.0.1:9480", value_name = "ADDRESS")]
    pub http: SocketAddr,
    /// Certificate chain (PEM) for HTTP, which then is HTTPS only. Read again when it changes.
    #[arg(long, env = "NETVERDICT_HTTP_TLS_CERT", requires = "http_tls_key", value_name = "FILE")]
    pub http_tls_cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, env = "NETVERDICT_HTTP_TLS_KEY", requires = "http_tls_cert", value_name = "FILE")]
    pub http_tls_key: Option<PathBuf>,
    #[command(flatten)]
    pub limits: HttpLimitOptions,
}

/// Binds the port.
///
/// # Errors
/// The address is taken, the certificate cannot be read, or others could reach the port without TLS.
pub(crate) async fn open(options: &HttpOptions, parts: &Parts) -> anyhow::Result<OpenPort> {
    let HttpOptions { http, http_tls_cert, http_tls_key, limits } = options;
    let files = http_tls_cert.clone().zip(http_tls_key.clone()).map(|(certificate, key)| TlsFiles {
        certificate,
        certificate_option: "--http-tls-cert",
        key,
        key_option: "--http-tls-key",
        protocols: tls::HTTP,
    });
    let remedy = "give --http-tls-cert and --http-tls-key, put a TLS proxy before a loopback address, or";
    let tls = port::certificate(parts, ("--http", *http), files, remedy)?;
    let listener = bind(*http, "--http").await?;
    let address = listener.local_addr()?;
    let server = HttpServer {
        port: NAME,
        limits: HttpLimits { drain: GRACE, ..HttpLimits::from(limits) },
        tls,
        metrics: parts.executor.metrics().http.clone(),
    };
    let routes = router(Arc::new(Api {
        executor: parts.executor.clone(),
        history: parts.history.clone(),
        followers: Followers::default(),
        secret: parts.secret.clone(),
        health: parts.health.clone(),
        max_rows: parts.max_rows,
        statement_timeout: parts.statement_timeout,
        started: Utc::now(),
    }));
    let shutdown = parts.shutdown.clone();
    let serve = async move {
        server.serve(listener, routes, shutdown).await;
        Ok(())
    };
    Ok(OpenPort { name: NAME, address, serve: Box::pin(serve) })
}

/// All routes.
fn router(api: Arc<Api>) -> Router {
    let patience = api.statement_timeout + PATIENCE;
    let open =
        Router::new().route("/metrics", get(status::metrics)).merge(api.health.clone().router(api.secret.clone()));
    let refused = Arc::clone(api.executor.metrics());
    let guard = BearerGuard::new(api.secret.clone(), move |error| {
        refused.refused_login(NAME);
        let answer = ErrorAnswer {
            code: "unauthorized".into(),
            message: error.to_string(),
            remedy: "send `Authorization: Bearer` with the content of the file that --secret-file names".into(),
        };
        Json(answer).into_response()
    })
    .proxied_as(HeaderName::from_static(PROXIED_AUTHORIZATION));
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

/// The last resort, for requests that the deadline of a statement does not stop.
async fn in_patience(patience: Duration, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(patience, next.run(request)).await;
    answered.unwrap_or_else(|_| QueryError::Timeout(patience).into_response())
}
