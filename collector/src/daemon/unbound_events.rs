//! Endpoints that are not judged by policy, as events of the node: `kubectl describe node` shows them.

use std::{sync::Arc, time::Duration};

use netverdict_cluster::kubernetes::{ClusterError, NodeEvents};
use netverdict_service::shutdown::Shutdown;
use tokio::time::{Instant, sleep};

use crate::health::{Health, Part};

pub(super) const COMPONENT: &str = "netverdict-collector";
const REASON: &str = "EndpointsNotJudged";
/// Interval between checks.
const EVERY: Duration = Duration::from_secs(5);
/// An API server forgets events after an hour: an event whose reason lasts is written again.
const AGAIN: Duration = Duration::from_secs(30 * 60);

/// Writes an event when the problems change, until the end.
pub(super) async fn follow(events: NodeEvents, health: Arc<Health>, end: Shutdown) -> anyhow::Result<()> {
    let mut told: Option<(Vec<String>, Instant)> = None;
    loop {
        tokio::select! {
            () = end.requested() => return Ok(()),
            () = sleep(EVERY) => {}
        }
        let troubles = health.of(Part::Unbound);
        if troubles.is_empty() {
            told = None;
            continue;
        }
        if told.as_ref().is_some_and(|(before, when)| *before == troubles && when.elapsed() < AGAIN) {
            continue;
        }
        match events.warn(REASON, &troubles.join("; ")).await {
            Ok(()) => {}
            // Health, metrics and the record show the problems in any case.
            Err(error @ ClusterError::Forbidden { .. }) => tracing::debug!(%error, "no event written"),
            Err(error) => {
                tracing::debug!(%error, "no event written; tried again");
                continue;
            }
        }
        told = Some((troubles, Instant::now()));
    }
}
