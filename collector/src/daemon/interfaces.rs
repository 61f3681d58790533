//! The task that watches the node's interfaces.

use std::time::Duration;

use anyhow::Context as _;
use netverdict_probe::{Sighting, Watch};
use netverdict_service::{error_chain::chain, queue::QueueSender, shutdown::Shutdown};

/// Sends interfaces that come and go to the control thread, until the end is requested.
pub(super) async fn watch(
    interval: Duration,
    sightings: QueueSender<Sighting>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut watch = Watch::start(interval).await.context("interfaces cannot be watched")?;
    loop {
        let sighting = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            sighting = watch.next() => sighting,
        };
        match sighting {
            Ok(sighting) => {
                let sent = tokio::select! {
                    () = shutdown.requested() => return Ok(()),
                    sent = sightings.send_async(sighting) => sent,
                };
                if sent.is_err() {
                    // The control thread has ended; its join tells the reason.
                    shutdown.requested().await;
                    return Ok(());
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "interfaces not scanned");
                tokio::time::sleep(interval).await;
            }
        }
    }
}
