//! The pinned maps that no publication fills: settings, the revision cell, source addresses, counters. The maps that a
//! publication fills are in [`crate::published`]; ring buffers have a reader of their own in [`crate::ring`].

pub(crate) mod occupancy;
pub(crate) mod pinned;
mod revision;
pub(crate) mod table;

use std::path::Path;

use aya::maps::{Array, MapData, PerCpuArray};
use netverdict_abi::{LaneCounters, LossKey, OwnAddressKey, Settings, map::name};

use self::{
    pinned::{Raw, failed, open, open_as},
    revision::RevisionCell,
    table::{Hash, Table},
};
use crate::{error::ProbeError, local_pods::LocalPodTable};

pub(crate) type OwnAddressTable = Table<Hash<OwnAddressKey, u8>>;

pub(crate) struct Maps {
    settings: Array<MapData, Raw<Settings>>,
    revision: RevisionCell,
    pub(crate) own_addresses: OwnAddressTable,
    pub(crate) local_pods: LocalPodTable,
    lanes: PerCpuArray<MapData, Raw<LaneCounters>>,
    losses: Table<Hash<LossKey, u64>>,
}

impl Maps {
    /// Opens the maps that are pinned in `folder`.
    ///
    /// # Errors
    /// A map is missing or has another layout than this build expects.
    pub(crate) fn open(folder: &Path) -> Result<Self, ProbeError> {
        Ok(Self {
            settings: open_as(folder, name::SETTINGS)?,
            revision: RevisionCell::open(open(folder, name::CURRENT_REVISION)?)?,
            own_addresses: Table::open(folder, name::OWN_ADDRESSES)?,
            local_pods: Table::open(folder, name::LOCAL_PODS)?,
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

    /// The counters of a lane, one for each possible CPU.
    pub(crate) fn lane(&self, lane: u32) -> Result<Vec<LaneCounters>, ProbeError> {
        let values = self.lanes.get(&lane, 0).map_err(|error| failed(name::LANES, "read", error))?;
        Ok(values.iter().map(|Raw(counters)| *counters).collect())
    }

    /// Losses by interface and class. Entries that the kernel evicts during the read are left out.
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
