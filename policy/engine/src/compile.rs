//! From snapshots to decision tables.
//!
//! The first compilation does everything. Later ones are incremental, by the difference between two snapshots: local
//! pods get new classes where the policies that select them changed; addresses get new identities where their owner, its
//! labels, or the attributes that rules read changed; and only pairs of a new class or a new identity are evaluated.
//! Classes, identities and columns never change their meaning: a changed one gets a new id, so that a half-written
//! publication cannot alter a verdict.
//!
//! The order of writes is not decided here: the loader commits a change as a whole.

mod address_record;
mod address_records;
mod blocks;
mod catalogue;
mod class;
mod class_key;
mod class_rules;
mod columns;
mod counter;
mod difference;
mod hashing;
mod identity;
mod identity_index;
mod interning;
mod lookup;
mod named_addresses;
mod outcome;
mod output;
mod pairing;
mod policies;
mod policy_rules;
mod port_set;
mod profiles;
mod subjects;
mod terms;
#[cfg(test)]
mod tests;
mod tracked_tables;
mod view;

use std::{collections::hash_map::Entry, net::IpAddr, sync::Arc};

use self::{
    address_record::{AddressState, EntryDetails, Holder},
    address_records::{AddressRecords, Dirty},
    catalogue::{Decisions, Owners},
    columns::Columns,
    difference::Difference,
    hashing::{QuickMap, QuickSet},
    identity::{Identities, IdentityChange, Signature},
    identity_index::IdentityIndex,
    interning::Move,
    output::CompilerOutput,
    policies::Policies,
    policy_rules::PolicyRulesCache,
    subjects::Subjects,
    terms::{TermChange, Terms},
    tracked_tables::TrackedTables,
};
use crate::{
    decision::{AttributionId, Decision},
    evaluate,
    model::Snapshot,
    tables::{Change, Column, IdFloor, IdentityId, Outcome, Owner, OwnerId, PeerEntry, Tables},
};

/// Compiles one snapshot after another for one node.
#[derive(Debug)]
pub struct Compiler {
    snapshot: Arc<Snapshot>,
    policies: Policies,
    subjects: Subjects,
    records: AddressRecords,
    identities: Identities,
    output: CompilerOutput,
    /// Of a pod that talks to itself.
    self_traffic: AttributionId,
}

impl Compiler {
    /// `node`: whose pods are the subjects. Only ids from `floor` on are given out.
    pub fn new(node: impl Into<String>, floor: IdFloor) -> Self {
        let node = node.into();
        let mut decisions = Decisions::default();
        let self_traffic = decisions.id(evaluate::self_traffic());
        Self {
            snapshot: Arc::default(),
            policies: Policies::default(),
            subjects: Subjects::new(node.clone(), floor.class),
            records: AddressRecords::new(node),
            identities: Identities::new(floor.identity.max(IdentityId::FIRST))
                .with_permanent(Signature::default(), IdentityId::WORLD),
            output: CompilerOutput {
                terms: Terms::default(),
                policy_rules: PolicyRulesCache::default(),
                decisions,
                owners: Owners::new(floor.owner.max(1)),
                columns: Columns::new(floor.column),
                tracked: TrackedTables::default(),
            },
            self_traffic,
        }
    }

    /// Brings the tables to `snapshot` and returns the changes to write. The first change is complete.
    pub fn compile(&mut self, snapshot: &Arc<Snapshot>) -> Change {
        let old = std::mem::replace(&mut self.snapshot, Arc::clone(snapshot));
        let difference = Difference::between(&old, snapshot);
        let versions = self.policies.update(snapshot, &difference.policies);
        let classes = self.subjects.update(snapshot, &difference, &self.policies, &versions, &mut self.output);
        let terms = self.output.terms.take_change();
        let entries = &self.output.tracked.tables().addresses;
        let dirty = self.records.update(&old, snapshot, &difference, &self.output.terms, &terms, entries);
        let identities = self.assign_identities(dirty, &terms);
        let needs_index = !classes.created.is_empty();
        let index = IdentityIndex::new(&self.records, &self.identities, needs_index);
        pairing::pair(&mut self.subjects, classes, &identities, &index, &mut self.output);
        self.records.drop_unused();
        self.output.write_columns();
        self.evict_meanings();
        Change {
            attributions: self.output.decisions.take_new(),
            owners: self.output.owners.take_new(),
            ..self.output.tracked.take_change()
        }
    }

    /// All that the kernel is to hold for the last snapshot.
    pub fn tables(&self) -> &Tables {
        self.output.tracked.tables()
    }

    /// Meaning of an attribution id. Meanings that have left the tables are evicted after some thousand new decisions;
    /// a caller that needs one for longer keeps it from the change that contains it.
    pub fn decision(&self, id: AttributionId) -> Option<&Arc<Decision>> {
        self.output.decisions.get(id)
    }

    /// Meaning of an owner id. Evicted as decisions are.
    pub fn owner(&self, id: OwnerId) -> Option<&Owner> {
        self.output.owners.get(id)
    }

    /// `None` for owners that have no address and no entry in the tables, and had none lately.
    pub fn owner_id(&self, owner: &Owner) -> Option<OwnerId> {
        self.output.owners.find(owner)
    }

    /// The next free ids.
    pub fn floor(&self) -> IdFloor {
        IdFloor {
            identity: self.identities.floor(),
            class: self.subjects.floor(),
            column: self.output.columns.floor(),
            owner: self.output.owners.floor(),
        }
    }

