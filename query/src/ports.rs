//! The ports through which clients ask. Each is one module with its options and an `open` that binds it and says how it
//! is served; a new port is its module, a field of [`PortOptions`] and a line of [`open`].

use std::{net::SocketAddr, path::PathBuf, pin::Pin, time::Duration};

use anyhow::bail;
use clap::Args;
use netverdict_service::{
    health::HealthRegistry,
    secret::SharedSecret,
    shutdown::Shutdown,
    tls::{ServerTls, TlsFiles},
};

use crate::{
    Executor,
    history::History,
    http::{self, HttpOptions},
    postgres::{self, PostgresOptions},
};

/// How long requests may go on once the end is requested.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The options of all ports.
#[derive(Clone, Debug, Args)]
pub struct PortOptions {
    #[command(flatten)]
    pub access: AccessOptions,
    #[command(flatten)]
    pub http: HttpOptions,
    #[command(flatten)]
    pub postgres: PostgresOptions,
}

/// Who may ask.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Listening")]
pub struct AccessOptions {
    /// File with the secret: the Bearer token for HTTP and the password of user `netverdict` for PostgreSQL. Made with
    /// a random secret and mode 0600 if it does not exist; refused if others may read it; read again when it changes.
    #[arg(
        long,
        env = "NETVERDICT_SECRET_FILE",
        default_value = "/var/lib/netverdict/state/query.password",
        value_name = "FILE"
    )]
    pub secret_file: PathBuf,
    /// Listen on other than loopback addresses without TLS: passwords do not travel in clear (SCRAM), tokens and
    /// answers do. For pods behind a mesh or a TLS proxy.
    #[arg(long, env = "NETVERDICT_INSECURE")]
    pub insecure: bool,
    /// File to write once all ports serve, as JSON: `{"http":"127.0.0.1:9480","postgres":"127.0.0.1:9432"}`.
    #[arg(long, env = "NETVERDICT_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// The parts of the service that a port answers with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) executor: Executor,
    pub(crate) history: History,
    pub(crate) secret: SharedSecret,
    pub(crate) health: HealthRegistry,
    pub(crate) statement_timeout: Duration,
    pub(crate) max_rows: usize,
    /// `--insecure`.
    pub(crate) insecure: bool,
    pub(crate) shutdown: Shutdown,
}

/// A port that is bound.
pub(crate) struct OpenPort {
    /// As in metrics and in the ready file: one of a closed list.
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Serves until the end is requested.
    pub(crate) serve: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>,
}

/// Binds all ports.
///
/// # Errors
/// An address is taken, a certificate cannot be read, a port would be open to others without TLS.
pub(crate) async fn open(options: &PortOptions, parts: &Parts) -> anyhow::Result<Vec<OpenPort>> {
    let PortOptions { access: _, http, postgres } = options;
    Ok(vec![http::open(http, parts).await?, postgres::open(postgres, parts).await?])
}

/// The certificate of a port, if it has one. Refuses a port that others can reach without TLS: the record is not for
/// everyone who can reach an address.
///
/// # Errors
/// The certificate cannot be used, or the port would be open.
pub(crate) fn certificate(
    parts: &Parts,
    (option, address): (&str, SocketAddr),
    files: Option<TlsFiles>,
    remedy: &str,
) -> anyhow::Result<Option<ServerTls>> {
    let tls = files.map(ServerTls::load).transpose()?;
    if address.ip().is_loopback() || tls.is_some() || parts.insecure {
        return Ok(tls);
    }
    bail!("{option} {address} is open to others without TLS: {remedy} say --insecure")
}
