//! The cluster as the collector sees it: sources are followed, each in a thread of its own, and their reports are made
//! into one state after another.
//!
//! A source never blocks on one bad object: an unreadable object is reported, and its last good state counts on.

pub mod changes;

use std::{pin::pin, time::Duration};

use netverdict_cluster::{Cluster, Layer, Source, Update};
pub use netverdict_cluster::{ClusterState, PolicyObjects};
use netverdict_service::{
    queue::{QueueReceiver, QueueSender},
    shutdown::Shutdown,
};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::clock;

/// Updates on their way from the sources, each a page of a list at most: a source waits when the queue is full.
pub const UPDATES: usize = 4;
/// Interval between checks of the stop switch.
const STEP: Duration = Duration::from_millis(50);

#[derive(Debug, Error)]
pub enum FollowError<E: std::error::Error + 'static> {
    #[error("cluster source failed")]
    Failed(#[source] E),
    #[error("cluster source ended: expected one that is followed for ever")]
    Ended,
}

/// Forwards the reports of a source, until a stop is requested or the receiver has ended.
///
/// # Errors
/// The source ended by itself.
pub fn follow<S: Source>(
    mut source: S,
    layer: Layer,
    updates: &QueueSender<(Layer, Update)>,
    runtime: &Handle,
    stop: &Shutdown,
) -> Result<(), FollowError<S::Error>> {
    runtime.block_on(async {
        while !stop.is_requested() {
            let mut next = pin!(source.next());
            let update = loop {
                match tokio::time::timeout(STEP, &mut next).await {
                    Ok(update) => break update.map_err(FollowError::Failed)?,
                    Err(_) if stop.is_requested() => return Ok(()),
                    Err(_) => {}
                }
            };
            if updates.send((layer, update.ok_or(FollowError::Ended)?)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    })
}

/// Applies the updates of the sources, and sends the resulting state. Waiting updates are applied first:
/// only the newest state matters. Ends with the sources.
///
/// `waiting`: gets a description of the missing sources as long as there is no state yet.
pub fn merge(
    mut cluster: Cluster,
    updates: &QueueReceiver<(Layer, Update)>,
    states: &QueueSender<ClusterState>,
    waiting: impl Fn(Vec<String>),
) {
    waiting(cluster.waiting());
    while let Ok((layer, update)) = updates.recv() {
        cluster.apply(layer, update);
        for (layer, update) in updates.try_iter().take(UPDATES) {
            cluster.apply(layer, update);
        }
        let Some(state) = cluster.state(clock::now_ns()) else {
            waiting(cluster.waiting());
            continue;
        };
        if states.send(state).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
