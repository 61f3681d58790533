//! The daemon: opens everything in order, starts its threads, and ends them in order.
//!
//! It decides nothing about events or policies. A thread that ends before its time ends the process, with a reason;
//! enforcement goes on without it.

mod crew;
mod explain;
mod translate;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use axum::Router;
use netverdict_cluster::{Cluster, Generations, Source as _, manifests::Manifests};
use netverdict_flowlog::row::{ModeName, Row, SettingRow};
use netverdict_probe::{Probe, Sighting, Watch};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{mpsc::UnboundedReceiver, oneshot},
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

pub use self::translate::store_options;
use self::{crew::Crew, explain::Explain};
use crate::{
    admin, clock,
    cluster::{self, changes::Changes},
    control::Control,
    drain::{Channels, Delivery, Drain, Message},
    health::{Health, Part},
    input::{Input, Session},
    metrics::Metrics,
    options::{self, ListenOptions, ReceiverOptions, RunOptions},
    pipeline::{Checkpoint, Pipeline},
    receive::goldmane::listener as goldmane,
    recording::{Recorder, SharedRecorder},
    serve::{self, Served},
    snapshots::Snapshots,
    state,
    stop::Stop,
    store::Store,
    token::Token,
    wal::Wal,
    write::{FactLog, Writer, append_rows},
};

/// Inputs between the log and the pipeline: batches of a quarter of a MiB at most.
const QUEUE: usize = 64;
/// How long clients may still be answered when everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
const WAL_FOLDER: &str = "wal";
const TOKEN_FILE: &str = "collector.token";

/// Runs the collector until it is told to stop, or a part of it fails.
///
/// # Errors
/// Says what could not be used at the start and what to do about it, or which part ended and why.
pub async fn run(options: RunOptions) -> anyhow::Result<()> {
    // Everything that can be refused without touching the kernel comes first.
    let ports = Ports::open(&options.listen, &options.receivers).await?;
    let opened = Opened::open(options).await?;
    let Opened { listen, discover_interval, session, store, health, metrics, stop, .. } = &opened;
    let (listen, discover_interval, stop) = (listen.clone(), *discover_interval, stop.clone());
    let (health, metrics) = (health.clone(), metrics.clone());
    let served = Served {
        store: store.clone(),
        session: session.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
        token: opened.token.clone(),
    };

    let (sighting_sender, sightings) = mpsc::channel();
    let (started_sender, started) = oneshot::channel();
    let (delivery_sender, deliveries) = goldmane::deliveries();
    let goldmane_token = opened.goldmane_token.clone();
    let (mut crew, mut ended) = Crew::new();
    opened.start(&mut crew, sightings, deliveries, started_sender)?;
    let closing = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let Ports { admin, rows, goldmane } = ports;
    let goldmane_address = goldmane.as_ref().map(TcpListener::local_addr).transpose()?;
    let addresses = Addresses { admin: admin.local_addr()?, rows: rows.local_addr()?, goldmane: goldmane_address };
    tasks.spawn(answer(admin, admin::router(health.clone(), metrics.clone()), closing.clone()));
    if let Some(listener) = goldmane {
        let port = goldmane::Listener { token: goldmane_token, deliveries: delivery_sender, metrics };
        tasks.spawn(answer(listener, goldmane::router(port), closing.clone()));
    }
    tasks.spawn(answer(rows, serve::router(served), closing.clone()));
    tasks.spawn(watch(discover_interval, sighting_sender, closing.clone()));
    tracing::info!(listen.admin = %addresses.admin, listen.rows = %addresses.rows, "serving");

    let reason = wait(&mut ended, &mut tasks, started, listen.ready_file.as_deref(), addresses).await;
    health.set(Part::Start, vec!["the collector is stopping".to_owned()]);
    stop.set();
    let joined = spawn_blocking(move || crew.join()).await.context("threads not joined")?;
    closing.cancel();
    let answered = tokio::time::timeout(LAST_ANSWERS, async { while tasks.join_next().await.is_some() {} }).await;
    if answered.is_err() {
        tasks.shutdown().await;
    }
    if let Some(path) = &listen.ready_file
        && let Err(error) = state::remove(path)
    {
        tracing::warn!(error = %crate::cause::chain(&error), "ready file not removed");
    }
    // Why a thread ended says more than that it did.
    joined.and(reason)?;
    tracing::info!("stopped; what is pinned goes on enforcing");
    Ok(())
}

/// The sockets, before anybody is answered.
struct Ports {
    admin: TcpListener,
    rows: TcpListener,
    goldmane: Option<TcpListener>,
}

#[derive(Clone, Copy)]
struct Addresses {
    admin: SocketAddr,
    rows: SocketAddr,
    goldmane: Option<SocketAddr>,
}

impl Ports {
    async fn open(options: &ListenOptions, receivers: &ReceiverOptions) -> anyhow::Result<Self> {
        let admin = bind(options.admin_address, "--admin-address").await?;
        let rows = bind(options.rows_address, "--rows-address").await?;
        let goldmane = match receivers.goldmane_listen {
            Some(address) => Some(bind(address, "--goldmane-listen").await?),
            None => None,
        };
        Ok(Self { admin, rows, goldmane })
    }
}

