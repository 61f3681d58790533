//! The task that watches the node's interfaces.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use netverdict_probe::{ClaimFolder, Sighting, Watch};
use netverdict_service::{
    error_chain::chain,
    queue::{QueueReceiver, QueueSender},
    shutdown::Shutdown,
};

use crate::{control::Announced, options::Unannounced};

/// The node's interfaces, for the control thread.
pub(super) struct Interfaces {
    /// The node's own addresses at the start.
    pub(super) own_addresses: BTreeSet<IpAddr>,
    pub(super) sightings: QueueReceiver<Sighting>,
    /// From the CNI plugin.
    pub(super) announced: QueueReceiver<Announced>,
    /// Claims that the plugin has written.
    pub(super) claims: ClaimFolder,
    /// How an interface without a claim and without processes is treated: as a pod's, or not.
    pub(super) unannounced: Unannounced,
}

/// Sends interfaces and addresses that come and go to the control thread, until the end is requested.
pub(super) async fn watch(
    mut watch: Watch,
    interval: Duration,
    sightings: QueueSender<Sighting>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
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
                    // The control thread has ended; its join reports the reason.
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
