//! A recorded file through the same pipeline into the same files, without kernel or cluster.

use std::{path::Path, sync::Arc};

use netverdict_service::{error_chain::chain, queue::QueueSender, shutdown::Shutdown};
use thiserror::Error;

use crate::{
    health::Health,
    input::Input,
    metrics::Metrics,
    pipeline::{Checkpoint, Pipeline},
    receive::ring,
    recording::{Recording, RecordingError},
    store::{Store, StoreError, StoreOptions},
    wal::WalPosition,
    write::{WriteError, Writer},
};

/// Stands for the file where the log's segments stand.
const FILE: u64 = u64::MAX;

#[derive(Debug, Error)]
pub enum ReplayError {
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error("data or state directory cannot be used")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(
        "state directory {0} holds the record of a collector or of another replay: give this one a directory of its own with --state-dir"
    )]
    Used(String),
}

/// Result of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub inputs: u64,
    pub events: u64,
    /// Events and facts in it could not all be read: the file was cut off there.
    pub whole: bool,
}

/// Takes a recorded file. `options`: given the node and boot of the file, where the record goes.
///
/// # Errors
/// The file is none, or the record cannot be written. A file that was cut off is written as far as it goes.
pub fn replay(
    file: &Path,
    window_ns: u64,
    options: impl FnOnce(&str, &str) -> StoreOptions,
) -> Result<Replayed, ReplayError> {
    let recording = Recording::open(file)?;
    let options = options(&recording.header().node, &recording.header().boot_id);
    let state_dir = options.state_dir.display().to_string();
    let (store, committed) = Store::open(options)?;
    let done = committed.wal.map_or(0, |position| position.offset);
    let checkpoint = match &committed.checkpoint {
        Some(text) => serde_json::from_str::<Checkpoint>(text).map_err(WriteError::Checkpoint)?,
        None => Checkpoint::default(),
    };
    let is_ours = checkpoint.session.as_ref().is_none_or(|session| {
        let header = recording.header();
        *session.node == *header.node && *session.boot_id == *header.boot_id
    });
    if !is_ours || committed.wal.is_some_and(|position| position.segment != FILE) {
        return Err(ReplayError::Used(state_dir));
    }
    let pipeline = Pipeline::new(window_ns, checkpoint);
    let metrics = Metrics::default();
    let mut writer =
        Writer::new(pipeline, Arc::new(store), None, Arc::new(Health::default()), metrics, Shutdown::default());
    let (mut inputs, mut events, mut whole) = (0_u64, 0_u64, true);
    for input in recording {
        let input = match input {
            Ok(input) => input,
            Err(error) => {
                tracing::error!(error = %chain(&error), inputs, "recorded file ends before its end");
                whole = false;
                break;
            }
        };
        inputs += 1;
        if let Input::Ring(batch) = &input {
            events += ring::observations(batch).count() as u64;
        }
        // The file is a log itself: an interrupted replay goes on behind its last commit.
        if inputs > done || explains(&input) {
            writer.take(Some(WalPosition { segment: FILE, offset: inputs }), input);
        }
        writer.hand_over_if_many()?;
    }
    writer.finish(&QueueSender::disconnected())?;
    Ok(Replayed { inputs, events, whole })
}

/// Whether an input only explains others: after an interruption the pipeline needs it again.
fn explains(input: &Input) -> bool {
    match input {
        Input::Meanings(_)
        | Input::Snapshot(_)
        | Input::Published { .. }
        | Input::Abandoned { .. }
        | Input::Bound { .. }
        | Input::GapCause(_) => true,
        Input::Session(_) | Input::Facts(_) | Input::Ring(_) | Input::Foreign(_) | Input::Counted(_) => false,
    }
}

#[cfg(test)]
mod tests;
