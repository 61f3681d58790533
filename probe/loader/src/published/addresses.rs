//! `ADDRESSES`: the exact address of a pod, node or Service → its peer, before and after a revision.

use std::collections::HashSet;

use netverdict_abi::{
    AddressKey, Peer, PeerVersions,
    map::{name, peer_flag},
};
use netverdict_policy::tables::IdFloor;

use super::{
    encode::{self, ABSENT},
    floor::raise_for_peers,
    map::{Plan, PlanError, PublishedMap, Update},
};
use crate::{
    maps::table::{Hash, Table},
    options::ProbeOptions,
};

#[derive(Default)]
pub(crate) struct Addresses;

impl PublishedMap for Addresses {
    type Store = Hash<AddressKey, PeerVersions>;

    const NAME: &'static str = name::ADDRESSES;

    fn limit(options: &ProbeOptions) -> u32 {
        options.max_addresses
    }

    fn raise_floor(floor: &mut IdFloor, _key: &AddressKey, versions: &PeerVersions) {
        raise_for_peers(floor, [versions.before, versions.after]);
    }

    fn plan(&mut self, table: &Table<Self::Store>, update: &Update<'_>) -> Result<Plan<Self::Store>, PlanError> {
        let Update { in_force, revision, change, .. } = *update;
        let mut plan = Plan::default();
        let mut kept = HashSet::new();
        for (&address, entry) in &change.put.addresses {
            let key = encode::address(address);
            let known = table.get(&key)?;
            let (before, after) = (peer_in_force(known, in_force), encode::peer(entry));
            if before != after {
                plan.replace(key, known, PeerVersions { since: revision, before, after });
            }
            if change.complete {
                kept.insert(key);
            }
        }
        let removed: Vec<_> = if change.complete {
            table.keys()?.into_iter().filter(|key| !kept.contains(key)).collect()
        } else {
            change.delete.addresses.iter().map(|address| encode::address(*address)).collect()
        };
        // A removed address stays until after the commit, without an owner.
        for key in removed {
            let Some(known) = table.get(&key)? else { continue };
            let before = peer_in_force(Some(known), in_force);
            if before.flags & peer_flag::ABSENT == 0 {
                plan.replace(key, Some(known), PeerVersions { since: revision, before, after: ABSENT });
            }
            plan.remove_after_commit(key);
        }
        Ok(plan)
    }
}

/// The peer that packets of the revision in force find.
fn peer_in_force(known: Option<PeerVersions>, in_force: u64) -> Peer {
    known.map_or(ABSENT, |versions| *versions.as_of(in_force))
}
