//! The port that Goldmane's emitter posts to: `POST /v1/goldmane`, `application/x-ndjson`.
//!
//! It answers 200 only once the whole body is in the write-ahead log, and any other status makes the emitter repeat the
//! window. It reads no line: decoding a body is the pipeline's task. Bounds: bytes of a body, bodies at once, and
//! time for reading and logging one.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Args;
use netverdict_flowlog::{answer::ErrorAnswer, row::Receiver};
use netverdict_service::{
    bearer,
    error_chain::chain,
    http_server::{self, HttpLimits, HttpServer},
    queue::QueueSender,
    secret::{SecretFile, SharedSecret},
};
use tokio::sync::{Semaphore, oneshot};

use crate::{
    batch::ForeignBatch,
    clock,
    drain::Delivery,
    metrics::Metrics,
    receive::inlet::{BoundReceiver, Inlet, WAITING},
};

/// In logs, metrics and the ready file.
const NAME: &str = "goldmane";
/// Where the emitter posts to.
pub const PATH: &str = "/v1/goldmane";
/// Content type of a body; a browser cannot send it across origins unasked.
pub const CONTENT_TYPE: &str = "application/x-ndjson";
/// Bytes of a body: some 40 000 flows of one window.
pub const MAX_BODY_BYTES: usize = 32 << 20;
/// Bytes of one record of the log; one line may make it longer.
const RECORD_BYTES: usize = 1 << 20;
/// Bodies that are in memory at once.
const AT_ONCE: usize = WAITING;
/// For reading a body.
const READING: Duration = Duration::from_secs(30);
/// For the log to take it. The emitter itself waits without end.
const LOGGING: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Receivers")]
pub struct GoldmaneOptions {
    /// Take the flow log of Calico's Goldmane at this address: set `PUSH_URL` of its emitter to
    /// `http://ADDRESS/v1/goldmane`. Off by default: its rows repeat what our own probe sees on the same node.
    #[arg(long, env = "NETVERDICT_GOLDMANE_LISTEN", value_name = "ADDRESS")]
    pub goldmane_listen: Option<SocketAddr>,
    /// File with a token that the sender must give; made with mode 0600 if it is not there. Without it no token is asked for:
    /// the emitter itself has no token to send, a proxy before this port may.
    #[arg(long, env = "NETVERDICT_GOLDMANE_TOKEN_FILE", value_name = "FILE", requires = "goldmane_listen")]
    pub goldmane_token_file: Option<PathBuf>,
}

impl GoldmaneOptions {
    /// As name and value, for the log and the table `settings`.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        let Self { goldmane_listen, goldmane_token_file } = self;
        let file = goldmane_token_file.as_ref().map(|path| path.display().to_string());
        [
            ("goldmane-listen", goldmane_listen.map(|address| address.to_string()).unwrap_or_default()),
            ("goldmane-token-file", file.unwrap_or_default()),
        ]
    }
}

/// Binds the port, if it is asked for.
///
/// # Errors
/// The address is taken, or the token cannot be read or made.
pub async fn bind(options: &GoldmaneOptions, limits: &HttpLimits) -> anyhow::Result<Option<BoundReceiver>> {
    let GoldmaneOptions { goldmane_listen, goldmane_token_file } = options;
    let Some(asked) = *goldmane_listen else { return Ok(None) };
    if !asked.ip().is_loopback() && goldmane_token_file.is_none() {
        tracing::warn!(
            listen.goldmane = %asked,
            "anyone who reaches this port can report verdicts: give --goldmane-token-file, or admit only Goldmane to it"
        );
    }
    let token = goldmane_token_file.as_ref().map(|path| SecretFile::new(path, "--goldmane-token-file"));
    let token = token.map(SharedSecret::load_or_create).transpose()?;
    let listener = http_server::bind(asked, "--goldmane-listen").await?;
    let address = listener.local_addr()?;
    let limits = HttpLimits { body_bytes: MAX_BODY_BYTES, ..limits.clone() };
    let serve = move |inlet: Inlet| {
        let Inlet { deliveries, metrics, end } = inlet;
        let server = HttpServer { port: NAME, limits, tls: None, metrics: metrics.http.clone() };
        let routes = router(Listener { token, deliveries, metrics });
        Box::pin(server.serve(listener, routes, end)) as _
    };
    Ok(Some(BoundReceiver { name: NAME, address, serve: Box::new(serve) }))
}

/// Shared state of the port's handlers.
#[derive(Clone)]
struct Listener {
    /// `None`: no token is asked for.
    token: Option<SharedSecret>,
    deliveries: QueueSender<Delivery>,
    metrics: Metrics,
}

#[derive(Clone)]
struct Port {
    listener: Listener,
    places: Arc<Semaphore>,
}

/// A body that was not taken, and why.
struct Refusal {
    status: StatusCode,
    /// Label of the metric: a closed list.
    code: &'static str,
    message: String,
    remedy: &'static str,
}

