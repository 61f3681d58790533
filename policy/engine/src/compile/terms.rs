//! Attributes of a peer that the rules of the classes in use can read: their peers as terms, and the port names they
//! resolve on it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use super::counter::Counter;
use crate::{address, model::Peer};

/// A condition on a peer, as some rules name it. Never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TermId(u32);

/// Reference-counted by the classes that use them.
#[derive(Debug)]
pub(super) struct Terms {
    ids: HashMap<Arc<Peer>, TermId>,
    live: BTreeMap<TermId, Term>,
    names: BTreeMap<String, usize>,
    next: Counter,
    added: BTreeSet<TermId>,
    added_names: BTreeSet<String>,
}

#[derive(Debug)]
struct Term {
    peer: Arc<Peer>,
    uses: usize,
}

/// Terms and names that classes only now use, or no longer use.
#[derive(Debug, Default)]
pub(super) struct TermChange {
    pub(super) added: Vec<(TermId, Arc<Peer>)>,
    pub(super) removed: BTreeMap<TermId, Arc<Peer>>,
    /// Port names, added or removed.
    pub(super) names: BTreeSet<String>,
}

impl TermChange {
    /// Whether a peer of a kind is among them.
    pub(super) fn touches_any(&self, kind: impl Fn(&Peer) -> bool) -> bool {
        self.added.iter().map(|(_, peer)| peer).chain(self.removed.values()).any(|peer| kind(peer))
    }

    pub(super) fn touches(&self, term: TermId) -> bool {
        self.removed.contains_key(&term) || self.added.binary_search_by_key(&term, |(id, _)| *id).is_ok()
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            ids: HashMap::new(),
            live: BTreeMap::new(),
            names: BTreeMap::new(),
            next: Counter::from(0),
            added: BTreeSet::new(),
            added_names: BTreeSet::new(),
        }
    }
}

impl Terms {
    pub(super) fn retain(&mut self, peer: &Peer) -> TermId {
        let peer = canonical(peer);
        let id = match self.ids.get(&peer) {
            Some(id) => *id,
            None => {
                let (id, peer) = (TermId(self.next.take()), Arc::new(peer));
                self.ids.insert(Arc::clone(&peer), id);
                self.live.insert(id, Term { peer, uses: 0 });
                self.added.insert(id);
                id
            }
        };
        if let Some(term) = self.live.get_mut(&id) {
            term.uses += 1;
        }
        id
    }

    pub(super) fn release(&mut self, id: TermId) {
        if let Some(term) = self.live.get_mut(&id) {
            term.uses -= 1;
        }
    }

    pub(super) fn retain_name(&mut self, name: &str) {
        match self.names.get_mut(name) {
            Some(uses) => *uses += 1,
            None => {
                self.names.insert(name.to_owned(), 1);
                self.added_names.insert(name.to_owned());
            }
        }
    }

    pub(super) fn release_name(&mut self, name: &str) {
        if let Some(uses) = self.names.get_mut(name) {
            *uses -= 1;
        }
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TermId, &Peer)> {
        self.live.iter().map(|(id, term)| (*id, &*term.peer))
    }

    /// Terms for nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (TermId, &Peer)> {
        self.iter().filter(|(_, peer)| matches!(peer, Peer::Nodes(_)))
    }

    pub(super) fn get(&self, id: TermId) -> Option<&Peer> {
        self.live.get(&id).map(|term| &*term.peer)
    }

    /// Drops unused terms, and returns the changes since the last call.
    pub(super) fn take_change(&mut self) -> TermChange {
        let mut change = TermChange::default();
        let added = mem::take(&mut self.added);
        for (id, term) in self.live.extract_if(.., |_, term| term.uses == 0) {
            self.ids.remove(&term.peer);
            if !added.contains(&id) {
                change.removed.insert(id, term.peer);
            }
        }
        let live = |id: TermId| self.live.get(&id).map(|term| (id, Arc::clone(&term.peer)));
        change.added = added.into_iter().filter_map(live).collect();
        change.names = mem::take(&mut self.added_names);
        change.names.extend(self.names.extract_if(.., |_, uses| *uses == 0).map(|(name, _)| name));
        change
    }
}

/// Equal peers have equal canonical forms.
fn canonical(peer: &Peer) -> Peer {
    match peer {
        Peer::Block { cidr, except } => {
            let except: BTreeSet<_> = except.iter().map(|block| address::canonical_block(*block)).collect();
            Peer::Block { cidr: address::canonical_block(*cidr), except: except.into_iter().collect() }
        }
        Peer::Pods { .. } | Peer::Nodes(_) | Peer::Name(_) => peer.clone(),
    }
}
