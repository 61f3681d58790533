//! The cell with the revision in force.
//!
//! A value written with `bpf(2)` is copied by the kernel without a guarantee of atomicity. Where the map can be mapped
//! into memory, the cell is written with one 64-bit store instead, so that no program reads half of a number.

use aya::maps::{Array, Map, MapData};
use netverdict_abi::map::name;
use std::os::fd::AsFd;

use super::pinned::failed;
use crate::{error::ProbeError, mapping::Mapping};

/// Flag of `bpf(2)`: `BPF_F_MMAPABLE`.
const MAPPABLE: u32 = 1 << 10;

pub(super) struct RevisionCell {
    array: Array<MapData, u64>,
    /// `None` where the map was created without [`MAPPABLE`].
    mapping: Option<Mapping>,
}

impl RevisionCell {
    pub(super) fn open(data: MapData) -> Result<Self, ProbeError> {
        let flags = data.info().map_err(|error| failed(name::CURRENT_REVISION, "inspect", error))?.map_flags();
        let mapping = if flags & MAPPABLE == 0 {
            None
        } else {
            let mapped = Mapping::new(data.fd().as_fd(), 0, Mapping::page_size(), true);
            Some(mapped.map_err(|source| ProbeError::Map { name: name::CURRENT_REVISION, action: "map", source })?)
        };
        let layout = |error: aya::maps::MapError| ProbeError::MapLayout {
            name: name::CURRENT_REVISION,
            expected: "an array of one u64".to_owned(),
            found: error.to_string(),
        };
        let array = Array::try_from(Map::from_map_data(data).map_err(layout)?).map_err(layout)?;
        Ok(Self { array, mapping })
    }

    pub(super) fn get(&self) -> Result<u64, ProbeError> {
        self.array.get(&0, 0).map_err(|error| failed(name::CURRENT_REVISION, "read", error))
    }

    pub(super) fn set(&mut self, revision: u64) -> Result<(), ProbeError> {
        match &self.mapping {
            // Always succeeds: the first eight bytes of a page that was mapped writable.
            Some(mapping) if mapping.store_u64(0, revision) => Ok(()),
            _ => self.array.set(0, revision, 0).map_err(|error| failed(name::CURRENT_REVISION, "write", error)),
        }
    }
}
