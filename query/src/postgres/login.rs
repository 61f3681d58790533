//! Logging in: SCRAM-SHA-256 with one user, whose password is the service's secret. Where TLS is set up, it is required.
//!
//! pgwire keeps no record of a successful login: after a failed one it marks the connection as ready for statements. So
//! messages are taken here until SCRAM has succeeded, and only then there is a [`LoggedIn`], without which there is no
//! session (`session`). To report upstream: `process_error` sets `ReadyForQuery` in every state, and closes only
//! the write half, so that the message loop goes on (pgwire 0.41.1, tokio/server.rs).

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use datafusion_postgres::pgwire::{
    api::{
        ClientInfo, ConnectionManager, PgWireConnectionState,
        auth::{
            AuthSource, DefaultServerParameterProvider, LoginInfo, Password, StartupHandler,
            sasl::{
                SASLAuthStartupHandler,
                scram::{SCRAM_ITERATIONS, ScramAuth, gen_salted_password},
            },
        },
        cancel::CancelHandler,
    },
    error::{PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, PgWireFrontendMessage, startup::PasswordMessageFamily},
};
use futures::Sink;
use netverdict_service::secret::Secret;
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    client_error::{fatal, protocol_violation},
    frame::{self, Socket},
};
use crate::session::DATABASE;

/// Longest message before a login, in bytes: as much as pgwire takes for the first one. Those of SCRAM are shorter.
const MAX_MESSAGE: usize = 10_000;
/// The one user.
const USER: &str = "netverdict";

pub(super) struct User {
    salt: Vec<u8>,
    salted_password: Vec<u8>,
}

impl Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User(hidden)")
    }
}

impl User {
    /// Salts the password, which takes some milliseconds, once.
    pub(super) fn new(secret: &Secret) -> anyhow::Result<Self> {
        let mut salt = vec![0; 16];
        SystemRandom::new().fill(&mut salt).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        let salted_password = gen_salted_password(secret.reveal(), &salt, SCRAM_ITERATIONS);
        Ok(Self { salt, salted_password })
    }
}

#[async_trait]
impl AuthSource for User {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        if login.user() != Some(USER) {
            let found = login.user().unwrap_or_default();
            return Err(fatal("28P01", format!("user \"{found}\" is unknown: log in as \"{USER}\"")));
        }
        if let Some(other) = login.database().filter(|database| !matches!(*database, "" | DATABASE)) {
            return Err(fatal("3D000", format!("database \"{other}\" does not exist: the one here is \"{DATABASE}\"")));
        }
        Ok(Password::new(Some(self.salt.clone()), self.salted_password.clone()))
    }
}

/// The proof that a client has logged in. Only [`log_in`] makes one.
pub(super) struct LoggedIn(());

/// Takes a client's messages until it has logged in. `None`: the connection is over without a login, and without an
/// error: the client has left, or asked only to cancel a statement of another connection.
///
/// # Errors
/// When the login fails, which ends the connection.
pub(super) async fn log_in<S: Send + Sync + 'static>(
    socket: &mut Socket<S>,
    login: &Login,
    cancel: &impl CancelHandler,
) -> PgWireResult<Option<LoggedIn>> {
    let mut responses = 0_usize;
    loop {
        let Some(message) = frame::next(socket, MAX_MESSAGE).await? else { return Ok(None) };
        match message {
            // It authenticates by the key that the other connection was given.
            PgWireFrontendMessage::CancelRequest(request) => {
                cancel.on_cancel_request(request).await;
                return Ok(None);
            }
            PgWireFrontendMessage::Terminate(_) => return Ok(None),
            PgWireFrontendMessage::Startup(_) => login.on_startup(socket, message).await?,
            PgWireFrontendMessage::PasswordMessageFamily(PasswordMessageFamily::Raw(body)) => {
                if responses == 0 && !frame::is_initial_response(&body) {
                    return Err(protocol_violation("expected a SASL mechanism and its data, found something else"));
                }
                responses += 1;
                let response = PasswordMessageFamily::Raw(body);
                login.on_startup(socket, PgWireFrontendMessage::PasswordMessageFamily(response)).await?;
                // Set by nothing but the end of SCRAM, here where no error was handled before.
                if matches!(socket.state(), PgWireConnectionState::ReadyForQuery) {
                    return Ok(Some(LoggedIn(())));
                }
            }
            _ => return Err(protocol_violation("expected a login, found another message")),
        }
    }
}

/// The login of one connection.
pub(super) struct Login {
    sasl: SASLAuthStartupHandler<DefaultServerParameterProvider>,
    tls_only: bool,
}

impl Login {
    pub(super) fn new(scram: ScramAuth, manager: Arc<ConnectionManager>, tls_only: bool) -> Self {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        parameters.time_zone = "UTC".into();
        let sasl = SASLAuthStartupHandler::new(Arc::new(parameters)).with_scram(scram).with_connection_manager(manager);
        Self { sasl, tls_only }
    }
}

#[async_trait]
impl StartupHandler for Login {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if self.tls_only && !client.is_secure() {
            return Err(fatal("28000", "TLS is required: connect with sslmode=require or stricter"));
        }
        self.sasl.on_startup(client, message).await
    }
}
