//! The PostgreSQL wire protocol: psql, Grafana and whatever else speaks it. Logging in is in `login`, statements are in
//! `session`; this file accepts connections and ends them.

mod login;
mod session;
mod settings;
mod warnings;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use datafusion_postgres::pgwire::{
    api::{
        ConnectionManager, PgWireServerHandlers,
        auth::{StartupHandler, sasl::scram::ScramAuth},
        cancel::{CancelHandler, DefaultCancelHandler},
        query::{ExtendedQueryHandler, SimpleQueryHandler},
    },
    tokio::{
        TlsAcceptor, process_socket,
        tokio_rustls::rustls::{
            self, ServerConfig,
            crypto::ring,
            pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        },
    },
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    login::{Login, User},
    session::{Session, Shared},
};
use crate::{Executor, secret::Secret};

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
    let user = Arc::new(User::new(secret, Arc::clone(&metrics))?);
    let shared = Arc::new(Shared::new(executor));
    let manager = Arc::new(ConnectionManager::new());
    let room = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of file descriptors, for instance: others must close first.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(limit = max_connections, "connection refused: too many");
            continue;
        };
        // The state of a login is kept in its handler: one for each connection.
        let mut scram = ScramAuth::new(Arc::clone(&user) as _);
        if let Some(tls) = &tls {
            scram.configure_certificate(&tls.certificates)?;
        }
        let handlers = Handlers {
            login: Arc::new(Login::new(scram, Arc::clone(&manager), tls.is_some())),
            session: Arc::new(Session::new(Arc::clone(&shared))),
            cancel: Arc::new(DefaultCancelHandler::new(Arc::clone(&manager))),
        };
        let acceptor = tls.as_ref().map(|tls| tls.acceptor.clone());
        let metrics = Arc::clone(&metrics);
        connections.spawn(async move {
            metrics.connections.inc();
            if let Err(error) = process_socket(socket, acceptor, handlers).await {
                tracing::debug!(%error, "connection ended");
            }
            metrics.connections.dec();
            drop(place);
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
