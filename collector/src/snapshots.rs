//! Snapshots on disk, for as long as an event that one of them judged may still have to be read: in a ring, or in the
//! write-ahead log after a crash.
//!
//! A log holds one full state and then deltas, so that the cost of a change follows its size. A state is durable
//! before it is published, and its files are removed when nothing in them is needed any more.

mod former;
mod log;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use netverdict_policy::{Compiler, Snapshot, tables::IdFloor};
use thiserror::Error;

use self::{
    former::Former,
    log::{Contents, Epoch, Record},
};
use crate::{
    meaning::{Difference, Meanings, SnapshotState},
    state::{self, StateError},
    wal::{Chain, WalError, WalPosition},
};

const FOLDER: &str = "snapshots";
/// Version of the records. A layout that an earlier release would misread gets another number, so that it is not read.
const LAYOUT: u8 = 1;
const NUMBER_FILE: &str = "snapshot-number.json";
/// Numbers that are reserved at once: at most so many are skipped after the log was damaged.
const RESERVED: u64 = 100;

#[derive(Debug, Error)]
pub enum SnapshotsError {
    #[error("snapshot cannot be kept in the state directory")]
    Log(#[from] WalError),
    #[error(transparent)]
    File(#[from] StateError),
    #[error("snapshot cannot be written as JSON")]
    Content(#[from] serde_json::Error),
}

/// The kept snapshots; clones are of the same.
#[derive(Clone, Debug)]
pub struct Snapshots {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    chain: Chain,
    number_path: PathBuf,
    /// The last number that was given out, and the highest that is reserved.
    used: u64,
    reserved: u64,
    /// The state that was kept last; the next one is kept as a difference from it.
    newest: SnapshotState,
    /// States of earlier runs that are still needed.
    found: Contents,
    former: Former,
    epochs: VecDeque<Epoch>,
}

impl Snapshots {
    /// Opens the log and reads it. Unreadable parts are logged and left out: their events lose their labels.
    ///
    /// # Errors
    /// The state directory cannot be used.
    pub fn open(state_dir: &Path) -> Result<Self, SnapshotsError> {
        let folder = state_dir.join(FOLDER);
        let (chain, links, recovered) = Chain::open(&folder, LAYOUT)?;
        let (former, states) = Former::read(&folder)?;
        let mut found = Contents::read(links, states)?;
        if found.damaged > 0 || found.lost > 0 {
            tracing::error!(
                damaged.bytes = found.damaged,
                snapshots.lost = found.lost,
                "kept snapshots cannot all be read; events that the lost ones judged lose their labels"
            );
        }
        let number_path = state_dir.join(NUMBER_FILE);
        let reserved = state::load::<u64>(&number_path)?.unwrap_or(0);
        let whole = found.damaged == 0 && found.lost == 0 && recovered.torn_bytes == 0 && found.highest > 0;
        let newest = found.states.last_key_value().map_or_else(SnapshotState::nothing, |(_, state)| state.clone());
        // A log with holes may have had higher numbers.
        let used = if whole { found.highest } else { reserved.max(found.highest).max(newest.number) };
        let epochs = std::mem::take(&mut found.epochs).into();
        let kept = Kept { chain, number_path, used, reserved, newest, found, former, epochs };
        Ok(Self { kept: Arc::new(Mutex::new(kept)) })
    }

    /// Gives a snapshot that is about to be published a number that was never used, over restarts and boots, and keeps
    /// it with its compiled addresses. `anew`: it is the compiler's first.
    ///
    /// # Errors
    /// It cannot be written: after a crash its events would lose their labels.
    pub fn keep(
        &self,
        boot_id: &Arc<str>,
        seen_ns: i64,
        snapshot: &Arc<Snapshot>,
        compiler: &Compiler,
        anew: bool,
    ) -> Result<Arc<SnapshotState>, SnapshotsError> {
        let mut kept = self.lock();
        let number = kept.next_number()?;
        let (mut state, difference) = kept.newest.next(number, snapshot, compiler, anew);
        (state.boot_id, state.seen_ns) = (boot_id.clone(), seen_ns);
        kept.write(&state, difference)?;
        kept.newest = state.clone();
        Ok(Arc::new(state))
    }

    /// Notes that a state came into force.
    ///
    /// # Errors
    /// It cannot be noted. After a restart of the collector the probe knows the revision; after a reboot it is lost.
    pub fn published(&self, number: u64, revision: u64) -> Result<(), SnapshotsError> {
        self.lock().note(&Record::Published { number, revision })
    }

    /// Notes that a state never will come into force.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn abandoned(&self, number: u64) -> Result<(), SnapshotsError> {
        self.lock().note(&Record::Abandoned { number })
    }

    /// Drops the states up to this one: all events that they judged have been read.
    ///
    /// # Errors
    /// A file cannot be removed; it is tried again the next time.
    pub fn forget_through(&self, number: u64) -> Result<(), SnapshotsError> {
        let mut kept = self.lock();
        kept.found.states = kept.found.states.split_off(&number.saturating_add(1));
        let mut through: Option<WalPosition> = None;
        // The last one is still written to.
        while kept.epochs.len() > 1 && kept.epochs.front().is_some_and(|epoch| epoch.last_number <= number) {
            through = kept.epochs.pop_front().map(|epoch| epoch.end);
        }
        through.map_or(Ok(()), |through| kept.chain.release(through))?;
        Ok(kept.former.forget_through(number)?)
    }

    /// The states of a boot that earlier runs kept and that came into force, the oldest first. `revisions`: (revision,
    /// number) as the probe knows them of that boot, for states whose revision was not noted.
    pub fn found(&self, boot_id: &str, revisions: &[(u64, u64)]) -> Vec<Arc<SnapshotState>> {
        let Contents { states, abandoned, .. } = &self.lock().found;
        let of_boot = states.values().filter(|state| *state.boot_id == *boot_id && !abandoned.contains(&state.number));
        let in_force = of_boot.filter_map(|state| {
            let known = || revisions.iter().find(|(_, number)| *number == state.number).map(|(revision, _)| *revision);
            // A state that never came into force has judged nothing.
            let mut state = state.clone();
            state.revision = Some(state.revision).filter(|revision| *revision > 0).or_else(known)?;
            Some(Arc::new(state))
        });
        in_force.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Memory is changed after the file, and never by half.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn next_number(&mut self) -> Result<u64, StateError> {
        let next = self.used + 1;
        if next > self.reserved {
            state::save_durably(&self.number_path, &(next + RESERVED))?;
            self.reserved = next + RESERVED;
        }
        self.used = next;
        Ok(next)
    }

    fn write(&mut self, state: &SnapshotState, difference: Difference) -> Result<(), SnapshotsError> {
        if self.chain.wants_whole() {
            let written = self.chain.whole(&record_of(state, None, state.from_nothing())?);
            match written {
                Ok(end) => {
                    self.epochs.push_back(Epoch { last_number: state.number, end });
                    return Ok(());
                }
                // A little may find room where much does not.
                Err(error) if error.is_disk_full() && self.chain.has_whole() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let end = self.chain.difference(&record_of(state, Some(self.newest.number), difference)?)?;
        self.follows(state.number, end);
        Ok(())
    }

    fn note(&mut self, record: &Record) -> Result<(), SnapshotsError> {
        let end = self.chain.note(&serde_json::to_vec(record)?)?;
        self.follows(self.newest.number, end);
        Ok(())
    }

    fn follows(&mut self, last_number: u64, end: WalPosition) {
        if let Some(epoch) = self.epochs.back_mut() {
            *epoch = Epoch { last_number, end };
        }
    }
}

fn record_of(state: &SnapshotState, from: Option<u64>, difference: Difference) -> Result<Vec<u8>, serde_json::Error> {
    let SnapshotState { number, boot_id, seen_ns, .. } = state;
    let (number, boot_id, seen_ns) = (*number, boot_id.clone(), *seen_ns);
    serde_json::to_vec(&Record::State { number, from, boot_id, seen_ns, difference: Box::new(difference) })
}

/// The meanings of the ids of a boot's snapshots, compiled again: attribution ids are hashes of their decisions, and
/// owners are kept with the snapshots. For events of an earlier boot, of which the probe knows nothing.
pub fn recompile(states: &[Arc<SnapshotState>], node: &str) -> Meanings {
    let mut compiler = Compiler::new(node, IdFloor::default());
    let mut owners = BTreeMap::new();
    let mut attributions = Vec::new();
    for state in states {
        attributions.extend(compiler.compile(&state.snapshot()).attributions);
        owners.extend(state.owners().map(|(id, owner)| (id, owner.clone())));
    }
    Meanings { attributions, owners: owners.into_iter().collect() }
}

#[cfg(test)]
mod tests;
