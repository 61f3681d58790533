//! Values that many members have alike, each under one id, and how members move from one to another.

use std::{collections::hash_map::Entry, hash::Hash, mem, sync::Arc};

use super::{
    counter::Counter,
    hashing::{QuickMap, QuickSet},
};

pub(super) trait Id: Copy + Ord + Hash {
    fn from_number(number: u32) -> Self;
}

/// Values under ids that are never given out twice, counted by their members.
#[derive(Debug)]
pub(super) struct Shared<V, I> {
    ids: QuickMap<Arc<V>, I>,
    live: QuickMap<I, Held<V>>,
    next: Counter,
    created: Vec<I>,
    /// Ids that lost their last member since the last call; some may have found new ones.
    emptied: Vec<I>,
}

#[derive(Debug)]
struct Held<V> {
    value: Arc<V>,
    members: usize,
}

/// Members whose value may have changed. `None`: they were not there before, or are no more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Move<V, I> {
    pub(super) from: Option<I>,
    pub(super) to: Option<V>,
    pub(super) members: usize,
}

impl<V: Eq + Hash, I: Id> Shared<V, I> {
    /// Numbers are given out from `floor` on.
    pub(super) fn new(floor: u32) -> Self {
        let (ids, live) = (QuickMap::default(), QuickMap::default());
        Self { ids, live, next: Counter::from(floor), created: Vec::new(), emptied: Vec::new() }
    }

    /// Holds `value` under `id` for good, with or without members.
    pub(super) fn with(mut self, value: V, id: I) -> Self {
        let value = Arc::new(value);
        self.ids.insert(Arc::clone(&value), id);
        self.live.insert(id, Held { value, members: 1 });
        self
    }

    pub(super) fn floor(&self) -> u32 {
        self.next.peek()
    }

    pub(super) fn get(&self, id: I) -> Option<&V> {
        self.live.get(&id).map(|held| &*held.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (I, &V)> {
        self.live.iter().map(|(id, held)| (*id, &*held.value))
    }

    /// Counts a member in.
    pub(super) fn enter(&mut self, value: V) -> I {
        self.enter_all(value, 1)
    }

    fn enter_all(&mut self, value: V, members: usize) -> I {
        let id = match self.ids.get(&value) {
            Some(id) => *id,
            None => {
                let (id, value) = (I::from_number(self.next.take()), Arc::new(value));
                self.ids.insert(Arc::clone(&value), id);
                self.live.insert(id, Held { value, members: 0 });
                self.created.push(id);
                id
            }
        };
        if let Some(held) = self.live.get_mut(&id) {
            held.members += members;
        }
        id
    }

    /// Counts a member out.
    pub(super) fn leave(&mut self, id: I) {
        self.leave_all(id, 1);
    }

    fn leave_all(&mut self, id: I, members: usize) {
        if let Some(held) = self.live.get_mut(&id) {
            held.members -= members;
            if held.members == 0 {
                self.emptied.push(id);
            }
        }
    }

    /// Moves members; returns where each is now.
    ///
    /// Where all members of an id come to the same value, and `means_the_same` as before, the id stays and takes the new
    /// value on.
    pub(super) fn assign(&mut self, moves: Vec<Move<V, I>>, means_the_same: impl Fn(&V, &V) -> bool) -> Vec<Option<I>>
    where
        V: Clone,
    {
        let stay = self.rename(&moves, means_the_same);
        let mut places = Vec::with_capacity(moves.len());
        for Move { from, to, members } in moves {
            if from.is_some_and(|from| stay.contains(&from)) {
                places.push(from);
                continue;
            }
            places.push(to.map(|value| self.enter_all(value, members)));
            if let Some(from) = from {
                self.leave_all(from, members);
            }
        }
        places
    }

    /// The ids that stay.
    fn rename(&mut self, moves: &[Move<V, I>], means_the_same: impl Fn(&V, &V) -> bool) -> QuickSet<I>
    where
        V: Clone,
    {
        let mut candidates = Vec::new();
        for (id, group) in group(moves) {
            let Some(held) = self.live.get(&id).filter(|held| held.members == group.members) else { continue };
            if group.alike && *group.to != *held.value && means_the_same(&held.value, group.to) {
                candidates.push((id, Arc::new(V::clone(group.to))));
            }
        }
        candidates.sort_unstable_by_key(|(id, _)| *id);
        for (id, _) in &candidates {
            if let Some(held) = self.live.get(id) {
                self.ids.remove(&held.value);
            }
        }
        let mut stay = QuickSet::default();
        for (id, value) in candidates {
            // Where another id has the value already, the members move there.
            if let Entry::Vacant(vacant) = self.ids.entry(Arc::clone(&value)) {
                vacant.insert(id);
                if let Some(held) = self.live.get_mut(&id) {
                    held.value = value;
                }
                stay.insert(id);
            }
        }
        stay
    }

    /// Forgets ids without members. Returns those that came and those that went since the last call.
    pub(super) fn settle(&mut self) -> (Vec<I>, Vec<I>) {
        let mut removed = mem::take(&mut self.emptied);
        removed.sort_unstable();
        removed.dedup();
        removed.retain(|id| match self.live.entry(*id) {
            Entry::Occupied(held) if held.get().members == 0 => {
                let held = held.remove();
                if self.ids.get(&held.value) == Some(id) {
                    self.ids.remove(&held.value);
                }
                true
            }
            _ => false,
        });
        let mut created = mem::take(&mut self.created);
        created.retain(|id| self.live.contains_key(id));
        (created, removed)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }
}

/// The members of one id that may have another value.
struct Group<'a, V> {
    members: usize,
    to: &'a V,
    alike: bool,
}

fn group<V: Eq, I: Id>(moves: &[Move<V, I>]) -> QuickMap<I, Group<'_, V>> {
    let mut groups: QuickMap<I, Group<'_, V>> = QuickMap::default();
    for Move { from, to, members } in moves {
        if let (Some(from), Some(to)) = (from, to) {
            let group = groups.entry(*from).or_insert(Group { members: 0, to, alike: true });
            group.members += members;
            group.alike = group.alike && group.to == to;
        }
    }
    groups
}
