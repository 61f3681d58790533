//! The PostgreSQL wire protocol: psql, Grafana and whatever else speaks it. Logging in is in `login`, statements are in
//! `session`; this file accepts connections and ends them.

mod login;
mod session;
mod settings;
mod warnings;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion_postgres::pgwire::{
    api::{
        ConnectionManager, PgWireServerHandlers,
        auth::{StartupHandler, sasl::scram::ScramAuth},
        cancel::{CancelHandler, DefaultCancelHandler},
        query::{ExtendedQueryHandler, SimpleQueryHandler},
    },
    tokio::process_socket,
};
use netverdict_service::{
    connection_limit::ConnectionLimit, error_chain::chain, secret::SharedSecret, shutdown::Shutdown, tls::ServerTls,
};
use tokio::{net::TcpListener, task::JoinSet};

use self::{
    login::{Login, User},
    session::{Session, Shared},
};
use crate::Executor;

/// Between lines about refused connections: an attacker must not fill the log.
const REFUSALS_LOGGED: Duration = Duration::from_secs(10);
/// After an `accept` that failed, for instance for want of file descriptors: others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the end is requested; then open connections are closed.
///
/// # Errors
/// When the certificate cannot be used for channel binding.
pub async fn serve(
    listener: TcpListener,
    executor: Executor,
    secret: SharedSecret,
    tls: Option<ServerTls>,
    max_connections: usize,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let metrics = Arc::clone(executor.metrics());
    let (password, mut generation) = secret.current();
    let mut user = Arc::new(User::new(&password, Arc::clone(&metrics))?);
    let shared = Arc::new(Shared::new(executor));
    let manager = Arc::new(ConnectionManager::new());
    // One address may take all of them: Grafana and psql often come through one proxy.
    let limit = ConnectionLimit::new(max_connections, max_connections);
    let mut connections = JoinSet::new();
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => break,
            Some(_) = connections.join_next() => continue,
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
            user = Arc::new(User::new(&password, Arc::clone(&metrics))?);
        }
        let identity = tls.as_ref().map(ServerTls::current);
        // The state of a login is kept in its handler: one for each connection.
        let mut scram = ScramAuth::new(Arc::clone(&user) as _);
        if let Some(identity) = &identity {
            scram.configure_certificate(&identity.certificate_pem)?;
        }
        let handlers = Handlers {
            login: Arc::new(Login::new(scram, Arc::clone(&manager), identity.is_some())),
            session: Arc::new(Session::new(Arc::clone(&shared))),
            cancel: Arc::new(DefaultCancelHandler::new(Arc::clone(&manager))),
        };
        let acceptor = identity.map(|identity| identity.acceptor());
        let metrics = Arc::clone(&metrics);
        connections.spawn(async move {
            metrics.connections.inc();
            if let Err(error) = process_socket(socket, acceptor, handlers).await {
                tracing::debug!(%error, "connection ended");
            }
            metrics.connections.dec();
            drop(permit);
        });
    }
    connections.shutdown().await;
    Ok(())
}

struct Handlers {
    login: Arc<Login>,
    session: Arc<Session>,
    cancel: Arc<DefaultCancelHandler>,
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.session)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.session)
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.login)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::clone(&self.cancel)
    }
}
