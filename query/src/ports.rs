//! All ports through which clients ask: their options, and their start. A new port is a module with its options and an
//! `open` (see [`crate::port`]), a field of [`PortOptions`] and a line of [`open`].

use std::path::PathBuf;

use clap::Args;

use crate::{
    http::{self, HttpOptions},
    port::{OpenPort, Parts},
    postgres::{self, PostgresOptions},
};

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

/// Binds all ports.
///
/// # Errors
/// An address is taken, a certificate cannot be read, a port would be open to others without TLS.
pub(crate) async fn open(options: &PortOptions, parts: &Parts) -> anyhow::Result<Vec<OpenPort>> {
    let PortOptions { access: _, http, postgres } = options;
    Ok(vec![http::open(http, parts).await?, postgres::open(postgres, parts).await?])
}
