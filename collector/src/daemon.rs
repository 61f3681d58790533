//! The daemon: opens everything in order, starts its threads and tasks, and ends them in order.
//!
//! It decides nothing about events or policies. A thread or task that ends before its time ends the process, with a
//! reason; enforcement continues without it.

mod announcements;
mod explain;
mod interfaces;
mod opening;
mod sources;
mod threads;
mod translate;
mod unbound_events;

use std::{io, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use axum::Router;
use netverdict_probe::{ClaimFolder, Watch};
use netverdict_service::{
    error_chain::chain,
    http_server::{self, HttpLimits, HttpServer, HttpServerMetrics},
    shutdown::Shutdown,
    task_group::TaskGroup,
    thread_group::ThreadGroup,
    tls::{self, ServerTls, TlsFiles},
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot, task::spawn_blocking};

use self::interfaces::Interfaces;
pub use self::translate::store_options;
use crate::{
    admin,
    health::Part,
    options::{ListenOptions, RunOptions},
    receive::{
        self,
        inlet::{self, BoundReceiver, Inlet},
    },
    serve, state,
};

/// How long clients may still be answered when everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Sightings of interfaces that wait for the control thread: more than a node has pods.
const SIGHTINGS: usize = 1_024;

/// Runs the collector until its end is requested, or a part of it fails.
///
/// # Errors
/// Names the setting that could not be used at the start and its remedy, or the part that ended and the reason.
pub async fn run(options: RunOptions, shutdown: Shutdown) -> anyhow::Result<()> {
    // Everything that can be refused without touching the kernel comes first.
    let limits = HttpLimits { drain: LAST_ANSWERS, ..HttpLimits::from(&options.http) };
    let receivers = receive::bind(&options.receivers, &limits).await?;
    let ports = Ports::open(&options.listen, limits).await?;
    let (ready_file, discover_interval) = (options.listen.ready_file.clone(), options.probe.discover_interval);
    let (run_dir, unannounced) = (options.probe.run_dir.clone(), options.probe.unannounced);
    let mut opened = tokio::select! {
        opened = opening::open(options, shutdown.clone()) => opened?,
        // For instance while another collector still holds the probe.
        () = shutdown.requested() => {
            tracing::info!("stopped before the start was complete");
            return Ok(());
        }
    };
    // The first tables that are published hold the node's own addresses, or pods would be cut off from their kubelet.
    let watch = Watch::start(discover_interval).await.context("interfaces cannot be watched")?;
    let (served, node_events) = (opened.served.clone(), opened.node_events.take());
    // After the probe's lock is taken: of two collectors on a node, that one answers the CNI plugin.
    let announcements = announcements::bind(&run_dir)?;

    let (sighting_sender, sightings) = served.metrics.queues.bounded("sightings", SIGHTINGS);
    let (started_sender, started) = oneshot::channel();
    let (deliveries, delivered) = inlet::deliveries(&served.metrics.queues);
    let mut threads = ThreadGroup::default();
    let (announced_sender, announced) = served.metrics.queues.bounded("announcements", announcements::AT_ONCE);
    let interfaces = Interfaces {
        own_addresses: watch.own_addresses().clone(),
        sightings,
        announced,
        claims: ClaimFolder::of(&run_dir),
        unannounced,
    };
    threads::start(opened, &mut threads, interfaces, delivered, started_sender, &shutdown)?;
    // Ports end after the threads: until then they report the collector's state.
    let (ports_end, mut addresses) = (Shutdown::new(), ports.addresses()?);
    let mut tasks = TaskGroup::default();
    let (health, metrics, token) = (served.health.clone(), served.metrics.clone(), served.token.clone());
    ports.serve(
        admin::router(health.clone(), metrics.clone(), token),
        serve::router(served),
        &metrics.http,
        &mut tasks,
        &ports_end,
    );
    for BoundReceiver { name, address, serve } in receivers {
        addresses.push((name, address));
        let inlet = Inlet { deliveries: deliveries.clone(), metrics: metrics.clone(), end: ports_end.clone() };
        let port = serve(inlet);
        tasks.spawn(name, async move {
            port.await;
            Ok(())
        });
    }
    drop(deliveries);
    tasks.spawn("interfaces", interfaces::watch(watch, discover_interval, sighting_sender, ports_end.clone()));
    tasks.spawn("announcements", announcements::serve(announcements, announced_sender, ports_end.clone()));
    if let Some(events) = node_events {
        tasks.spawn("node events", unbound_events::follow(events, health.clone(), ports_end.clone()));
    }
    for (port, address) in &addresses {
        tracing::info!(port, %address, "serving");
    }

    let reason = wait(&mut threads, &mut tasks, started, ready_file.as_deref(), &addresses, &shutdown).await;
    health.set(Part::Start, vec!["the collector is stopping".to_owned()]);
    shutdown.request();
    let joined = spawn_blocking(move || threads.join()).await.context("threads not joined")?;
    ports_end.request();
    // The ports keep the time themselves.
    let answered = tasks.join(LAST_ANSWERS + Duration::from_secs(1)).await;
    if let Some(path) = &ready_file
        && let Err(error) = state::remove(path)
    {
        tracing::warn!(error = %chain(&error), "ready file not removed");
    }
    // The failure of a thread explains more than the fact that it ended.
    joined.and(reason).and(answered)?;
    tracing::info!("stopped; what is pinned continues to enforce");
    Ok(())
}

/// Waits until there is a reason to end: none if the end is requested.
async fn wait(
    threads: &mut ThreadGroup,
    tasks: &mut TaskGroup,
    started: oneshot::Receiver<()>,
    ready_file: Option<&Path>,
    addresses: &[(&'static str, SocketAddr)],
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let mut started = std::pin::pin!(started);
    let mut starting = true;
    loop {
        tokio::select! {
            // Once the end is requested, threads and tasks end too, perhaps before this task runs again.
            biased;
            () = shutdown.requested() => return Ok(()),
            name = threads.ended() => bail!("{name} ended before its time"),
            Some((name, result)) = tasks.ended() => {
                result?;
                bail!("{name} ended before its time");
            }
            told = &mut started, if starting => {
                starting = false;
                if told.is_ok() && let Some(path) = ready_file {
                    let json: Value =
                        addresses.iter().map(|(port, address)| (*port, address.to_string())).collect();
                    state::save_for_others(path, &json)?;
                }
            }
        }
    }
}

/// The collector's own ports, bound before any request is answered.
struct Ports {
    admin: TcpListener,
    rows: TcpListener,
    rows_tls: Option<ServerTls>,
    limits: HttpLimits,
}

impl Ports {
    async fn open(options: &ListenOptions, limits: HttpLimits) -> anyhow::Result<Self> {
        let ListenOptions { admin_address, rows_address, rows_tls_cert, rows_tls_key, token_file: _, ready_file: _ } =
            options;
        let rows_tls = match (rows_tls_cert, rows_tls_key) {
            (Some(certificate), Some(key)) => Some(ServerTls::load(TlsFiles {
                certificate: certificate.clone(),
                certificate_option: "--rows-tls-cert",
                key: key.clone(),
                key_option: "--rows-tls-key",
                protocols: tls::HTTP,
            })?),
            _ => None,
        };
        if !rows_address.ip().is_loopback() && rows_tls.is_none() {
            tracing::warn!(listen.rows = %rows_address, "rows and token cross the network in clear text: give --rows-tls-cert");
        }
        let admin = http_server::bind(*admin_address, "--admin-address").await?;
        let rows = http_server::bind(*rows_address, "--rows-address").await?;
        Ok(Self { admin, rows, rows_tls, limits })
    }

    /// Each with its name.
    fn addresses(&self) -> io::Result<Vec<(&'static str, SocketAddr)>> {
        Ok(vec![("admin", self.admin.local_addr()?), ("rows", self.rows.local_addr()?)])
    }

    fn serve(
        self,
        admin_router: Router,
        rows_router: Router,
        metrics: &HttpServerMetrics,
        tasks: &mut TaskGroup,
        end: &Shutdown,
    ) {
        let Self { admin, rows, rows_tls, limits } = self;
        let server = |port, tls| HttpServer { port, limits: limits.clone(), tls, metrics: metrics.clone() };
        let admin = server("admin", None).serve(admin, admin_router, end.clone());
        let rows = server("rows", rows_tls).serve(rows, rows_router, end.clone());
        let ports = [("admin port", Box::pin(admin)), ("rows port", Box::pin(rows))];
        for (name, port) in ports {
            tasks.spawn(name, async move {
                port.await;
                Ok(())
            });
        }
    }
}