    /// Gives addresses and blocks their identities, and writes their entries.
    fn assign_identities(&mut self, dirty: Dirty, change: &TermChange) -> IdentityChange {
        let Dirty { addresses, blocks } = dirty;
        let first_new = IdentityId(self.identities.floor());
        let mut groups = Groups::default();
        let members: Vec<(usize, Option<EntryDetails>)> = {
            let of_addresses = addresses.iter().map(|address| self.output.tracked.address(*address));
            let of_blocks = blocks.iter().map(|block| self.output.tracked.tables().blocks.get(block).copied());
            let of_blocks_now = blocks.iter().map(|block| self.records.block_state(block));
            let states = self.records.states(&addresses).chain(of_blocks_now);
            of_addresses.chain(of_blocks).zip(states).map(|(entry, state)| groups.add(entry, state)).collect()
        };
        let from: Vec<Option<IdentityId>> = groups.moves.iter().map(|group| group.from).collect();
        // An identity is kept only where it is the same to each class that stays: pairs are written before a change is
        // committed.
        let records = &self.records;
        let ids = self.identities.assign(groups.moves, |old, new| records.equals_before(old, new, change));
        let derived = self.find_derived(first_new, from.into_iter().zip(ids.iter().copied()), change);
        let mut members = members.into_iter().map(|(group, details)| ids[group].zip(details));
        for (address, entry) in addresses.into_iter().zip(&mut members) {
            let entry = entry.map(|(id, details)| self.entry(address, id, details));
            self.output.tracked.set_address(address, entry);
        }
        for (block, entry) in blocks.into_iter().zip(members) {
            let entry = entry.map(|(id, details)| details.entry(id, OwnerId::NOBODY));
            self.output.tracked.set_block(block, entry);
        }
        let (created, removed) = self.identities.drop_unused();
        let matched: QuickSet<IdentityId> = derived.values().flatten().copied().collect();
        let unmatched = created.into_iter().filter(|id| !matched.contains(id)).collect();
        IdentityChange { first_new, removed: removed.into_iter().collect(), derived, unmatched }
    }

    /// Finds new identities that no older class can tell from an older identity: these share its outcomes.
    fn find_derived(
        &self,
        first_new: IdentityId,
        moves: impl Iterator<Item = (Option<IdentityId>, Option<IdentityId>)>,
        change: &TermChange,
    ) -> QuickMap<IdentityId, Vec<IdentityId>> {
        let mut found: QuickSet<IdentityId> = QuickSet::default();
        let mut derived: QuickMap<IdentityId, Vec<IdentityId>> = QuickMap::default();
        for (from, to) in moves.filter_map(|(from, to)| from.zip(to)) {
            if to < first_new || found.contains(&to) {
                continue;
            }
            let signatures = self.identities.get(from).zip(self.identities.get(to));
            if signatures.is_some_and(|(old, new)| self.records.equals_before(old, new, change)) {
                found.insert(to);
                derived.entry(from).or_default().push(to);
            }
        }
        derived
    }

    fn entry(&mut self, address: IpAddr, identity: IdentityId, details: EntryDetails) -> PeerEntry {
        let owner = match details.owner {
            Some(owner) => owner,
            None => {
                let owner = self.owner_of(address);
                self.records.set_owner(address, owner);
                owner
            }
        };
        details.entry(identity, owner)
    }

    fn owner_of(&mut self, address: IpAddr) -> OwnerId {
        let owner = match self.records.holder(address) {
            Holder::Pod(key) => {
                let uid = self.snapshot.pods.get(&key).map(|pod| pod.uid.clone()).unwrap_or_default();
                Owner::Pod { key, uid }
            }
            Holder::Node(name) => Owner::Node { name },
            Holder::Service(key) => Owner::Service { key },
            Holder::Nobody => return OwnerId::NOBODY,
        };
        self.output.owners.id(owner)
    }

    /// Evicts meanings that no table has used for some time, so that memory stays bounded.
    fn evict_meanings(&mut self) {
        let output = &mut self.output;
        if output.decisions.is_full() {
            let outcomes = self.subjects.classes().values().flat_map(|class| class.outcomes());
            let columns = output.tracked.tables().columns.values().flat_map(Column::outcomes);
            let mut used: QuickSet<AttributionId> = outcomes.chain(columns).filter_map(attribution).collect();
            used.insert(self.self_traffic);
            let versions = self.policies.versions().map(|version| version.number).collect();
            output.decisions.evict(&used, &versions);
        }
        if output.owners.is_full() {
            let tables = output.tracked.tables();
            let peers = tables.addresses.values().map(|peer| peer.owner);
            let used = peers.chain(tables.subjects.values().map(|subject| subject.owner)).collect();
            output.owners.evict(&used);
        }
    }
}

/// Addresses and blocks, grouped by the identity that they have and the signature that they get.
#[derive(Default)]
struct Groups {
    by_move: QuickMap<(Option<IdentityId>, Option<Signature>), usize>,
    moves: Vec<Move<Signature, IdentityId>>,
}

impl Groups {
    /// Returns the position of the group.
    fn add(&mut self, entry: Option<PeerEntry>, state: Option<AddressState>) -> (usize, Option<EntryDetails>) {
        let (to, details) = state.map(|AddressState { signature, details }| (signature, details)).unzip();
        let from = entry.map(|entry| entry.identity);
        let moves = &mut self.moves;
        let group = match self.by_move.entry((from, to)) {
            Entry::Occupied(group) => *group.get(),
            Entry::Vacant(vacant) => {
                let (from, to) = vacant.key().clone();
                moves.push(Move { from, to, members: 0 });
                *vacant.insert(moves.len() - 1)
            }
        };
        moves[group].members += 1;
        (group, details)
    }
}

fn attribution(outcome: Outcome) -> Option<AttributionId> {
    match outcome {
        Outcome::Final { attribution, .. } => Some(attribution),
        Outcome::Column(_) => None,
    }
}
