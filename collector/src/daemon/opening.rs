//! Everything that the collector opens before its threads start: state, store, log and probe, in the order in which each
//! needs the one before.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use netverdict_cluster::{Generations, kubernetes::NodeEvents};
use netverdict_flowlog::row::{ModeName, Row, SettingRow};
use netverdict_probe::{Probe, Restored};
use netverdict_service::{
    secret::{SecretFile, SharedSecret},
    shutdown::Shutdown,
};
use tokio::task::spawn_blocking;

use super::{
    explain::Explain,
    sources::{self, Sources},
    translate,
};
use crate::{
    clock,
    cluster::changes::Changes,
    health::{Health, Part},
    input::Session,
    metrics::Metrics,
    options::{self, ProbeArguments, RunOptions, StorageOptions},
    pipeline::{Checkpoint, Pipeline},
    recording::Recorder,
    serve::Served,
    snapshots::Snapshots,
    state,
    store::{Committed, Store},
    wal::{Replay, Wal},
    write::{Writer, append_rows},
};

const WAL_FOLDER: &str = "wal";
const TOKEN_FILE: &str = "collector.token";

/// The opened parts. The writer has the records of the log already.
pub(super) struct Opened {
    pub(super) sources: Sources,
    /// Where there is a cluster to write them to.
    pub(super) node_events: Option<NodeEvents>,
    pub(super) generations: Generations,
    pub(super) snapshots: Snapshots,
    pub(super) changes: Changes,
    pub(super) wal: Wal,
    pub(super) recorder: Option<Recorder>,
    pub(super) probe: Probe,
    pub(super) explain: Explain,
    pub(super) writer: Writer,
    pub(super) served: Served,
}

/// Opens everything.
pub(super) async fn open(options: RunOptions, shutdown: Shutdown) -> anyhow::Result<Opened> {
    let node = match &options.identity.node {
        Some(node) => node.clone(),
        None => translate::host_name().context("the host has no name: give one with --node")?,
    };
    let settings = options::effective(&options, &node);
    for (name, value) in &settings {
        tracing::info!(setting.name = name, setting.value = value, "setting");
    }
    let RunOptions { identity, source, probe: asked, storage, listen, http: _, receivers: _, telemetry: _, record } =
        options;
    let state_dir = &storage.state_dir;
    state::make_folder(state_dir)?;
    let token_file = listen.token_file.unwrap_or_else(|| state_dir.join(TOKEN_FILE));
    let token = SharedSecret::load_or_create(SecretFile::new(token_file, "--token-file"))?;
    let node_events = sources::node_events(&source, &node).await?;
    let sources = Sources::open(source, state_dir).await?;
    let generations = Generations::open(state_dir)?;
    let boot_id: Arc<str> = clock::boot_id().context("the kernel has no boot id")?.into();
    let node: Arc<str> = node.into();
    let stored = Stored::open(&storage, &identity.cluster, &node, &boot_id)?;
    let header = translate::header(&identity.cluster, &node, &boot_id);
    let recorder = record.as_deref().map(|path| Recorder::create(path, &header)).transpose()?;

    let mode = ModeName::from(asked.mode);
    let (probe, restored) = start_probe(asked, state_dir).await?;
    let Stored { store, committed, checkpoint, snapshots, changes, wal, replay } = stored;
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
    let explain = Explain { node, boot_id, kept: snapshots.clone(), restored };

    let (health, metrics) = (Arc::new(Health::default()), Metrics::new(sources.watch_status()));
    health.set(Part::Start, vec!["the first snapshot is not in force yet".to_owned()]);
    let window = u64::try_from(storage.repeat_window.as_nanos()).unwrap_or(u64::MAX);
    let pipeline = Pipeline::new(window, checkpoint);
    let served = Served { store, session, health, metrics, token };
    let writer = Writer::new(
        pipeline,
        served.store.clone(),
        Some(snapshots.clone()),
        served.health.clone(),
        served.metrics.clone(),
        shutdown,
    );
    let writer = replay_log(writer, replay, explain.clone()).await?;
    record_settings(&served, settings);
    Ok(Opened { sources, node_events, generations, snapshots, changes, wal, recorder, probe, explain, writer, served })
}

/// State that is on disk.
struct Stored {
    store: Arc<Store>,
    committed: Committed,
    checkpoint: Checkpoint,
    snapshots: Snapshots,
    changes: Changes,
    wal: Wal,
    replay: Replay,
}

impl Stored {
    fn open(storage: &StorageOptions, cluster: &str, node: &Arc<str>, boot_id: &Arc<str>) -> anyhow::Result<Self> {
        let state_dir = &storage.state_dir;
        let nothing_written = !storage.data_dir.join("policies").is_dir();
        let (store, committed) = Store::open(translate::store_options(storage, cluster, node, boot_id))?;
        // Logs are opened under the store's lock: opening one cuts off its torn end.
        let snapshots = Snapshots::open(state_dir)?;
        // Rows that were appended and are neither in a file nor in the journal have to be appended again.
        let anew = nothing_written && committed.recovered_rows == 0;
        let changes = Changes::open(state_dir, node.clone(), boot_id.clone(), anew)?;
        let checkpoint = match &committed.checkpoint {
            Some(text) => serde_json::from_str::<Checkpoint>(text)
                .context("the checkpoint in the commit record cannot be read: was it written by a newer version?")?,
            None => Checkpoint::default(),
        };
        let fsync = translate::fsync(storage.fsync);
        let (wal, replay) = Wal::open(&state_dir.join(WAL_FOLDER), fsync, committed.wal)?;
        Ok(Self { store: Arc::new(store), committed, checkpoint, snapshots, changes, wal, replay })
    }
}

async fn start_probe(asked: ProbeArguments, state_dir: &Path) -> anyhow::Result<(Probe, Restored)> {
    let options = translate::probe_options(asked, state_dir);
    let started = spawn_blocking(move || Probe::start(options)).await.context("probe not started")?;
    started.with_context(|| match rustix::process::geteuid().is_root() {
        true => "the probe cannot be started",
        false => "the probe cannot be started: it needs root; to read a recorded file, `replay` does not",
    })
}

/// Gives the writer the records of the log beyond the last commit.
async fn replay_log(mut writer: Writer, replay: Replay, explain: Explain) -> anyhow::Result<Writer> {
    let replayed = spawn_blocking(move || writer.replay(replay, |boot| explain.boot(boot)).map(|()| writer));
    Ok(replayed.await.context("write-ahead log not replayed")??)
}

fn record_settings(served: &Served, settings: Vec<(String, String)>) {
    let (time, node) = (clock::at(served.session.time_ns), &served.session.node);
    let row = |(name, value)| Row::Setting(Box::new(SettingRow { time, node: node.clone(), name, value }));
    append_rows(&served.store, &served.metrics, settings.into_iter().map(row).collect());
}
