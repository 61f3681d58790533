//! From snapshots to decision tables.
//!
//! The first compilation does everything. The following ones go by what differs between two snapshots: local pods are
//! put into classes anew where the policies that select them changed; addresses are read anew where their owner, its
//! labels, or what live rules read of them changed; and only pairs of a new class or a new identity are judged. Classes,
//! identities and columns never change their meaning: what changes gets a new id, so that a half-written publication
//! cannot alter a verdict.
//!
//! Whether the order of writes is safe is not decided here: the loader commits a change as a whole.

mod blocks;
mod catalogue;
mod class;
mod columns;
mod counter;
mod difference;
mod directory;
mod hashing;
mod identity;
mod judging;
mod ledger;
mod lookup;
mod pairing;
mod policies;
mod port_set;
mod profiles;
mod scripts;
mod sharing;
mod subjects;
mod terms;
#[cfg(test)]
mod tests;
mod view;
mod world;

use std::{collections::hash_map::Entry, net::IpAddr, sync::Arc};

use self::{
    catalogue::{Decisions, Owners},
    columns::Columns,
    difference::Difference,
    directory::Directory,
    hashing::{QuickMap, QuickSet},
    identity::{Identities, IdentityChange, Signature},
    ledger::Ledger,
    policies::Policies,
    scripts::Scripts,
    sharing::Move,
    subjects::Subjects,
    terms::{TermChange, Terms},
    world::{Dirty, Found, Holder, Sight, World},
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
    world: World,
    identities: Identities,
    books: Books,
    /// Of a pod that talks to itself.
    self_traffic: AttributionId,
}