fn router(listener: Listener) -> Router {
    let port = Port { listener, places: Arc::new(Semaphore::new(AT_ONCE)) };
    Router::new()
        .route(PATH, post(take))
        .fallback(|| async {
            refuse(&Refusal {
                status: StatusCode::NOT_FOUND,
                code: "bad-request",
                message: "no such path".to_owned(),
                remedy: "post to /v1/goldmane",
            })
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(port)
}

async fn take(State(port): State<Port>, request: Request) -> Response {
    match delivered(&port, request).await {
        Ok(()) => {
            port.listener.metrics.delivery("accepted");
            StatusCode::OK.into_response()
        }
        Err(refusal) => {
            port.listener.metrics.delivery(refusal.code);
            tracing::warn!(http.status = refusal.status.as_u16(), error = refusal.message, "delivery refused");
            refuse(&refusal)
        }
    }
}

async fn delivered(port: &Port, request: Request) -> Result<(), Refusal> {
    authorize(port.listener.token.as_ref(), request.headers())?;
    if request.headers().get(header::CONTENT_TYPE).is_none_or(|value| value.as_bytes() != CONTENT_TYPE.as_bytes()) {
        return Err(Refusal {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: "bad-request",
            message: format!("expected content type {CONTENT_TYPE}"),
            remedy: "send flows as JSON, one a line",
        });
    }
    let _place = port.places.try_acquire().map_err(|_| busy("bodies are being taken already".to_owned()))?;
    let body = read(request).await?;
    let batches = batches(&body, clock::now_ns());
    if batches.is_empty() {
        return Ok(());
    }
    let (logged, answer) = oneshot::channel();
    port.listener
        .deliveries
        .try_send(Delivery { batches, logged })
        .map_err(|_| busy("the write-ahead log does not take deliveries just now".to_owned()))?;
    match tokio::time::timeout(LOGGING, answer).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(busy(chain(&error))),
        Ok(Err(_)) => Err(busy("the collector is stopping".to_owned())),
        Err(_) => Err(busy(format!("the write-ahead log took nothing for {} s", LOGGING.as_secs()))),
    }
}

fn authorize(token: Option<&SharedSecret>, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(token) = token else { return Ok(()) };
    bearer::check(headers, token).map_err(|error| Refusal {
        status: StatusCode::UNAUTHORIZED,
        code: "unauthorized",
        message: error.to_string(),
        remedy: "send the content of --goldmane-token-file as `Authorization: Bearer TOKEN`",
    })
}

async fn read(request: Request) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(READING, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejected)) if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Refusal {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "too-large",
            message: format!("body has more than {MAX_BODY_BYTES} bytes"),
            remedy: "send windows of fewer flows",
        }),
        Ok(Err(rejected)) => Err(Refusal {
            status: StatusCode::BAD_REQUEST,
            code: "bad-request",
            message: format!("body cannot be read: {}", rejected.body_text()),
            remedy: "send it again",
        }),
        Err(_) => Err(Refusal {
            status: StatusCode::REQUEST_TIMEOUT,
            code: "timeout",
            message: format!("body did not come within {} s", READING.as_secs()),
            remedy: "send it again",
        }),
    }
}

/// A body as records of the log, each of whole lines: a window need not pass through the pipeline in one piece.
fn batches(body: &[u8], ingest_ns: i64) -> Vec<ForeignBatch> {
    let mut batches: Vec<ForeignBatch> = Vec::new();
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        match batches.last_mut() {
            Some(batch) if batch.bytes.len() + line.len() < RECORD_BYTES => {
                batch.bytes.push(b'\n');
                batch.bytes.extend_from_slice(line);
            }
            _ => batches.push(ForeignBatch { receiver: Receiver::Goldmane, ingest_ns, bytes: line.to_vec() }),
        }
    }
    batches
}

fn busy(message: String) -> Refusal {
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "unavailable",
        message,
        remedy: "send it again; what comes twice is recorded once",
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let Refusal { status, code, message, remedy } = refusal;
    let answer = ErrorAnswer { code: (*code).into(), message: message.clone(), remedy: (*remedy).into() };
    let mut response = (*status, Json(answer)).into_response();
    if *status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_cut_between_lines_and_no_line_is_lost() {
        let long = "x".repeat(RECORD_BYTES / 2);
        let body = [long.as_str(), "", "a", long.as_str(), "b\r", &long].join("\n");
        let batches = batches(body.as_bytes(), 7);
        assert_eq!(batches.len(), 3);
        let lines: Vec<_> = batches.iter().flat_map(|batch| batch.bytes.split(|byte| *byte == b'\n')).collect();
        let expected: Vec<_> = body.split('\n').filter(|line| !line.is_empty()).map(str::as_bytes).collect();
        assert_eq!(lines, expected);
    }
}
