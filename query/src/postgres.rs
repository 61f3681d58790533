//! The PostgreSQL wire protocol: psql, Grafana and whatever else speaks it. This file accepts connections and ends them;
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
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use datafusion_postgres::pgwire::{
    api::{ConnectionManager, auth::sasl::scram::ScramAuth, cancel::DefaultCancelHandler},
    tokio::{
        TlsAcceptor,
        tokio_rustls::rustls::{
            self, ServerConfig,
            crypto::ring,
            pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        },
    },
};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{
    connection::Connection,
    login::{Login, User},
    statements::Statements,
};
use crate::{Executor, metrics::Metrics, secret::Secret};

/// How long a client may take to log in. As PostgreSQL's `authentication_timeout`.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("--tls-cert {path}: no certificate can be read: {reason}")]
    Certificate { path: PathBuf, reason: String },
    #[error("--tls-key {path}: no private key can be read: {reason}")]
    Key { path: PathBuf, reason: String },
    #[error("certificate and key do not go together: {0}")]
    Pair(#[from] rustls::Error),
}

/// What proves the server to clients.
pub struct Tls {
    acceptor: TlsAcceptor,
    /// For channel binding.
    certificates: Vec<u8>,
}

impl Tls {
    /// From PEM files.
    ///
    /// # Errors
    /// When either cannot be read, or they do not go together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let bad = |reason: String| TlsError::Certificate { path: certificate.into(), reason };
        let certificates = std::fs::read(certificate).map_err(|error| bad(error.to_string()))?;
        let chain = CertificateDer::pem_slice_iter(&certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| TlsError::Key { path: key.into(), reason: error.to_string() })?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificates })
    }
}

/// Serves until `stop`; then open connections are closed.
///
/// # Errors
/// When the certificate cannot be used for channel binding.
pub async fn serve(
    listener: TcpListener,
    executor: Executor,
    secret: &Secret,
    tls: Option<Tls>,
    max_connections: usize,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Arc::clone(executor.metrics());
    let user = Arc::new(User::new(secret)?);
    let statements = Arc::new(Statements::new(executor));
    let manager = Arc::new(ConnectionManager::new());
    let room = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "connection failed");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of file descriptors, for instance: others must close first.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(limit = max_connections, "connection refused: too many");
            continue;
        };
        let place = Place::new(permit, Arc::clone(&metrics));
        // The state of a login is kept in its handler: one for each connection.
        let mut scram = ScramAuth::new(Arc::clone(&user) as _);
        if let Some(tls) = &tls {
            scram.configure_certificate(&tls.certificates)?;
        }
        let connection = Connection {
            acceptor: tls.as_ref().map(|tls| tls.acceptor.clone()),
            login: Arc::new(Login::new(scram, Arc::clone(&manager), tls.is_some())),
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

/// A connection's place among those that may be open at once. It is free again however the connection ends.
struct Place {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self { metrics, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}
