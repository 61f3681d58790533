//! Receivers: the data of one source → [`crate::observation::Observation`]s. A file per source; each knows the format of
//! its source and nothing of policies, pods or files. All of them are listed here: their inputs, the options of those
//! that listen, and how these start.

pub mod goldmane;
pub mod inlet;
pub mod ring;

use clap::Args;
use netverdict_flowlog::row::Receiver;
use netverdict_service::http_server::HttpLimits;

use self::{
    goldmane::listener::{self, GoldmaneOptions},
    inlet::BoundReceiver,
};
use crate::{batch::ForeignBatch, observation::ForeignRecord};

/// Reads a delivery of another system, by the receiver that it was sent to.
pub fn foreign(batch: &ForeignBatch) -> Box<dyn Iterator<Item = ForeignRecord> + '_> {
    match batch.receiver {
        Receiver::Goldmane => Box::new(goldmane::records(batch)),
        // No batch of another system says so: the decoder of the log refuses it.
        Receiver::Ring => Box::new(std::iter::empty()),
    }
}

/// Logs of other systems that it takes.
#[derive(Clone, Debug, Args)]
pub struct ReceiverOptions {
    #[command(flatten)]
    pub goldmane: GoldmaneOptions,
}

impl ReceiverOptions {
    /// As name and value, for the log and the table `settings`.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { goldmane } = self;
        goldmane.settings().into()
    }
}

/// Binds the port of each receiver that is asked for.
///
/// # Errors
/// An address is taken, or a secret cannot be read.
pub async fn bind(options: &ReceiverOptions, limits: &HttpLimits) -> anyhow::Result<Vec<BoundReceiver>> {
    let ReceiverOptions { goldmane } = options;
    let bound = [listener::bind(goldmane, limits).await?];
    Ok(bound.into_iter().flatten().collect())
}
