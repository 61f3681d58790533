//! The HTTP server of every port: one accept loop with limits that axum's own does not have.
//!
//! - Connections are capped, in all and per address; one beyond the cap is answered with 503 and closed.
//! - A request's header has to come within a time, or the connection is closed (slow-header attacks).
//! - A connection without requests, a client that does not read its answer, and a body that stops coming are closed.
//! - On shutdown nothing new is accepted; requests that are being answered may end within a time.
//!
//! How long an answer may take to be made is the handlers' to limit: only they know their work.

mod activity;
mod limits;
mod metrics;
mod refusal;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tower::ServiceExt as _;
use tower_http::{limit::RequestBodyLimitLayer, timeout::RequestBodyTimeoutLayer};

use self::{
    activity::{Activity, Answering, Overdue, WatchedStream},
    metrics::PortMetrics,
};
pub use self::{
    limits::{HttpLimitOptions, HttpLimits},
    metrics::HttpServerMetrics,
};
use crate::{
    connection_limit::{ConnectionLimit, Permit},
    shutdown::Shutdown,
    tls::ServerTls,
};

/// After an `accept` that failed, for instance for want of file descriptors: others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between lines about refused connections: an attacker must not fill the log.
const REFUSALS_LOGGED: Duration = Duration::from_secs(10);
/// Largest header of an HTTP/1 request, in bytes.
const MAX_HEADER: usize = 64 << 10;
/// Most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;

/// One port.
#[derive(Clone, Debug)]
pub struct HttpServer {
    /// Its name in logs and metrics: one of a closed list.
    pub port: &'static str,
    pub limits: HttpLimits,
    pub tls: Option<ServerTls>,
    pub metrics: HttpServerMetrics,
}

impl HttpServer {
    /// Serves until the end is requested, and then until the last answer is given or [`HttpLimits::drain`] is over.
    pub async fn serve(self, listener: TcpListener, router: Router, shutdown: Shutdown) {
        let Self { port, limits, tls, metrics } = self;
        let router = router
            .layer(RequestBodyLimitLayer::new(limits.body_bytes))
            .layer(RequestBodyTimeoutLayer::new(limits.idle_timeout));
        let metrics = metrics.port(port);
        let limit = ConnectionLimit::new(limits.max_connections, limits.max_connections_per_address);
        let (mut connections, mut refusals) = (JoinSet::new(), JoinSet::new());
        let mut logged: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                () = shutdown.requested() => break,
                Some(ended) = connections.join_next() => {
                    report_panic(port, ended);
                    continue;
                }
                Some(_) = refusals.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(http.port = port, %error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let permit = match limit.admit(peer.ip()) {
                Ok(permit) => permit,
                Err(refused) => {
                    metrics.refused(refused);
                    if logged.is_none_or(|at| at.elapsed() >= REFUSALS_LOGGED) {
                        logged = Some(Instant::now());
                        tracing::warn!(http.port = port, reason = %refused, "connection refused");
                    }
                    // Nothing can be said before a TLS handshake, and the cost of handshakes is the aim of an attacker.
                    if tls.is_none() && refusals.len() < refusal::AT_ONCE {
                        refusals.spawn(refusal::send(stream, refused));
                    }
                    continue;
                }
            };
            let connection = Connection {
                peer,
                limits: limits.clone(),
                tls: tls.clone(),
                metrics: metrics.clone(),
                router: router.clone(),
                shutdown: shutdown.clone(),
            };
            connections.spawn(connection.serve(stream, permit));
        }
        drop(listener);
        let all = async {
            while let Some(ended) = connections.join_next().await {
                report_panic(port, ended);
            }
        };
        if tokio::time::timeout(limits.drain, all).await.is_err() {
            tracing::warn!(http.port = port, connections = connections.len(), "requests cut off: they took too long");
            connections.shutdown().await;
        }
    }
}

/// A handler's panic ends its connection and nothing else.
fn report_panic(port: &'static str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(http.port = port, %error, "a connection's handler panicked");
    }
}

struct Connection {
    peer: SocketAddr,
    limits: HttpLimits,
    tls: Option<ServerTls>,
    metrics: PortMetrics,
    router: Router,
    shutdown: Shutdown,
}

impl Connection {
    async fn serve(self, stream: TcpStream, permit: Permit) {
        let _permit = permit;
        let _open = self.metrics.opened();
        // Answers are written whole: Nagle waits for more bytes and only delays them.
        let _ = stream.set_nodelay(true);
        let activity = Arc::new(Activity::default());
        let stream = WatchedStream::new(stream, Arc::clone(&activity));
        let result = match &self.tls {
            None => self.answer(stream, activity).await,
            Some(tls) => {
                let handshake = tls.current().acceptor().accept(stream);
                match tokio::time::timeout(self.limits.header_timeout, handshake).await {
                    Ok(Ok(stream)) => self.answer(stream, activity).await,
                    Ok(Err(error)) => Err(error.into()),
                    Err(_) => {
                        self.metrics.overdue(Overdue::Header);
                        Ok(())
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(http.peer = %self.peer, error, "connection ended");
        }
    }

    async fn answer(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        activity: Arc<Activity>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut builder = Builder::new(TokioExecutor::new());
        // Our own times hold from the first byte on; hyper's begins with a connection's first idle moment.
        builder.http1().max_buf_size(MAX_HEADER).header_read_timeout(None);
        builder.http2().max_concurrent_streams(MAX_STREAMS);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (answering, router) = (Answering::begin(&activity), self.router.clone());
            async move { Ok::<_, Infallible>(answered(router, request.map(Body::new), answering).await) }
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut ticks = interval(self.limits.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ending = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = self.shutdown.requested(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = ticks.tick() => {
                    let Some(overdue) = activity.overdue(&self.limits) else { continue };
                    if overdue == Overdue::Idle && !ending {
                        // HTTP/2 clients are told, so that they do not send a request into a closing connection.
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                    } else {
                        self.metrics.overdue(overdue);
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The answer counts as being given until its last byte is taken over by the connection.
async fn answered(router: Router, request: Request, answering: Answering) -> Response {
    let response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    response.map(|body| Body::new(answering.until_sent(body)))
}

/// Binds a port.
///
/// # Errors
/// Names the option with the address, and the remedy.
pub async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{option} {address} is in use by another process: end it, or choose another port (0 takes a free one)"
        ),
        _ => anyhow::Error::new(error).context(format!(
            "{option} {address} cannot be listened on: choose another address, or port 0 for a free one"
        )),
    })
}
