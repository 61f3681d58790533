//! The cell that says which revision is in force.
//!
//! Eight bytes written through `bpf(2)` are copied by the kernel, which does not promise to do so at once. Where the
//! map can be mapped, the store is one instruction instead, so that no packet ever reads half of a number.

use aya::maps::{Array, Map, MapData};
use netverdict_abi::map::name;
use std::os::fd::AsFd;

use super::pinned::failed;
use crate::{error::ProbeError, mapping::Mapping};

/// `bpf(2)`: BPF_F_MMAPABLE.
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
            // The first eight bytes of a page that was mapped writable: it cannot fail.
            Some(mapping) if mapping.store_u64(0, revision) => Ok(()),
            _ => self.array.set(0, revision, 0).map_err(|error| failed(name::CURRENT_REVISION, "write", error)),
        }
    }
}
