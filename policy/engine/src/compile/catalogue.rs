//! What attribution ids and owner ids mean. Nothing is forgotten: records of old revisions still ask.

use std::{collections::HashMap, mem, sync::Arc};

use super::counter::Counter;
use crate::{
    decision::{AttributionId, Decision},
    tables::{Owner, OwnerId},
};

#[derive(Debug, Default)]
pub(super) struct Decisions {
    ids: HashMap<Arc<Decision>, AttributionId>,
    meanings: HashMap<AttributionId, Arc<Decision>>,
    /// Since the last change was taken out.
    new: Vec<AttributionId>,
}

impl Decisions {
    pub(super) fn get(&self, id: AttributionId) -> Option<&Arc<Decision>> {
        self.meanings.get(&id)
    }

    pub(super) fn id(&mut self, decision: Decision) -> AttributionId {
        if let Some(id) = self.ids.get(&decision) {
            return *id;
        }
        let decision = Arc::new(decision);
        let mut salt = 0;
        let mut id = AttributionId::of(&decision, salt);
        while self.meanings.contains_key(&id) {
            salt += 1;
            id = AttributionId::of(&decision, salt);
        }
        self.meanings.insert(id, Arc::clone(&decision));
        self.ids.insert(decision, id);
        self.new.push(id);
        id
    }

    pub(super) fn take_new(&mut self) -> Vec<(AttributionId, Decision)> {
        let new = mem::take(&mut self.new);
        new.into_iter().map(|id| (id, Decision::clone(&self.meanings[&id]))).collect()
    }
}

#[derive(Debug)]
pub(super) struct Owners {
    ids: HashMap<Arc<Owner>, OwnerId>,
    meanings: HashMap<OwnerId, Arc<Owner>>,
    next: Counter,
    new: Vec<OwnerId>,
}

impl Owners {
    pub(super) fn new(floor: u32) -> Self {
        Self { ids: HashMap::new(), meanings: HashMap::new(), next: Counter::from(floor), new: Vec::new() }
    }

    pub(super) fn get(&self, id: OwnerId) -> Option<&Owner> {
        self.meanings.get(&id).map(|owner| &**owner)
    }

    pub(super) fn find(&self, owner: &Owner) -> Option<OwnerId> {
        self.ids.get(owner).copied()
    }

    pub(super) fn id(&mut self, owner: Owner) -> OwnerId {
        if let Some(id) = self.find(&owner) {
            return id;
        }
        let id = OwnerId(self.next.take());
        let owner = Arc::new(owner);
        self.meanings.insert(id, Arc::clone(&owner));
        self.ids.insert(owner, id);
        self.new.push(id);
        id
    }

    pub(super) fn take_new(&mut self) -> Vec<(OwnerId, Owner)> {
        let new = mem::take(&mut self.new);
        new.into_iter().map(|id| (id, Owner::clone(&self.meanings[&id]))).collect()
    }

    pub(super) fn floor(&self) -> u32 {
        self.next.peek()
    }
}
