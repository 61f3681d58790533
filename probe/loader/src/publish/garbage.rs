//! What a commit made superfluous, kept until no packet can be using it.

use std::{
    thread,
    time::{Duration, Instant},
};

use netverdict_abi::{AddressKey, ColumnPortKey, ColumnRangeKey, PairKey};

use crate::{
    error::ProbeError,
    maps::{Maps, Prefix},
};

/// Keys to delete.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    pub(super) addresses: Vec<AddressKey>,
    pub(super) blocks: Vec<Prefix<AddressKey>>,
    pub(super) pairs: Vec<PairKey>,
    pub(super) columns: Vec<u32>,
    pub(super) ports: Vec<ColumnPortKey>,
    pub(super) ranges: Vec<Prefix<ColumnRangeKey>>,
}

impl Garbage {
    pub(super) fn is_empty(&self) -> bool {
        let Self { addresses, blocks, pairs, columns, ports, ranges } = self;
        addresses.is_empty()
            && blocks.is_empty()
            && pairs.is_empty()
            && columns.is_empty()
            && ports.is_empty()
            && ranges.is_empty()
    }

    /// Deletes everything. What fails stays, to be tried again.
    fn delete(&mut self, maps: &mut Maps) -> Result<(), ProbeError> {
        let Self { addresses, blocks, pairs, columns, ports, ranges } = self;
        drain(addresses, |key| maps.addresses.remove(key))?;
        drain(blocks, |key| maps.blocks.remove(key))?;
        drain(pairs, |key| maps.pairs.remove(key))?;
        // Heads before what they lead to.
        drain(columns, |key| maps.columns.remove(key))?;
        drain(ports, |key| maps.column_ports.remove(key))?;
        drain(ranges, |key| maps.column_ranges.remove(key))
    }
}

fn drain<K>(keys: &mut Vec<K>, mut remove: impl FnMut(&K) -> Result<bool, ProbeError>) -> Result<(), ProbeError> {
    while let Some(key) = keys.last() {
        remove(key)?;
        keys.pop();
    }
    Ok(())
}

/// The garbage of the last commit.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    garbage: Garbage,
    /// `None`: nothing was committed yet.
    due: Option<Instant>,
}

impl Deferred {
    pub(super) fn after_commit(&mut self, garbage: Garbage, grace: Duration) {
        self.garbage = garbage;
        self.due = Some(Instant::now() + grace);
    }

    /// Waits out the grace period and deletes: a new publication may begin.
    pub(super) fn finish(&mut self, maps: &mut Maps) -> Result<(), ProbeError> {
        if let Some(due) = self.due {
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        self.garbage.delete(maps)?;
        self.due = None;
        Ok(())
    }

    /// Deletes if the grace period is over; `true` if nothing is left.
    pub(super) fn try_finish(&mut self, maps: &mut Maps) -> Result<bool, ProbeError> {
        match self.due {
            Some(due) if due > Instant::now() => Ok(self.garbage.is_empty()),
            _ => {
                self.finish(maps)?;
                Ok(true)
            }
        }
    }
}