/// What all parts write to.
#[derive(Debug)]
struct Books {
    terms: Terms,
    scripts: Scripts,
    decisions: Decisions,
    owners: Owners,
    columns: Columns,
    ledger: Ledger,
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
            world: World::new(node),
            identities: Identities::new(floor.identity.max(IdentityId::FIRST))
                .with(Signature::default(), IdentityId::WORLD),
            books: Books {
                terms: Terms::default(),
                scripts: Scripts::default(),
                decisions,
                owners: Owners::new(floor.owner.max(1)),
                columns: Columns::new(floor.column),
                ledger: Ledger::default(),
            },
            self_traffic,
        }
    }

    /// Brings the tables to `snapshot` and tells what has to be written for it. The first change is complete.
    pub fn compile(&mut self, snapshot: &Arc<Snapshot>) -> Change {
        let old = std::mem::replace(&mut self.snapshot, Arc::clone(snapshot));
        let difference = Difference::between(&old, snapshot);
        let touched = self.policies.update(snapshot, &difference.policies);
        let classes = self.subjects.update(snapshot, &difference, &self.policies, &touched, &mut self.books);
        let terms = self.books.terms.settle();
        let addresses = &self.books.ledger.tables().addresses;
        let dirty = self.world.update(&old, snapshot, &difference, &self.books.terms, &terms, addresses);
        let identities = self.place(dirty, &terms);
        let listed = !classes.created.is_empty();
        let directory = Directory::new(&self.world, &self.identities, listed);
        pairing::pair(&mut self.subjects, classes, &identities, &directory, &mut self.books);
        self.world.settle();
        self.books.settle_columns();
        self.forget();
        Change {
            attributions: self.books.decisions.take_new(),
            owners: self.books.owners.take_new(),
            ..self.books.ledger.take_change()
        }
    }

    /// All that the kernel is to hold for the last snapshot.
    pub fn tables(&self) -> &Tables {
        self.books.ledger.tables()
    }

    /// What an attribution id means. One that has left the tables is known for some thousand decisions more: whoever
    /// needs it for longer keeps what the changes told.
    pub fn decision(&self, id: AttributionId) -> Option<&Arc<Decision>> {
        self.books.decisions.get(id)
    }

    /// What an owner id means; of owners that are gone as long as of decisions.
    pub fn owner(&self, id: OwnerId) -> Option<&Owner> {
        self.books.owners.get(id)
    }

    /// `None` for whoever has, or had not long ago, no address and no part in the tables.
    pub fn owner_id(&self, owner: &Owner) -> Option<OwnerId> {
        self.books.owners.find(owner)
    }

    /// The next free ids.
    pub fn floor(&self) -> IdFloor {
        IdFloor {
            identity: self.identities.floor(),
            class: self.subjects.floor(),
            column: self.books.columns.floor(),
            owner: self.books.owners.floor(),
        }
    }

    /// Gives addresses and blocks their identities.
    fn place(&mut self, dirty: Dirty, change: &TermChange) -> IdentityChange {
        let Dirty { addresses, blocks } = dirty;
        let first = IdentityId(self.identities.floor());
        let mut groups = Groups::default();
        let seen: Vec<(usize, Option<Found>)> = {
            let of_addresses = addresses.iter().map(|address| self.books.ledger.address(*address));
            let of_blocks = blocks.iter().map(|block| self.books.ledger.tables().blocks.get(block).copied());
            let sights = self.world.addresses(&addresses).chain(blocks.iter().map(|block| self.world.block(block)));
            of_addresses.chain(of_blocks).zip(sights).map(|(entry, sight)| groups.add(entry, sight)).collect()
        };
        let from: Vec<Option<IdentityId>> = groups.moves.iter().map(|group| group.from).collect();
        // Where it is not the same to a class that stays, an address gets another identity: pairs are written before a
        // change is committed.
        let world = &self.world;
        let ids = self.identities.assign(groups.moves, |old, new| world.means(old, new, change));
        let heirs = self.heirs(first, from.into_iter().zip(ids.iter().copied()), change);
        let mut seen = seen.into_iter().map(|(group, found)| ids[group].zip(found));
        for (address, entry) in addresses.into_iter().zip(&mut seen) {
            let entry = entry.map(|(id, found)| self.entry(address, id, found));
            self.books.ledger.set_address(address, entry);
        }
        for (block, entry) in blocks.into_iter().zip(seen) {
            let entry = entry.map(|(id, found)| found.entry(id, OwnerId::NOBODY));
            self.books.ledger.set_block(block, entry);
        }
        let (created, removed) = self.identities.settle();
        let inherits: QuickSet<IdentityId> = heirs.values().flatten().copied().collect();
        let strangers = created.into_iter().filter(|id| !inherits.contains(id)).collect();
        IdentityChange { first, removed: removed.into_iter().collect(), heirs, strangers }
    }

    /// Finds for new identities older ones that look the same to every class there was.
    fn heirs(
        &self,
        first: IdentityId,
        moves: impl Iterator<Item = (Option<IdentityId>, Option<IdentityId>)>,
        change: &TermChange,
    ) -> QuickMap<IdentityId, Vec<IdentityId>> {
        let mut settled: QuickSet<IdentityId> = QuickSet::default();
        let mut heirs: QuickMap<IdentityId, Vec<IdentityId>> = QuickMap::default();
        for (from, to) in moves.filter_map(|(from, to)| from.zip(to)) {
            if to < first || settled.contains(&to) {
                continue;
            }
            let signatures = self.identities.get(from).zip(self.identities.get(to));
            if signatures.is_some_and(|(old, new)| self.world.means(old, new, change)) {
                settled.insert(to);
                heirs.entry(from).or_default().push(to);
            }
        }
        heirs
    }

    fn entry(&mut self, address: IpAddr, identity: IdentityId, found: Found) -> PeerEntry {
        let owner = match found.owner {
            Some(owner) => owner,
            None => {
                let owner = self.owner_of(address);
                self.world.note_owner(address, owner);
                owner
            }
        };
        found.entry(identity, owner)
    }

    fn owner_of(&mut self, address: IpAddr) -> OwnerId {
        let owner = match self.world.holder(address) {
            Holder::Pod(key) => {
                let uid = self.snapshot.pods.get(&key).map(|pod| pod.uid.clone()).unwrap_or_default();
                Owner::Pod { key, uid }
            }
            Holder::Node(name) => Owner::Node { name },
            Holder::Service(key) => Owner::Service { key },
            Holder::Nobody => return OwnerId::NOBODY,
        };
        self.books.owners.id(owner)
    }

    /// Drops meanings that no table has needed for some time, so that they do not pile up.
    fn forget(&mut self) {
        let books = &mut self.books;
        if books.decisions.is_long() {
            let outcomes = self.subjects.classes().values().flat_map(|class| class.outcomes());
            let columns = books.ledger.tables().columns.values().flat_map(Column::outcomes);
            let mut used: QuickSet<AttributionId> = outcomes.chain(columns).filter_map(attribution).collect();
            used.insert(self.self_traffic);
            let versions = self.policies.versions().map(|version| version.number).collect();
            books.decisions.forget(&used, &versions);
        }
        if books.owners.is_long() {
            let tables = books.ledger.tables();
            let peers = tables.addresses.values().map(|peer| peer.owner);
            let used = peers.chain(tables.subjects.values().map(|subject| subject.owner)).collect();
            books.owners.forget(&used);
        }
    }
}

impl Books {
    fn settle_columns(&mut self) {
        let (new, old) = self.columns.settle();
        new.into_iter().for_each(|(id, column)| self.ledger.add_column(id, column));
        old.into_iter().for_each(|id| self.ledger.remove_column(id));
    }
}

/// Addresses and blocks that go from one identity to one signature.
#[derive(Default)]
struct Groups {
    by_move: QuickMap<(Option<IdentityId>, Option<Signature>), usize>,
    moves: Vec<Move<Signature, IdentityId>>,
}

impl Groups {
    fn add(&mut self, entry: Option<PeerEntry>, sight: Option<Sight>) -> (usize, Option<Found>) {
        let (to, found) = sight.map(|Sight { signature, found }| (signature, found)).unzip();
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
        (group, found)
    }
}

fn attribution(outcome: Outcome) -> Option<AttributionId> {
    match outcome {
        Outcome::Final { attribution, .. } => Some(attribution),
        Outcome::Column(_) => None,
    }
}
