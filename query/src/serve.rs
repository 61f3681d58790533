//! The service as a whole: its parts are opened in order, served until the end is requested, and ended in order.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use chrono::Utc;
use netverdict_service::{
    http_server::{HttpLimits, HttpServer, bind},
    secret::{SecretFile, SharedSecret},
    shutdown::Shutdown,
    task_group::TaskGroup,
    tls::{self, ServerTls, TlsFiles},
};
use serde_json::json;

use crate::{
    Executor,
    flows::Followers,
    history::History,
    http::{self, Api},
    metrics::Metrics,
    options::{DataOptions, LimitOptions, ListenOptions, Options},
    postgres,
    tables::Store,
    threads::Threads,
    unflushed::Collectors,
};

/// How long requests may go on once the end is requested.
const GRACE: Duration = Duration::from_secs(10);

/// A service whose ports are bound.
pub struct Service {
    pub http: SocketAddr,
    pub postgres: SocketAddr,
    tasks: TaskGroup,
    shutdown: Shutdown,
}

impl Service {
    /// Binds both ports and begins to serve.
    ///
    /// # Errors
    /// An option cannot be used: a port is taken, a file cannot be read, an address would be open to others.
    pub async fn start(options: &Options, shutdown: Shutdown) -> anyhow::Result<Self> {
        let Options { data, listen, limits, http_limits, telemetry: _ } = options;
        let ListenOptions { http, postgres, secret_file, ready_file, .. } = listen;
        let certificates = Certificates::load(listen)?;
        let secret = SharedSecret::load_or_create(SecretFile::new(secret_file, "--secret-file"))?;
        let executor = executor(data, limits).await?;

        let http = bind(*http, "--http").await?;
        let postgres = bind(*postgres, "--postgres").await?;
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
        let server = HttpServer {
            port: "http",
            limits: HttpLimits { drain: GRACE, ..HttpLimits::from(http_limits) },
            tls: certificates.http,
            metrics: executor.metrics().http.clone(),
        };
        let mut tasks = TaskGroup::default();
        let http_end = shutdown.clone();
        tasks.spawn("HTTP port", async move {
            server.serve(http, http::router(api), http_end).await;
            Ok(())
        });
        let max_connections = limits.max_connections;
        let postgres_end = shutdown.clone();
        let certificate = certificates.postgres;
        tasks.spawn("PostgreSQL port", async move {
            postgres::serve(postgres, executor, secret, certificate, max_connections, postgres_end).await
        });
        tracing::info!(http = %http_address, postgres = %postgres_address, "serving");
        if let Some(path) = ready_file {
            announce(path, http_address, postgres_address)
                .with_context(|| format!("--ready-file {} cannot be written", path.display()))?;
        }
        Ok(Self { http: http_address, postgres: postgres_address, tasks, shutdown })
    }

    /// Serves until the end is requested, or a part fails.
    ///
    /// # Errors
    /// The reason of the part that failed.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let reason = tokio::select! {
            () = self.shutdown.requested() => Ok(()),
            Some((name, result)) = self.tasks.ended() => {
                result.and_then(|()| bail!("{name} ended before its time"))
            }
        };
        self.shutdown.request();
        // The ports keep the time themselves, and say which requests were cut off.
        let joined = self.tasks.join(GRACE + Duration::from_secs(1)).await;
        tracing::info!("stopped");
        reason.and(joined)
    }
}

/// The statements' executor, with all that it reads from.
async fn executor(data: &DataOptions, limits: &LimitOptions) -> anyhow::Result<Executor> {
    let metrics = Arc::new(Metrics::default());
    let collectors = Arc::new(Collectors::new(data, Arc::clone(&metrics))?);
    let store = Arc::new(Store::open(&data.data_dir, collectors, Arc::clone(&metrics))?);
    let threads = Threads::start(limits.query_threads).context("no threads for statements")?;
    Ok(Executor::new(store, threads, limits, metrics).await?)
}

/// The certificate of each port that has one.
struct Certificates {
    http: Option<ServerTls>,
    postgres: Option<ServerTls>,
}

impl Certificates {
    /// Refuses a port that others can reach without TLS: the record is not for everyone who can reach an address.
    fn load(options: &ListenOptions) -> anyhow::Result<Self> {
        let ListenOptions {
            http,
            postgres,
            secret_file: _,
            tls_cert,
            tls_key,
            http_tls_cert,
            http_tls_key,
            insecure,
            ready_file: _,
        } = options;
        let postgres_tls = match (tls_cert, tls_key) {
            (Some(certificate), Some(key)) => Some(ServerTls::load(TlsFiles {
                certificate: certificate.clone(),
                certificate_option: "--tls-cert",
                key: key.clone(),
                key_option: "--tls-key",
                protocols: &[],
            })?),
            _ => None,
        };
        let http_tls = match (http_tls_cert, http_tls_key) {
            (Some(certificate), Some(key)) => Some(ServerTls::load(TlsFiles {
                certificate: certificate.clone(),
                certificate_option: "--http-tls-cert",
                key: key.clone(),
                key_option: "--http-tls-key",
                protocols: tls::HTTP,
            })?),
            _ => None,
        };
        let certificate = "give --tls-cert and --tls-key, or";
        refuse_open_port("--postgres", *postgres, postgres_tls.is_some() || *insecure, certificate)?;
        let certificate = "give --http-tls-cert and --http-tls-key, put a TLS proxy before a loopback address, or";
        refuse_open_port("--http", *http, http_tls.is_some() || *insecure, certificate)?;
        Ok(Self { http: http_tls, postgres: postgres_tls })
    }
}

fn refuse_open_port(option: &str, address: SocketAddr, allowed: bool, remedy: &str) -> anyhow::Result<()> {
    if address.ip().is_loopback() || allowed {
        return Ok(());
    }
    bail!("{option} {address} is open to others without TLS: {remedy} say --insecure")
}

/// Written beside and renamed, so that a reader never sees half of it.
fn announce(path: &Path, http: SocketAddr, postgres: SocketAddr) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, json!({ "http": http.to_string(), "postgres": postgres.to_string() }).to_string())?;
    std::fs::rename(&beside, path)
}
