//! Writes that can be taken back: each remembers what was there before, until the commit.

use netverdict_abi::{AddressKey, Column, ColumnPortKey, ColumnRangeKey, Decision, Endpoint, PairKey, PeerVersions};

use crate::{
    error::ProbeError,
    maps::{Maps, Prefix},
};

/// What was there before a write; `None`: nothing.
#[derive(Clone, Copy, Debug)]
enum Before {
    Address(AddressKey, Option<PeerVersions>),
    Block(Prefix<AddressKey>, Option<PeerVersions>),
    Pair(PairKey, Option<Decision>),
    Column(u32, Option<Column>),
    Port(ColumnPortKey, Option<Decision>),
    Range(Prefix<ColumnRangeKey>, Option<Decision>),
    Endpoint(u32, Option<Endpoint>),
}

/// The writes of one publication, oldest first.
#[derive(Debug, Default)]
pub(super) struct Journal {
    before: Vec<Before>,
}

impl Journal {
    pub(super) fn put_address(
        &mut self,
        maps: &mut Maps,
        key: AddressKey,
        before: Option<PeerVersions>,
        value: PeerVersions,
    ) -> Result<(), ProbeError> {
        maps.addresses.put_after(key, before, value)?;
        self.before.push(Before::Address(key, before));
        Ok(())
    }

    pub(super) fn put_block(
        &mut self,
        maps: &mut Maps,
        key: Prefix<AddressKey>,
        value: PeerVersions,
    ) -> Result<(), ProbeError> {
        self.before.push(Before::Block(key, maps.blocks.get_exact(&key)?));
        maps.blocks.put(key, value)
    }

    pub(super) fn put_pair(&mut self, maps: &mut Maps, key: PairKey, value: Decision) -> Result<(), ProbeError> {
        let before = maps.pairs.put_new(key, value)?;
        self.before.push(Before::Pair(key, before));
        Ok(())
    }

    pub(super) fn put_column(&mut self, maps: &mut Maps, id: u32, value: Column) -> Result<(), ProbeError> {
        let before = maps.columns.put_new(id, value)?;
        self.before.push(Before::Column(id, before));
        Ok(())
    }

    pub(super) fn put_port(&mut self, maps: &mut Maps, key: ColumnPortKey, value: Decision) -> Result<(), ProbeError> {
        let before = maps.column_ports.put_new(key, value)?;
        self.before.push(Before::Port(key, before));
        Ok(())
    }

    pub(super) fn put_range(
        &mut self,
        maps: &mut Maps,
        key: Prefix<ColumnRangeKey>,
        value: Decision,
    ) -> Result<(), ProbeError> {
        self.before.push(Before::Range(key, maps.column_ranges.get_exact(&key)?));
        maps.column_ranges.put(key, value)
    }

    pub(super) fn put_endpoint(
        &mut self,
        maps: &mut Maps,
        ifindex: u32,
        before: Endpoint,
        value: Endpoint,
    ) -> Result<(), ProbeError> {
        maps.endpoints.put_after(ifindex, Some(before), value)?;
        self.before.push(Before::Endpoint(ifindex, Some(before)));
        Ok(())
    }

    /// Takes everything back, newest first. What cannot be stays in the journal, to be tried again.
    pub(super) fn roll_back(&mut self, maps: &mut Maps) -> Result<(), ProbeError> {
        while let Some(before) = self.before.last() {
            before.restore(maps)?;
            self.before.pop();
        }
        Ok(())
    }

    /// Everything written holds from now on.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }
}

impl Before {
    fn restore(&self, maps: &mut Maps) -> Result<(), ProbeError> {
        match *self {
            Self::Address(key, Some(value)) => maps.addresses.put_after(key, Some(value), value),
            Self::Address(key, None) => maps.addresses.remove(&key).map(drop),
            Self::Block(key, Some(value)) => maps.blocks.put(key, value),
            Self::Block(key, None) => maps.blocks.remove(&key).map(drop),
            Self::Pair(key, Some(value)) => maps.pairs.put_after(key, Some(value), value),
            Self::Pair(key, None) => maps.pairs.remove(&key).map(drop),
            Self::Column(id, Some(value)) => maps.columns.put_after(id, Some(value), value),
            Self::Column(id, None) => maps.columns.remove(&id).map(drop),
            Self::Port(key, Some(value)) => maps.column_ports.put_after(key, Some(value), value),
            Self::Port(key, None) => maps.column_ports.remove(&key).map(drop),
            Self::Range(key, Some(value)) => maps.column_ranges.put(key, value),
            Self::Range(key, None) => maps.column_ranges.remove(&key).map(drop),
            Self::Endpoint(ifindex, Some(value)) => maps.endpoints.put_after(ifindex, Some(value), value),
            Self::Endpoint(ifindex, None) => maps.endpoints.remove(&ifindex).map(drop),
        }
    }
}
