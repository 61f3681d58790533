//! Kept states as records of a log, and back.
//!
//! A state is written as a delta to another one, or to nothing. That it came into force, or never will, is a record of
//! its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    meaning::{Difference, SnapshotState},
    wal::{Frame, WalError, WalPosition},
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    State {
        number: u64,
        /// The state that it is a difference from; `None` where it is one from nothing. Its number stands for its content:
        /// none is given out twice.
        from: Option<u64>,
        boot_id: Arc<str>,
        seen_ns: i64,
        difference: Box<Difference>,
    },
    Published {
        number: u64,
        revision: u64,
    },
    Abandoned {
        number: u64,
    },
}

/// A full state and the deltas after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    pub(super) last_number: u64,
    pub(super) end: WalPosition,
}

/// Contents of a log.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By number, with the revision where it is noted.
    pub(super) states: BTreeMap<u64, SnapshotState>,
    /// States that never came into force.
    pub(super) abandoned: BTreeSet<u64>,
    pub(super) epochs: Vec<Epoch>,
    /// Highest number that a record names.
    pub(super) highest: u64,
    /// Bytes that cannot be read.
    pub(super) damaged: u64,
    /// States that cannot be restored, because the state that they are deltas to cannot be read.
    pub(super) lost: u64,
}

impl Contents {
    /// `states`: those from before the log.
    pub(super) fn read(
        frames: impl Iterator<Item = Result<Frame, WalError>>,
        states: BTreeMap<u64, SnapshotState>,
    ) -> Result<Self, WalError> {
        let mut contents = Self { states, ..Self::default() };
        for frame in frames {
            let position = match frame? {
                Frame::Payload(position, payload) => {
                    match serde_json::from_slice(&payload) {
                        Ok(record) => contents.take(record, position),
                        Err(_) => contents.damaged += payload.len() as u64,
                    }
                    position
                }
                Frame::Damaged(position, bytes) => {
                    contents.damaged += bytes;
                    position
                }
            };
            match contents.epochs.last_mut() {
                Some(epoch) => *epoch = Epoch { last_number: contents.highest, end: position },
                None => contents.epochs.push(Epoch { last_number: contents.highest, end: position }),
            }
        }
        Ok(contents)
    }

    fn take(&mut self, record: Record, end: WalPosition) {
        match record {
            Record::State { number, from, boot_id, seen_ns, difference } => {
                self.highest = self.highest.max(number);
                let state = match from {
                    None => {
                        self.epochs.push(Epoch { last_number: number, end });
                        let whole = SnapshotState::nothing().apply(number, &difference);
                        let before = self.states.last_key_value().map(|(_, before)| before);
                        Some(before.map_or_else(|| whole.clone(), |before| whole.sharing_with(before)))
                    }
                    Some(from) => self.states.get(&from).map(|from| from.apply(number, &difference)),
                };
                match state {
                    Some(mut state) => {
                        (state.boot_id, state.seen_ns) = (boot_id, seen_ns);
                        self.states.insert(number, state);
                    }
                    None => self.lost += 1,
                }
            }
            Record::Published { number, revision } => {
                self.highest = self.highest.max(number);
                if let Some(state) = self.states.get_mut(&number) {
                    state.revision = revision;
                }
            }
            // It is kept: the next one may be a delta to it.
            Record::Abandoned { number } => {
                self.highest = self.highest.max(number);
                self.abandoned.insert(number);
            }
        }
    }
}
