//! The service as a whole: parts made in order, served until told to stop, ended in order.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use chrono::Utc;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Executor,
    flows::Followers,
    history::History,
    http::{self, Api},
    metrics::Metrics,
    options::{ListenOptions, Options},
    postgres::{self, Tls},
    secret::Secret,
    tables::Store,
    threads::Threads,
    unflushed::Collectors,
};

/// How long requests may go on once the service is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A service whose ports are bound.
pub struct Service {
    pub http: SocketAddr,
    pub postgres: SocketAddr,
    parts: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Service {
    /// Binds both ports and begins to serve.
    ///
    /// # Errors
    /// When an option cannot be used: a port is taken, a file cannot be read, an address would be open to others.
    pub async fn start(options: &Options, stop: CancellationToken) -> anyhow::Result<Self> {
        let Options { data, listen, limits, telemetry: _ } = options;
        let ListenOptions { http, postgres, secret_file, tls_cert, tls_key, insecure, ready_file } = listen;
        let tls = match (tls_cert, tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
            _ => None,
        };
        closed("--postgres", *postgres, tls.is_some() || *insecure)?;
        closed("--http", *http, *insecure)?;
        let secret = Secret::load_or_create(secret_file)?;
        let metrics = Arc::new(Metrics::default());
        let collectors = Arc::new(Collectors::new(data, Arc::clone(&metrics))?);
        let store = Arc::new(Store::open(&data.data_dir, collectors, Arc::clone(&metrics))?);
        let threads = Threads::start(limits.query_threads).context("no threads for statements")?;
        let executor = Executor::new(store, threads, limits, metrics).await?;

        let http = bind("--http", *http).await?;
        let postgres = bind("--postgres", *postgres).await?;
        let (http_address, postgres_address) = (http.local_addr()?, postgres.local_addr()?);
        let api = Arc::new(Api {
            executor: executor.clone(),
            history: History::new(executor.clone(), limits),
            followers: Followers::default(),
            secret: secret.clone(),
            max_rows: limits.max_rows,
            statement_timeout: limits.statement_timeout,
            started: Utc::now(),
        });
        let mut parts = JoinSet::new();
        parts.spawn(http::serve(http, api, stop.clone()));
        let (max_connections, ended) = (limits.max_connections, stop.clone());
        parts.spawn(async move { postgres::serve(postgres, executor, &secret, tls, max_connections, ended).await });
        tracing::info!(http = %http_address, postgres = %postgres_address, "serving");
        if let Some(path) = ready_file {
            announce(path, http_address, postgres_address)
                .with_context(|| format!("--ready-file {} cannot be written", path.display()))?;
        }
        Ok(Self { http: http_address, postgres: postgres_address, parts, stop })
    }

    /// Serves until it is told to stop, or a part of it fails.
    ///
    /// # Errors
    /// The reason of the part that failed.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        loop {
            let ended = tokio::select! {
                ended = self.parts.join_next() => ended,
                () = overdue(&self.stop) => {
                    tracing::warn!("requests cut off");
                    self.parts.shutdown().await;
                    None
                }
            };
            let Some(ended) = ended else { break };
            let ended = ended.context("a part of the service died").and_then(|ended| ended);
            if !self.stop.is_cancelled() && ended.is_ok() {
                result = result.and(Err(anyhow::anyhow!("a part of the service ended by itself")));
            }
            result = result.and(ended);
            self.stop.cancel();
        }
        tracing::info!("stopped");
        result
    }
}

/// Comes when the service was told to stop and has had its time for it.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// What the record tells is not for everyone who can reach an address.
fn closed(option: &str, address: SocketAddr, allowed: bool) -> anyhow::Result<()> {
    if address.ip().is_loopback() || allowed {
        return Ok(());
    }
    let remedy = match option {
        "--postgres" => "give --tls-cert and --tls-key, or",
        _ => "put a TLS proxy before a loopback address, or",
    };
    bail!("{option} {address} is open to others without TLS: {remedy} say --insecure")
}

async fn bind(option: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "{option} {address} is in use by another process: end it, or choose another port (0 takes a free one)"
            )
        }
        _ => anyhow::Error::new(error).context(format!("{option} {address} cannot be listened on")),
    })
}

/// Beside and renamed, so that a reader never sees half of it.
fn announce(path: &Path, http: SocketAddr, postgres: SocketAddr) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, json!({ "http": http.to_string(), "postgres": postgres.to_string() }).to_string())?;
    std::fs::rename(&beside, path)
}
