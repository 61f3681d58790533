//! `PAIRS`: (subject class, identity) → the verdict, or the column that decides by port. Pairs are added and deleted, never
//! replaced.

use netverdict_abi::{PairKey, PolicyEntry, map::name};
use netverdict_policy::tables::{ClassId, IdFloor, IdentityId};

use super::{
    encode::{self, BadId},
    floor::raise,
    map::{Plan, PlanError, PublishedMap, Update},
};
use crate::{
    maps::table::{Hash, Table},
    options::ProbeOptions,
};

#[derive(Default)]
pub(crate) struct Pairs;

impl PublishedMap for Pairs {
    type Store = Hash<PairKey, PolicyEntry>;

    const NAME: &'static str = name::PAIRS;

    fn limit(options: &ProbeOptions) -> u32 {
        options.max_pairs
    }

    fn raise_floor(floor: &mut IdFloor, key: &PairKey, _entry: &PolicyEntry) {
        raise(&mut floor.class, key.class);
        raise(&mut floor.identity, key.identity);
    }

    fn plan(&mut self, table: &Table<Self::Store>, update: &Update<'_>) -> Result<Plan<Self::Store>, PlanError> {
        let change = update.change;
        let entries = change.put.pairs.iter().map(|(&pair, &outcome)| Ok((key(pair)?, encode::policy_entry(outcome)?)));
        let deleted = change.delete.pairs.iter().map(|&pair| key(pair));
        Plan::of_immutable_entries(table, change.complete, entries, deleted)
    }
}

fn key((class, identity): (ClassId, IdentityId)) -> Result<PairKey, BadId> {
    Ok(PairKey { class: encode::class_number(class)?, identity: identity.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_zero_is_refused() {
        assert_eq!(key((ClassId(0), IdentityId(16))).unwrap_err().what, "class");
        assert!(key((ClassId(1), IdentityId(0))).is_ok());
    }
}
