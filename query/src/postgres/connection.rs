//! One connection from its first byte to its last: TLS, login, statements.
//!
//! pgwire's own loop cannot be used: it goes on after an error that ends a connection (`login`), and takes messages of any
//! length (`frame`). Handling of messages is left to pgwire.

use std::{io, sync::Arc, time::Duration};

use datafusion_postgres::pgwire::{
    api::{ClientInfo as _, NoopHandler, PgWireConnectionState, cancel::DefaultCancelHandler},
    error::{ErrorInfo, PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, PgWireFrontendMessage},
    tokio::{
        TlsAcceptor,
        server::{negotiate_tls, process_error, process_message},
    },
};
use futures::SinkExt as _;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    client_error::{fatal, to_client},
    frame::{self, Socket},
    login::{Login, log_in},
    prepare::Prepared,
    session::Session,
    statements::Statements,
};
use crate::{QueryError, metrics::Metrics};

/// Of the port, in logs, metrics and the ready file.
pub(super) const NAME: &str = "postgres";
/// Longest message of a client that has logged in, in bytes: room for a statement (`guard::MAX_STATEMENT`) that is too
/// long and gets an answer that says so, and for the values of its parameters.
const MAX_MESSAGE: usize = 1 << 20;
/// How long a client may take to read the error that ends its connection.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Shared parts that serve one connection.
pub(super) struct Connection {
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) login: Arc<Login>,
    pub(super) cancel: Arc<DefaultCancelHandler>,
    pub(super) statements: Arc<Statements>,
    pub(super) metrics: Arc<Metrics>,
    /// From the first byte to the end of the login, TLS included.
    pub(super) login_timeout: Duration,
}

impl Connection {
    /// Serves a client until it leaves or makes an error that ends the connection.
    ///
    /// # Errors
    /// When the client cannot be read from or written to, or TLS cannot be agreed on.
    pub(super) async fn serve(self, client: TcpStream) -> io::Result<()> {
        let deadline = Instant::now() + self.login_timeout;
        let negotiated = timeout_at(deadline, negotiate_tls(client, self.acceptor.clone())).await;
        // Too slow, or TLS that is not set up: there is no answer that the client would understand.
        let Some(mut socket) = negotiated.unwrap_or(Ok(None))? else { return Ok(()) };
        let result = match timeout_at(deadline, log_in(&mut socket, &self.login, self.cancel.as_ref())).await {
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(logged_in))) => {
                let session = Arc::new(Session::new(Arc::clone(&self.statements), logged_in));
                self.session(&mut socket, session).await
            }
            Ok(Err(error)) => {
                self.metrics.refused_login(NAME);
                Err(error)
            }
            Err(_) => Err(fatal("57014", format!("no login within {:?}", self.login_timeout))),
        };
        match result {
            Ok(()) => Ok(()),
            Err(PgWireError::IoError(error)) => Err(error),
            Err(error) => end(&mut socket, error).await,
        }
    }

    /// Serves statements until the client leaves. Errors of a statement are answered; the others end the connection.
    async fn session(&self, socket: &mut Socket<Arc<Prepared>>, session: Arc<Session>) -> PgWireResult<()> {
        while let Some(message) = frame::next(socket, MAX_MESSAGE).await? {
            if matches!(message, PgWireFrontendMessage::Terminate(_)) {
                break;
            }
            // After an error in the extended protocol all is skipped up to the next `Sync`.
            let until_sync = match socket.state() {
                PgWireConnectionState::CopyInProgress(extended) => extended,
                _ => message.is_extended_query(),
            };
            let processed = process_message(
                message,
                socket,
                Arc::clone(&self.login),
                Arc::clone(&session),
                Arc::clone(&session),
                Arc::new(NoopHandler),
                Arc::clone(&self.cancel),
            );
            match processed.await {
                Ok(()) => {}
                Err(PgWireError::IoError(error)) => return Err(error.into()),
                // Of a library: its text is for the log.
                Err(PgWireError::ApiError(error)) => {
                    process_error(socket, to_client(QueryError::Internal(error.to_string())), until_sync).await?;
                }
                Err(error) => {
                    let info: ErrorInfo = error.into();
                    let fatal = info.is_fatal();
                    let error = PgWireError::UserError(Box::new(info));
                    if fatal {
                        return Err(error);
                    }
                    process_error(socket, error, until_sync).await?;
                }
            }
        }
        Ok(())
    }
}

/// Tells the client why its connection ends, and ends it: the socket is closed when this returns.
async fn end(socket: &mut Socket<Arc<Prepared>>, error: PgWireError) -> io::Result<()> {
    let mut info: ErrorInfo = error.into();
    tracing::debug!(code = %info.code, reason = %info.message, "connection closed");
    info.severity = "FATAL".into();
    let told = async {
        socket.send(PgWireBackendMessage::ErrorResponse(info.into())).await?;
        socket.close().await
    };
    timeout(LAST_WORDS, told).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests;