/// Everything that was opened, and what the log held is with the pipeline.
struct Opened {
    listen: ListenOptions,
    manifests: Manifests,
    generations: Generations,
    discover_interval: Duration,
    kept: Snapshots,
    changes: Changes,
    store: Arc<Store>,
    wal: Wal,
    recorder: Option<Recorder>,
    probe: Probe,
    explain: Explain,
    session: Session,
    writer: Writer,
    health: Arc<Health>,
    metrics: Metrics,
    stop: Stop,
    token: Token,
    goldmane_token: Option<Token>,
}

impl Opened {
    async fn open(options: RunOptions) -> anyhow::Result<Self> {
        let node = match &options.identity.node {
            Some(node) => node.clone(),
            None => translate::host_name().context("the host has no name: give one with --node")?,
        };
        let settings = options::effective(&options, &node);
        for (name, value) in &settings {
            tracing::info!(setting.name = name, setting.value = value, "setting");
        }
        let RunOptions { identity, source, probe: asked, storage, listen, receivers, telemetry: _, record } = options;
        let (data_dir, state_dir) = (&storage.data_dir, &storage.state_dir);
        state::make_folder(state_dir)?;
        let token = Token::load_or_create(&listen.token_file.clone().unwrap_or_else(|| state_dir.join(TOKEN_FILE)))?;
        let goldmane_token = receivers.goldmane_token_file.as_deref().map(Token::load_or_create).transpose()?;
        let manifests = Manifests::open(&source.manifests, state_dir, source.manifest_interval)?;
        let generations = Generations::open(state_dir)?;
        let boot_id: Arc<str> = clock::boot_id().context("the kernel does not say which boot this is")?.into();
        let node: Arc<str> = node.into();
        let nothing_written = !data_dir.join("policies").is_dir();
        let (store, committed) = Store::open(store_options(&storage, &identity.cluster, &node, &boot_id))?;
        let store = Arc::new(store);
        // What is kept in logs is opened under the store's lock: opening a log cuts off its torn end.
        let kept = Snapshots::open(state_dir)?;
        // What was told and is neither in a file nor in the journal has to be told again.
        let anew = nothing_written && committed.recovered_rows == 0;
        let changes = Changes::open(state_dir, node.clone(), boot_id.clone(), anew)?;
        let checkpoint = match &committed.checkpoint {
            Some(text) => serde_json::from_str::<Checkpoint>(text)
                .context("the account of events in the commit record cannot be understood")?,
            None => Checkpoint::default(),
        };
        let fsync = translate::fsync(storage.fsync);
        let (wal, replay) = Wal::open(&state_dir.join(WAL_FOLDER), fsync, committed.wal)?;
        let header = translate::header(&identity.cluster, &node, &boot_id);
        let recorder = record.as_deref().map(|path| Recorder::create(path, &header)).transpose()?;

        let (mode, discover_interval) = (ModeName::from(asked.mode), asked.discover_interval);
        let probe_options = translate::probe_options(asked, state_dir);
        let started = spawn_blocking(move || Probe::start(probe_options)).await.context("probe not started")?;
        let (probe, restored) = started.with_context(|| match rustix::process::geteuid().is_root() {
            true => "the probe cannot be started",
            false => "the probe cannot be started: it needs root; to read a recorded file, `replay` does not",
        })?;
        tracing::info!(
            probe.revision = restored.revision,
            probe.adopted = restored.adopted,
            store.segment = committed.segment,
            store.leftovers = committed.leftovers,
            store.recovered = committed.recovered_rows,
            "probe and store are open"
        );
        let fresh = !restored.adopted;
        let session = Session { node: node.clone(), boot_id: boot_id.clone(), mode, fresh, time_ns: clock::now_ns() };
        let explain = Explain { node, boot_id, kept: kept.clone(), restored };

        let (health, metrics, stop) = (Arc::new(Health::default()), Metrics::default(), Stop::default());
        health.set(Part::Start, vec!["the first snapshot is not in force yet".to_owned()]);
        let window = u64::try_from(storage.repeat_window.as_nanos()).unwrap_or(u64::MAX);
        let pipeline = Pipeline::new(window, checkpoint);
        let (pipelined, known) = (store.clone(), explain.clone());
        let parts = (Some(kept.clone()), health.clone(), metrics.clone(), stop.clone());
        let writer = spawn_blocking(move || {
            let (kept, health, metrics, stop) = parts;
            let mut writer = Writer::new(pipeline, pipelined, kept, health, metrics, stop);
            writer.replay(replay, |boot| known.boot(boot)).map(|()| writer)
        });
        let writer = writer.await.context("write-ahead log not taken again")??;
        let setting = |(name, value)| {
            let (time, node) = (clock::at(session.time_ns), session.node.clone());
            Row::Setting(Box::new(SettingRow { time, node, name, value }))
        };
        append_rows(&store, &metrics, settings.into_iter().map(setting).collect());
        Ok(Self {
            listen,
            manifests,
            generations,
            discover_interval,
            kept,
            changes,
            store,
            wal,
            recorder,
            probe,
            explain,
            session,
            writer,
            health,
            metrics,
            stop,
            token,
            goldmane_token,
        })
    }

