//! The PostgreSQL wire protocol, for psql, Grafana and other clients. This file accepts connections and ends them;
//! each is served by a `Connection`.

mod client_error;
mod connection;
mod frame;
mod login;
mod prepare;
mod session;
mod settings;
mod statements;
mod warnings;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use datafusion_postgres::pgwire::api::{ConnectionManager, auth::sasl::scram::ScramAuth, cancel::DefaultCancelHandler};
use netverdict_service::{
    connection_limit::{ConnectionLimit, Permit},
    error_chain::chain,
    http_server::bind,
    tls::{Identity, ServerTls, TlsFiles},
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{net::TcpListener, task::JoinSet};

use self::{
    connection::Connection,
    login::{Login, User},
    statements::Statements,
};
use crate::port::{self, OpenPort, Parts};

/// How long a client may take to log in. As PostgreSQL's `authentication_timeout`.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Between lines about refused connections: an attacker must not fill the log.
const REFUSALS_LOGGED: Duration = Duration::from_secs(10);
/// After an `accept` that failed, for instance for want of file descriptors: others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Listening")]
pub struct PostgresOptions {
    /// PostgreSQL address. Port 0 takes a free one.
    #[arg(long, env = "NETVERDICT_POSTGRES", default_value = "127.0.0.1:9432", value_name = "ADDRESS")]
    pub postgres: SocketAddr,
    /// Certificate chain (PEM) for PostgreSQL. With it, clients without TLS are refused. Read again when it changes.
    #[arg(long, env = "NETVERDICT_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, env = "NETVERDICT_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Most open PostgreSQL connections.
    #[arg(
        long = "postgres-max-connections",
        alias = "max-connections",
        env = "NETVERDICT_POSTGRES_MAX_CONNECTIONS",
        default_value_t = 100,
        value_name = "CONNECTIONS"
    )]
    pub max_connections: usize,
}

/// Binds the port.
///
/// # Errors
/// The address is taken, the certificate cannot be read, or others could reach the port without TLS.
pub(crate) async fn open(options: &PostgresOptions, parts: &Parts) -> anyhow::Result<OpenPort> {
    let PostgresOptions { postgres, tls_cert, tls_key, max_connections } = options;
    let files = tls_cert.clone().zip(tls_key.clone()).map(|(certificate, key)| TlsFiles {
        certificate,
        certificate_option: "--tls-cert",
        key,
        key_option: "--tls-key",
        protocols: &[],
    });
    let remedy = "give --tls-cert and --tls-key, or";
    let tls = port::certificate(parts, ("--postgres", *postgres), files, remedy)?;
    let listener = bind(*postgres, "--postgres").await?;
    let address = listener.local_addr()?;
    let serve = serve(listener, parts.clone(), tls, *max_connections);
    Ok(OpenPort { name: connection::NAME, address, serve: Box::pin(serve) })
}

/// Serves until the end is requested; then open connections are closed.
///
/// # Errors
/// When the certificate cannot be used for channel binding.
async fn serve(
    listener: TcpListener,
    parts: Parts,
    tls: Option<ServerTls>,
    max_connections: usize,
) -> anyhow::Result<()> {
    let Parts { executor, secret, shutdown, .. } = parts;
    let metrics = Arc::clone(executor.metrics());
    let open = Gauge::default();
    metrics.register(|registry| {
        registry.register("postgres_connections", "Open PostgreSQL connections", open.clone());
    });
    let (password, mut generation) = secret.current();
    let mut user = Arc::new(User::new(&password)?);
    let statements = Arc::new(Statements::new(executor));
    let manager = Arc::new(ConnectionManager::new());
    // One address may take all of them: Grafana and psql often come through one proxy.
    let limit = ConnectionLimit::new(max_connections, max_connections);
    let mut connections = JoinSet::new();
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "connection failed");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let permit = match limit.admit(peer.ip()) {
            Ok(permit) => permit,
            Err(refused) => {
                if logged.is_none_or(|at| at.elapsed() >= REFUSALS_LOGGED) {
                    logged = Some(Instant::now());
                    tracing::warn!(limit = max_connections, reason = %refused, "connection refused: too many");
                }
                continue;
            }
        };
        let (password, current) = secret.current();
        if current != generation {
            generation = current;
            user = Arc::new(User::new(&password)?);
        }
        let identity = tls.as_ref().map(ServerTls::current);
        let place = ConnectionSlot::new(permit, open.clone());
        // The state of a login is kept in its handler: one for each connection.
        let mut scram = ScramAuth::new(Arc::clone(&user) as _);
        if let Some(identity) = &identity {
            scram.configure_certificate(&identity.certificate_pem)?;
        }
        let connection = Connection {
            acceptor: identity.as_ref().map(Identity::acceptor),
            login: Arc::new(Login::new(scram, Arc::clone(&manager), identity.is_some())),
            cancel: Arc::new(DefaultCancelHandler::new(Arc::clone(&manager))),
            statements: Arc::clone(&statements),
            metrics: Arc::clone(&metrics),
            login_timeout: LOGIN_TIMEOUT,
        };
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = connection.serve(socket).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    connections.shutdown().await;
    Ok(())
}

/// A connection's place among the connections that may be open at once. It is freed however the connection ends.
struct ConnectionSlot {
    open: Gauge,
    _permit: Permit,
}

impl ConnectionSlot {
    fn new(permit: Permit, open: Gauge) -> Self {
        open.inc();
        Self { open, _permit: permit }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.open.dec();
    }
}
