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
mod identity;
mod index;
mod judging;
mod ledger;
mod lookup;
mod policies;
mod port_set;
mod profiles;
mod sharing;
mod subjects;
mod terms;
#[cfg(test)]
mod tests;
mod world;

use std::sync::Arc;

use self::{
    catalogue::{Decisions, Owners},
    class::Look,
    columns::Columns,
    difference::Difference,
    identity::{Identities, Signature},
    ledger::Ledger,
    policies::Policies,
    sharing::Move,
    subjects::{ClassChange, Subjects},
    terms::Terms,
    world::{Claimant, Dirty, Sight, World},
};
use crate::{
    decision::{AttributionId, Decision},
    evaluate,
    model::Snapshot,
    tables::{Change, IdFloor, IdentityId, Owner, OwnerId, PeerEntry, Tables},
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
        let dirty = self.world.update(&old, snapshot, &difference, &self.books.terms, &terms);
        let (created, removed) = self.place(dirty);
        self.pair(&classes, &created, &removed);
        let (new_columns, old_columns) = self.books.columns.settle();
        for (id, column) in new_columns {
            self.books.ledger.set_column(id, Some(column));
        }
        for id in old_columns {
            self.books.ledger.set_column(id, None);
        }
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

    /// What an attribution id means; also of those that are no longer in the tables.
    pub fn decision(&self, id: AttributionId) -> Option<&Arc<Decision>> {
        self.books.decisions.get(id)
    }

    /// What an owner id means; also of owners that are gone.
    pub fn owner(&self, id: OwnerId) -> Option<&Owner> {
        self.books.owners.get(id)
    }

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

    /// Gives addresses and blocks their identities. Returns those that came and those that went.
    fn place(&mut self, dirty: Dirty) -> (Vec<IdentityId>, Vec<IdentityId>) {
        let Dirty { addresses, blocks } = dirty;
        let Self { snapshot, world, identities, books, .. } = self;
        let tables = books.ledger.tables();
        let addresses: Vec<_> = addresses
            .into_iter()
            .map(|address| {
                let from = tables.addresses.get(&address).map(|entry| entry.identity);
                (address, from, world.address(address))
            })
            .collect();
        let blocks: Vec<_> = blocks
            .into_iter()
            .map(|block| (block, tables.blocks.get(&block).map(|entry| entry.identity), world.block(&block)))
            .collect();
        let to = |sight: &Option<Sight>| sight.as_ref().map(|sight| sight.signature.clone());
        let of_addresses = addresses.iter().map(|(_, from, sight)| Move { from: *from, to: to(sight) });
        let of_blocks = blocks.iter().map(|(_, from, sight)| Move { from: *from, to: to(sight) });
        // An identity that moves gets a new id: pairs are written before a change is committed.
        let places = identities.assign(of_addresses.chain(of_blocks).collect(), |_, _| false);
        let mut places = places.into_iter();
        for (address, _, sight) in addresses {
            let entry =
                places.next().flatten().zip(sight).map(|(id, sight)| entry(snapshot, id, sight, &mut books.owners));
            books.ledger.set_address(address, entry);
        }
        for (block, _, sight) in blocks {
            let entry =
                places.next().flatten().zip(sight).map(|(id, sight)| entry(snapshot, id, sight, &mut books.owners));
            books.ledger.set_block(block, entry);
        }
        identities.settle()
    }

    /// Judges every pair of which one side is new.
    fn pair(&mut self, classes: &ClassChange, created: &[IdentityId], removed: &[IdentityId]) {
        let Self { subjects, identities, world, books, .. } = self;
        let Books { decisions, columns, ledger, .. } = books;
        for class in &classes.removed {
            ledger.remove_pairs(*class);
        }
        let look = |id: &IdentityId| Some(world.look(*id, identities.get(*id)?));
        let new: Vec<Look<'_>> = created.iter().filter_map(look).collect();
        let all: Vec<Look<'_>> = if classes.created.is_empty() {
            Vec::new()
        } else {
            identities.iter().map(|(id, signature)| world.look(id, signature)).collect()
        };
        for class in subjects.classes_mut() {
            let is_new = classes.created.contains(&class.id);
            for id in removed.iter().filter(|_| !is_new) {
                if class.forget(*id, columns) {
                    ledger.set_pair(class.id, *id, None);
                }
            }
            for peer in if is_new { &all } else { &new } {
                if let Some(outcome) = class.look(peer, decisions, columns) {
                    ledger.set_pair(class.id, peer.id, Some(outcome));
                }
            }
        }
    }
}

fn entry(snapshot: &Snapshot, identity: IdentityId, sight: Sight, owners: &mut Owners) -> PeerEntry {
    let Sight { signature, owner, service } = sight;
    let is_service = service.is_some();
    let owner = match (owner, service) {
        (Some(Claimant::Pod(key)), _) => {
            let uid = snapshot.pods.get(&key).map(|pod| pod.uid.clone()).unwrap_or_default();
            owners.id(Owner::Pod { key, uid })
        }
        (Some(Claimant::Node(name)), _) => owners.id(Owner::Node { name }),
        (None, Some(key)) => owners.id(Owner::Service { key }),
        (None, None) => OwnerId::NOBODY,
    };
    PeerEntry { identity, owner, service: is_service, unknown_pod: signature.unknown_pod }
}