    /// Starts the threads. They end one after the other, as the channels between them close: sources and control when
    /// told to stop, then the drain, then the writer, whose last word the drain waits for.
    fn start(
        self,
        crew: &mut Crew,
        sightings: mpsc::Receiver<Sighting>,
        deliveries: mpsc::Receiver<Delivery>,
        started: oneshot::Sender<()>,
    ) -> anyhow::Result<()> {
        let Self { manifests, generations, mut probe, explain, session, writer, stop, .. } = self;
        let rings = probe.rings()?;
        let recorder = SharedRecorder::new(self.recorder);
        let (state_sender, states) = mpsc::channel();
        let (message_sender, messages) = mpsc::channel();
        let (input_sender, inputs) = mpsc::sync_channel(QUEUE);
        let (release_sender, released) = mpsc::channel();
        let known = explain.boot(&session.boot_id);
        for input in [Input::Session(session.clone())].into_iter().chain(known) {
            message_sender.send(Message::Input(Box::new(input))).map_err(|_| anyhow!("nobody takes inputs"))?;
        }
        let mut sources = Cluster::new(generations);
        let layer = sources.add_source(manifests.name());
        let (update_sender, updates) = mpsc::sync_channel(cluster::UPDATES);
        let (runtime, source_stop) = (Handle::current(), stop.clone());
        crew.start("manifests", move || {
            cluster::follow(manifests, layer, &update_sender, &runtime, &source_stop).map_err(Into::into)
        })?;
        crew.start("cluster", move || {
            cluster::merge(sources, &updates, &state_sender);
            Ok(())
        })?;
        let control = Control {
            probe,
            session,
            snapshots: self.kept,
            changes: self.changes,
            states,
            sightings,
            messages: message_sender,
            facts: FactLog { store: self.store, recorder: recorder.clone(), metrics: self.metrics.clone() },
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            bindings: explain.restored.bindings,
            started,
        };
        crew.start("control", move || {
            control.run(&stop);
            Ok(())
        })?;
        let channels = Channels { messages, deliveries, pipeline: input_sender, released };
        let drain = Drain::new(rings.into(), self.wal, channels, recorder, self.health, self.metrics);
        crew.start("drain", move || drain.run().map_err(Into::into))?;
        crew.start("write", move || {
            // Dropped when the writer ends: the drain waits for its last word.
            let release_sender = release_sender;
            writer.run(&inputs, &release_sender).map(drop).map_err(Into::into)
        })
    }
}

/// Waits until there is a reason to end: none for a signal.
async fn wait(
    ended: &mut UnboundedReceiver<&'static str>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    started: oneshot::Receiver<()>,
    ready_file: Option<&Path>,
    addresses: Addresses,
) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut started = std::pin::pin!(started);
    let mut starting = true;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            name = ended.recv() => bail!("{} ended before its time", name.unwrap_or("everything")),
            Some(task) = tasks.join_next() => {
                task.context("a task panicked")??;
                bail!("a port or the watch over interfaces ended before its time");
            }
            told = &mut started, if starting => {
                starting = false;
                if told.is_ok() && let Some(path) = ready_file {
                    let Addresses { admin, rows, goldmane } = addresses;
                    let mut json = serde_json::json!({ "admin": admin.to_string(), "rows": rows.to_string() });
                    if let Some(goldmane) = goldmane {
                        json["goldmane"] = goldmane.to_string().into();
                    }
                    state::save_for_others(path, &json)?;
                }
            }
        }
    }
    tracing::info!("asked to stop");
    Ok(())
}

async fn answer(listener: TcpListener, router: Router, closing: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(closing.cancelled_owned()).await.context("port failed")
}

/// Hands on what is sighted, for as long as somebody wants to know.
async fn watch(
    interval: Duration,
    sightings: mpsc::Sender<Sighting>,
    closing: CancellationToken,
) -> anyhow::Result<()> {
    let mut watch = Watch::start(interval).await.context("interfaces cannot be watched")?;
    loop {
        let sighting = tokio::select! {
            () = closing.cancelled() => return Ok(()),
            sighting = watch.next() => sighting,
        };
        match sighting {
            Ok(sighting) => {
                if sightings.send(sighting).is_err() {
                    // The control thread has ended; whoever joins it says why.
                    closing.cancelled().await;
                    return Ok(());
                }
            }
            Err(error) => {
                tracing::warn!(error = %crate::cause::chain(&error), "interfaces not looked at");
                tokio::time::sleep(interval).await;
            }
        }
    }
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{address} cannot be listened on: choose another with {option}, or 0 for any free port")
    })
}
