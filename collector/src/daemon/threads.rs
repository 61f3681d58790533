//! The collector's threads and the queues between them.
//!
//! They end in the direction of the data, each when the queue before it is closed: cluster and control when the end is
//! requested, then the drain, then the writer, whose last release of the log the drain waits for.

use anyhow::anyhow;
use netverdict_cluster::Cluster;
use netverdict_service::{
    queue::{QueueReceiver, QueueSender},
    shutdown::Shutdown,
    thread_group::ThreadGroup,
};
use tokio::sync::oneshot;

use super::{interfaces::Interfaces, opening::Opened};
use crate::{
    cluster,
    control::{Control, Parts},
    drain::{Channels, Delivery, Drain, Message},
    health::Part,
    input::Input,
    recording::SharedRecorder,
    serve::Served,
    write::FactLog,
};

/// States of the cluster that wait for the control thread, which takes only the newest.
const STATES: usize = 4;
/// Messages of the control thread to the drain. They pile up only while no row can be written and memory is full; a
/// change of policy is a few. With all of them waiting, changes come into force once there is room again.
const MESSAGES: usize = 65_536;
/// Inputs between the log and the pipeline: batches of a quarter of a MiB at most.
const INPUTS: usize = 64;
/// Positions through which the log may be released. The newest covers all before it.
const RELEASES: usize = 64;

/// Starts all threads. `started` is notified once the first snapshot is in force.
pub(super) fn start(
    opened: Opened,
    threads: &mut ThreadGroup,
    interfaces: Interfaces,
    deliveries: QueueReceiver<Delivery>,
    started: oneshot::Sender<()>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let Opened {
        sources,
        node_events: _,
        generations,
        snapshots,
        changes,
        wal,
        recorder,
        mut probe,
        explain,
        writer,
        served,
    } = opened;
    let Served { store, session, health, metrics, token: _ } = served;
    let rings = probe.rings()?;
    let recorder = SharedRecorder::new(recorder);
    // Before the rings' events, the pipeline gets the session and the meanings of ids.
    let known = explain.boot(&session.boot_id);
    let first: Vec<Input> = [Input::Session(session.clone())].into_iter().chain(known).collect();
    let (update_sender, updates) = metrics.queues.bounded("cluster_updates", cluster::UPDATES);
    let (state_sender, states) = metrics.queues.bounded("cluster_states", STATES);
    let (message_sender, messages) = metrics.queues.bounded("drain_messages", MESSAGES.max(2 * first.len()));
    let (input_sender, inputs) = metrics.queues.bounded("pipeline_inputs", INPUTS);
    let (release_sender, released) = metrics.queues.bounded("log_releases", RELEASES);
    send(&message_sender, first)?;

    let mut cluster = Cluster::new(generations);
    sources.follow(&mut cluster, &update_sender, threads, shutdown)?;
    drop(update_sender);
    let of_source = health.clone();
    threads.spawn("cluster", move || {
        cluster::merge(cluster, &updates, &state_sender, |waiting| _ = of_source.set(Part::Source, waiting));
        Ok(())
    })?;
    let Interfaces { own_addresses, sightings, announced, claims, unannounced } = interfaces;
    let parts = Parts {
        probe,
        session,
        snapshots,
        changes,
        messages: message_sender,
        facts: FactLog { store, recorder: recorder.clone(), metrics: metrics.clone() },
        health: health.clone(),
        metrics: metrics.clone(),
        unannounced,
    };
    let bindings = explain.restored.bindings;
    let control = Control { parts, states, sightings, announced, claims, bindings, own_addresses, started };
    let stop = shutdown.clone();
    threads.spawn("control", move || {
        control.run(&stop);
        Ok(())
    })?;
    let channels = Channels { messages, deliveries, pipeline: input_sender, released };
    let drain = Drain::new(rings.into(), wal, channels, recorder, health, metrics);
    threads.spawn("drain", move || drain.run().map_err(Into::into))?;
    threads.spawn("write", move || {
        // Dropped when the writer ends: the drain waits for its last release.
        let release_sender = release_sender;
        writer.run(&inputs, &release_sender).map(drop).map_err(Into::into)
    })
}

fn send(messages: &QueueSender<Message>, inputs: Vec<Input>) -> anyhow::Result<()> {
    for input in inputs {
        messages.send(Message::Input(Box::new(input))).map_err(|_| anyhow!("the drain takes no inputs"))?;
    }
    Ok(())
}
