//! One port: the parts of the service that it answers with, and the port once it is bound.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use anyhow::bail;
use netverdict_service::{
    health::HealthRegistry,
    secret::SharedSecret,
    shutdown::Shutdown,
    tls::{ServerTls, TlsFiles},
};

use crate::{Executor, history::History};

/// How long requests may go on once the end is requested.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

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

/// The certificate of a port, if it has one. Refuses a port that others can reach without TLS: not every client that
/// reaches an address may read the record.
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
