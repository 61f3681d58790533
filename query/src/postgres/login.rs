//! Logging in: SCRAM-SHA-256 with one user, whose password is the service's secret. Over TLS where it is set up, and
//! then not without.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use datafusion_postgres::pgwire::{
    api::{
        ClientInfo, ConnectionManager,
        auth::{
            AuthSource, DefaultServerParameterProvider, LoginInfo, Password, StartupHandler,
            sasl::{
                SASLAuthStartupHandler,
                scram::{SCRAM_ITERATIONS, ScramAuth, gen_salted_password},
            },
        },
    },
    error::{ErrorInfo, PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, PgWireFrontendMessage},
};
use futures::Sink;
use netverdict_service::secret::Secret;
use ring::rand::{SecureRandom, SystemRandom};

use crate::{metrics::Metrics, session::DATABASE};

/// The one user.
pub(super) const USER: &str = "netverdict";

pub(super) struct User {
    salt: Vec<u8>,
    salted_password: Vec<u8>,
    metrics: Arc<Metrics>,
}

impl Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User(hidden)")
    }
}

impl User {
    /// Salts the password, which takes some milliseconds, once.
    pub(super) fn new(secret: &Secret, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let mut salt = vec![0; 16];
        SystemRandom::new().fill(&mut salt).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        let salted_password = gen_salted_password(secret.reveal(), &salt, SCRAM_ITERATIONS);
        Ok(Self { salt, salted_password, metrics })
    }
}

#[async_trait]
impl AuthSource for User {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        if login.user() != Some(USER) {
            self.metrics.refused_login("postgres");
            let found = login.user().unwrap_or_default();
            return Err(fatal("28P01", format!("user \"{found}\" is unknown: log in as \"{USER}\"")));
        }
        if let Some(other) = login.database().filter(|database| !matches!(*database, "" | DATABASE)) {
            return Err(fatal("3D000", format!("database \"{other}\" does not exist: the one here is \"{DATABASE}\"")));
        }
        Ok(Password::new(Some(self.salt.clone()), self.salted_password.clone()))
    }
}

pub(super) fn fatal(code: &str, message: String) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), code.into(), message)))
}

/// Of one connection.
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
            return Err(fatal("28000", "TLS is required: connect with sslmode=require or stricter".into()));
        }
        self.sasl.on_startup(client, message).await
    }
}
