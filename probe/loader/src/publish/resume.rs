//! Takes up where another process, or none, left the maps.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use netverdict_policy::tables::{IdFloor, Owner, OwnerId};

use super::{Publisher, blocks::Blocks, floor::floor_above_maps, garbage::Deferred, journal::Journal, uid};
use crate::{error::ProbeError, maps::Maps, state::higher};

impl Publisher {
    /// Takes up what the maps hold. `floor` and `owners` are what the state file knows.
    pub(crate) fn resume(
        maps: &Maps,
        floor: IdFloor,
        owners: &BTreeMap<OwnerId, Owner>,
        grace: Duration,
    ) -> Result<Self, ProbeError> {
        let revision = maps.revision()?;
        let mut publisher = Self {
            revision,
            floor,
            blocks: Blocks::default(),
            columns: HashMap::new(),
            published: false,
            subjects: BTreeMap::new(),
            uids: owners.iter().filter_map(|(id, owner)| Some((*id, uid(owner)?.to_owned()))).collect(),
            deferred: Deferred::new(grace),
            unfinished: Journal::default(),
        };
        publisher.read_blocks(maps)?;
        publisher.read_columns(maps)?;
        // Ids in the maps are in use, whatever the state file knows of them.
        publisher.floor = higher(floor, floor_above_maps(maps)?);
        Ok(publisher)
    }

    fn read_blocks(&mut self, maps: &Maps) -> Result<(), ProbeError> {
        for block in maps.blocks.keys()? {
            if let Some(versions) = maps.blocks.get_exact(&block)? {
                self.blocks.insert(block, self.in_force(Some(versions)));
            }
        }
        Ok(())
    }

    fn read_columns(&mut self, maps: &Maps) -> Result<(), ProbeError> {
        for id in maps.columns.keys()? {
            self.columns.entry(id).or_default();
        }
        for key in maps.column_ports.keys()? {
            self.columns.entry(key.column).or_default().ports.push(key);
        }
        for key in maps.column_ranges.keys()? {
            self.columns.entry(u32::from_be_bytes(key.data.column)).or_default().ranges.push(key);
        }
        Ok(())
    }
}
