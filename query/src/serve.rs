//! The service as a whole: its parts are opened in order, served until the end is requested, and ended in order.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use netverdict_service::{
    health::{Effect, HealthRegistry},
    secret::{SecretFile, SharedSecret},
    shutdown::Shutdown,
    task_group::TaskGroup,
};
use serde_json::Value;

use crate::{
    Executor,
    command_line::Options,
    copies::Copies,
    history::History,
    metrics::Metrics,
    mirror,
    options::{DataOptions, LimitOptions},
    port::{GRACE, OpenPort, Parts},
    ports,
    tables::Store,
    threads::Threads,
    unflushed::Collectors,
};

/// A service whose ports are bound.
pub struct Service {
    ports: Vec<(&'static str, SocketAddr)>,
    tasks: TaskGroup,
    shutdown: Shutdown,
}

impl Service {
    /// Binds the ports and begins to serve.
    ///
    /// # Errors
    /// An option cannot be used: a port is taken, a file cannot be read, an address would be open to others.
    pub async fn start(options: &Options, shutdown: Shutdown) -> anyhow::Result<Self> {
        let Options { data, ports, limits, telemetry: _ } = options;
        let secret = SharedSecret::load_or_create(SecretFile::new(&ports.access.secret_file, "--secret-file"))?;
        let copies = copies(data)?;
        let executor = executor(data, copies.clone(), limits).await?;
        let parts = Parts {
            history: History::new(executor.clone(), limits),
            health: health(&executor),
            executor,
            secret,
            statement_timeout: limits.statement_timeout,
            max_rows: limits.max_rows,
            insecure: ports.access.insecure,
            shutdown: shutdown.clone(),
        };
        let mut tasks = TaskGroup::default();
        if let Some(copies) = copies {
            let collectors = Arc::clone(parts.executor.store().collectors());
            tasks.spawn("mirror", mirror::run(collectors, copies, shutdown.clone()));
        }
        let mut addresses = Vec::new();
        for OpenPort { name, address, serve } in ports::open(ports, &parts).await? {
            tracing::info!(port = name, %address, "serving");
            addresses.push((name, address));
            tasks.spawn(name, serve);
        }
        if let Some(path) = &ports.access.ready_file {
            announce(path, &addresses).with_context(|| format!("--ready-file {} cannot be written", path.display()))?;
        }
        Ok(Self { ports: addresses, tasks, shutdown })
    }

    /// The address that a port is bound to, by the port's name: `http`, `postgres`.
    pub fn address(&self, port: &str) -> Option<SocketAddr> {
        self.ports.iter().find(|(name, _)| *name == port).map(|(_, address)| *address)
    }

    /// Serves until the end is requested, or a part fails.
    ///
    /// # Errors
    /// The reason of the part that failed.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let reason = tokio::select! {
            // Once the end is requested, ports end too, perhaps before this task runs again.
            biased;
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
async fn executor(data: &DataOptions, copies: Option<Arc<Copies>>, limits: &LimitOptions) -> anyhow::Result<Executor> {
    let metrics = Arc::new(Metrics::default());
    let collectors = Arc::new(Collectors::new(data, copies, Arc::clone(&metrics))?);
    let store = Arc::new(Store::open(&data.data_dir, collectors, Arc::clone(&metrics))?);
    let threads = Threads::start(limits.query_threads).context("no threads for statements")?;
    Ok(Executor::new(store, threads, limits, metrics).await?)
}

/// With `--mirror`, the copies in the data directory.
fn copies(data: &DataOptions) -> anyhow::Result<Option<Arc<Copies>>> {
    if !data.mirror {
        return Ok(None);
    }
    let directory = &data.data_dir;
    let limit = data.mirror_limit.saturating_mul(1 << 30);
    let copies = std::fs::create_dir_all(directory).and_then(|()| Copies::open(directory.clone(), limit));
    Ok(Some(Arc::new(copies.with_context(|| format!("--data-dir {} cannot hold copies", directory.display()))?)))
}

/// Ready means that the data directory can be listed.
fn health(executor: &Executor) -> HealthRegistry {
    let (health, executor) = (HealthRegistry::default(), executor.clone());
    health.register_check("store", Effect::Unready, move || {
        let executor = executor.clone();
        async move {
            let listed = executor.store().readable().await;
            listed.err().map(|error| format!("the data directory cannot be listed: {error}")).into_iter().collect()
        }
    });
    health
}

/// Written beside and renamed, so that a reader never sees half of it.
fn announce(path: &Path, ports: &[(&'static str, SocketAddr)]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let ready: Value = ports.iter().map(|(name, address)| (*name, address.to_string())).collect();
    std::fs::write(&beside, ready.to_string())?;
    std::fs::rename(&beside, path)
}
