//! Receivers: what one source wrote → [`crate::observation::Observation`]s. A file per source; each knows the format of
//! its source and nothing of policies, pods or files.

pub mod goldmane;
pub mod ring;

use tokio::sync::oneshot;

use crate::{batch::ForeignBatch, wal::WalError};

/// What another system sent, on its way to the write-ahead log.
#[derive(Debug)]
pub struct Delivery {
    /// In order; each becomes one record of the log.
    pub batches: Vec<ForeignBatch>,
    /// Answered once all of it is in the log, durably: only then may the sender be told so.
    pub logged: oneshot::Sender<Result<(), WalError>>,
}
