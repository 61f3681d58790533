//! Identities: equivalence classes of peers that no live rule tells apart.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{
    counter::Counter,
    terms::{TermChange, TermId},
};
use crate::{model::ContainerPort, tables::IdentityId};

/// Everything that live rules can read of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Signature {
    /// Terms that hold for the address, whoever owns it; sorted.
    pub(super) address: Vec<TermId>,
    /// Each that claims it; empty for nobody.
    pub(super) claims: Vec<Arc<Reading>>,
    pub(super) unknown_pod: bool,
}

/// What rules can read of one who claims an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    /// Terms for pods or nodes that hold; sorted.
    pub(super) terms: Vec<TermId>,
    /// Container ports whose names egress rules use; sorted.
    pub(super) ports: Vec<ContainerPort>,
    /// The node on which the subjects are.
    pub(super) own_node: bool,
}

impl Signature {
    /// Without what is only now being read, or not any more.
    fn settled(&self, change: &TermChange) -> Self {
        let keep = |terms: &[TermId]| terms.iter().copied().filter(|term| !change.touches(*term)).collect();
        let claims = self.claims.iter().map(|reading| {
            let ports = reading.ports.iter().filter(|port| !change.names.contains(&port.name)).cloned().collect();
            Arc::new(Reading { terms: keep(&reading.terms), ports, own_node: reading.own_node })
        });
        Self { address: keep(&self.address), claims: claims.collect(), unknown_pod: self.unknown_pod }
    }
}

#[derive(Debug)]
pub(super) struct Identities {
    by_signature: HashMap<Arc<Signature>, IdentityId>,
    live: BTreeMap<IdentityId, Identity>,
    next: Counter,
}

#[derive(Debug)]
struct Identity {
    signature: Arc<Signature>,
    /// Addresses and blocks that have it.
    members: usize,
}

/// An address or a block whose signature may have changed.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) from: Option<IdentityId>,
    /// `None`: it is no more.
    pub(super) to: Option<Signature>,
}

#[derive(Debug, Default)]
pub(super) struct Assigned {
    /// For each move in turn.
    pub(super) identities: Vec<Option<IdentityId>>,
    pub(super) created: Vec<IdentityId>,
    pub(super) removed: Vec<IdentityId>,
}

impl Identities {
    pub(super) fn new(floor: u32) -> Self {
        let signature = Arc::new(Signature::default());
        // The world is there whether or not anything is in it.
        let world = Identity { signature: Arc::clone(&signature), members: 1 };
        Self {
            by_signature: HashMap::from([(signature, IdentityId::WORLD)]),
            live: BTreeMap::from([(IdentityId::WORLD, world)]),
            next: Counter::from(floor.max(IdentityId::FIRST)),
        }
    }

    pub(super) fn floor(&self) -> u32 {
        self.next.peek()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IdentityId, &Signature)> {
        self.live.iter().map(|(id, identity)| (*id, &*identity.signature))
    }

    pub(super) fn signature(&self, id: IdentityId) -> Option<&Signature> {
        self.live.get(&id).map(|identity| &*identity.signature)
    }

    /// An identity whose members all come to the same new signature, and only by what is newly read of them or not read
    /// any more, keeps its id: nothing that older classes hold of it changes.
    pub(super) fn assign(&mut self, moves: Vec<Move>, change: &TermChange) -> Assigned {
        let mut assigned = Assigned { identities: vec![None; moves.len()], ..Assigned::default() };
        let mut groups: BTreeMap<IdentityId, Vec<usize>> = BTreeMap::new();
        for (position, item) in moves.iter().enumerate() {
            if let Some(from) = item.from {
                groups.entry(from).or_default().push(position);
            }
        }
        let kept = self.rename(&moves, &groups, change);
        for (position, Move { from, to }) in moves.into_iter().enumerate() {
            if let Some(id) = from.filter(|from| kept.contains(from)) {
                assigned.identities[position] = Some(id);
                continue;
            }
            let to = to.map(|signature| self.enter(signature, &mut assigned.created));
            if let Some(identity) = from.and_then(|from| self.live.get_mut(&from)) {
                identity.members -= 1;
            }
            assigned.identities[position] = to;
        }
        for (id, identity) in self.live.extract_if(.., |_, identity| identity.members == 0) {
            if self.by_signature.get(&identity.signature) == Some(&id) {
                self.by_signature.remove(&identity.signature);
            }
            assigned.removed.push(id);
        }
        assigned
    }

    /// The identities that keep their id under a new signature.
    fn rename(
        &mut self,
        moves: &[Move],
        groups: &BTreeMap<IdentityId, Vec<usize>>,
        change: &TermChange,
    ) -> BTreeSet<IdentityId> {
        let mut candidates = Vec::new();
        for (id, members) in groups {
            let Some(identity) = self.live.get(id).filter(|identity| identity.members == members.len()) else { continue };
            let Some(to) = members.first().and_then(|first| moves[*first].to.as_ref()) else { continue };
            let together = members.iter().all(|position| moves[*position].to.as_ref() == Some(to));
            if together && *to != *identity.signature && to.settled(change) == identity.signature.settled(change) {
                candidates.push((*id, Arc::new(to.clone())));
            }
        }
        for (id, _) in &candidates {
            if let Some(identity) = self.live.get(id) {
                self.by_signature.remove(&identity.signature);
            }
        }
        let mut kept = BTreeSet::new();
        for (id, signature) in candidates {
            if let Entry::Vacant(vacant) = self.by_signature.entry(Arc::clone(&signature)) {
                vacant.insert(id);
                if let Some(identity) = self.live.get_mut(&id) {
                    identity.signature = signature;
                }
                kept.insert(id);
            }
        }
        kept
    }

    fn enter(&mut self, signature: Signature, created: &mut Vec<IdentityId>) -> IdentityId {
        let id = match self.by_signature.get(&signature) {
            Some(id) => *id,
            None => {
                let (id, signature) = (IdentityId(self.next.take()), Arc::new(signature));
                self.by_signature.insert(Arc::clone(&signature), id);
                self.live.insert(id, Identity { signature, members: 0 });
                created.push(id);
                id
            }
        };
        if let Some(identity) = self.live.get_mut(&id) {
            identity.members += 1;
        }
        id
    }
}
