//! Receivers: what one source wrote → [`crate::observation::Observation`]s. A file per source; each knows the format of
//! its source and nothing of policies, pods or files.

pub mod goldmane;
pub mod ring;

use netverdict_flowlog::row::Receiver;

use crate::{batch::ForeignBatch, observation::ForeignRecord};

/// Reads what another system sent, by the receiver that it was sent to.
pub fn foreign(batch: &ForeignBatch) -> Box<dyn Iterator<Item = ForeignRecord> + '_> {
    match batch.receiver {
        Receiver::Goldmane => Box::new(goldmane::records(batch)),
        // No batch of another system says so: the decoder of the log refuses it.
        Receiver::Ring => Box::new(std::iter::empty()),
    }
}
