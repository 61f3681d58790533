//! The pinned maps as typed tables. Opens them, checks that they are what this build expects, and counts what is in
//! them. Does not decide what to write.

mod revision;
mod table;

use std::{io, path::Path};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use netverdict_abi::{
    AddressKey, Column, ColumnPortKey, ColumnRangeKey, Decision, Endpoint, LaneCounters, LossKey, OwnAddressKey,
    PairKey, PeerVersions, Settings, map::name,
};

use self::revision::RevisionCell;
pub(crate) use self::table::{Hash, Prefix, Store, Table, Trie};
use crate::error::ProbeError;

/// A value whose every bit pattern is valid and that has no padding, for aya.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(crate) struct Raw<T>(pub(crate) T);

#[expect(unsafe_code, reason = "aya marks plain data with an unsafe trait; zerocopy has proved it for these types")]
// SAFETY: `FromBytes` and `IntoBytes` are proved by zerocopy's derive: any bytes are a valid `T`, none is padding.
unsafe impl<T: zerocopy::FromBytes + zerocopy::IntoBytes + Copy + 'static> aya::Pod for Raw<T> {}

/// Every map that user space reads or writes by key. The rings have a reader of their own.
pub(crate) struct Maps {
    settings: Array<MapData, Raw<Settings>>,
    revision: RevisionCell,
    pub(crate) endpoints: Table<Hash<u32, Endpoint>>,
    pub(crate) own_addresses: Table<Hash<OwnAddressKey, u8>>,
    pub(crate) addresses: Table<Hash<AddressKey, PeerVersions>>,
    pub(crate) blocks: Table<Trie<AddressKey, PeerVersions>>,
    pub(crate) pairs: Table<Hash<PairKey, Decision>>,
    pub(crate) columns: Table<Hash<u32, Column>>,
    pub(crate) column_ports: Table<Hash<ColumnPortKey, Decision>>,
    pub(crate) column_ranges: Table<Trie<ColumnRangeKey, Decision>>,
    lanes: PerCpuArray<MapData, Raw<LaneCounters>>,
    losses: Table<Hash<LossKey, u64>>,
}

impl Maps {
    /// Opens what is pinned in `folder`.
    ///
    /// # Errors
    /// A map is missing or has another layout than this build expects.
    pub(crate) fn open(folder: &Path) -> Result<Self, ProbeError> {
        Ok(Self {
            settings: open_as(folder, name::SETTINGS)?,
            revision: RevisionCell::open(open(folder, name::CURRENT_REVISION)?)?,
            endpoints: Table::open(folder, name::ENDPOINTS)?,
            own_addresses: Table::open(folder, name::OWN_ADDRESSES)?,
            addresses: Table::open(folder, name::ADDRESSES)?,
            blocks: Table::open(folder, name::BLOCKS)?,
            pairs: Table::open(folder, name::PAIRS)?,
            columns: Table::open(folder, name::COLUMNS)?,
            column_ports: Table::open(folder, name::COLUMN_PORTS)?,
            column_ranges: Table::open(folder, name::COLUMN_RANGES)?,
            lanes: open_as(folder, name::LANES)?,
            losses: Table::open(folder, name::LOSSES)?,
        })
    }

    pub(crate) fn settings(&self) -> Result<Settings, ProbeError> {
        match self.settings.get(&0, 0) {
            Ok(Raw(settings)) => Ok(settings),
            Err(error) => Err(failed(name::SETTINGS, "read", error)),
        }
    }

    pub(crate) fn set_settings(&mut self, settings: Settings) -> Result<(), ProbeError> {
        self.settings.set(0, Raw(settings), 0).map_err(|error| failed(name::SETTINGS, "write", error))
    }

    /// The revision in force.
    pub(crate) fn revision(&self) -> Result<u64, ProbeError> {
        self.revision.get()
    }

    /// The commit point of a publication.
    pub(crate) fn set_revision(&mut self, revision: u64) -> Result<(), ProbeError> {
        self.revision.set(revision)
    }

    /// One account for each possible CPU, by lane.
    pub(crate) fn lane(&self, lane: u32) -> Result<Vec<LaneCounters>, ProbeError> {
        let values = self.lanes.get(&lane, 0).map_err(|error| failed(name::LANES, "read", error))?;
        Ok(values.iter().map(|Raw(counters)| *counters).collect())
    }

    /// Losses by interface and lane. What the kernel forgets while it is being read is left out.
    pub(crate) fn losses(&self) -> Result<Vec<(LossKey, u64)>, ProbeError> {
        let mut losses = Vec::new();
        for key in self.losses.keys()? {
            if let Some(lost) = self.losses.get(&key)? {
                losses.push((key, lost));
            }
        }
        Ok(losses)
    }
}

/// Opens a pinned map by its name.
pub(crate) fn open(folder: &Path, name: &'static str) -> Result<MapData, ProbeError> {
    MapData::from_pin(folder.join(name)).map_err(|error| failed(name, "open", error))
}

/// Opens a pinned map as one of aya's own types, which check the sizes of key and value.
fn open_as<M: TryFrom<Map, Error = MapError>>(folder: &Path, name: &'static str) -> Result<M, ProbeError> {
    let map = Map::from_map_data(open(folder, name)?).map_err(|error| failed(name, "open", error))?;
    M::try_from(map).map_err(|error| ProbeError::MapLayout {
        name,
        expected: format!("the layout of ABI version {}", netverdict_abi::ABI_VERSION),
        found: error.to_string(),
    })
}

/// An error of aya's with the map's name.
pub(crate) fn failed(name: &'static str, action: &'static str, error: MapError) -> ProbeError {
    ProbeError::Map { name, action, source: into_io(error) }
}

fn into_io(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::IoError(error) => error,
        MapError::KeyNotFound | MapError::ElementNotFound => io::Error::from(io::ErrorKind::NotFound),
        other => io::Error::other(other),
    }
}
