//! What a commit made superfluous, kept until no packet can be using it.

use std::time::{Duration, Instant};

use netverdict_abi::{AddressKey, ColumnPortKey, ColumnRangeKey, PairKey};

use super::grace;
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

/// The garbage of the last commit, and the wait for the programs that ran then.
#[derive(Debug)]
pub(super) struct Deferred {
    garbage: Garbage,
    /// When maps were written last, until the programs that ran then have been waited for.
    written: Option<Instant>,
    /// How long garbage lies at least.
    grace: Duration,
}

impl Deferred {
    /// Another process may have written just now.
    pub(super) fn new(grace: Duration) -> Self {
        Self { garbage: Garbage::default(), written: Some(Instant::now()), grace }
    }

    /// Everything is written.
    pub(super) fn put(&mut self, garbage: Garbage) {
        self.garbage = garbage;
        self.note_write();
    }

    pub(super) fn note_write(&mut self) {
        self.written = Some(Instant::now());
    }

    /// Waits for the programs that are running. While one runs, no key may be written twice (see `whole` in the programs).
    pub(super) fn wait(&mut self) {
        grace::wait(self.written.take().unwrap_or_else(Instant::now), self.grace);
    }

    /// Waits for the programs that may be using it, and deletes: a new publication may begin.
    pub(super) fn finish(&mut self, maps: &mut Maps) -> Result<(), ProbeError> {
        if self.written.is_some() {
            self.wait();
        }
        self.garbage.delete(maps)
    }

    /// Deletes if the garbage has lain long enough; `true` if nothing is left.
    pub(super) fn try_finish(&mut self, maps: &mut Maps) -> Result<bool, ProbeError> {
        if self.written.is_some_and(|written| written.elapsed() < self.grace) {
            return Ok(self.garbage.is_empty());
        }
        self.finish(maps)?;
        Ok(true)
    }
}
