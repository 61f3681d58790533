//! Interning: equal values of many members are kept once, under one id, and members move from one value to another.

use std::{collections::hash_map::Entry, hash::Hash, mem, sync::Arc};

use super::{
    counter::Counter,
    hashing::{QuickMap, QuickSet},
};

pub(super) trait InternId: Copy + Ord + Hash {
    fn from_number(number: u32) -> Self;
}

/// Values under ids that are never given out twice, reference-counted by their members.
#[derive(Debug)]
pub(super) struct Interner<V, I> {
    ids: QuickMap<Arc<V>, I>,
    live: QuickMap<I, Interned<V>>,
    next: Counter,
    created: Vec<I>,
    /// Ids that lost their last member since the last call; some may have members again.
    emptied: Vec<I>,
}

#[derive(Debug)]
struct Interned<V> {
    value: Arc<V>,
    members: usize,
}

/// Members whose value may have changed. `None`: they are new, or removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Move<V, I> {
    pub(super) from: Option<I>,
    pub(super) to: Option<V>,
    pub(super) members: usize,
}

impl<V: Eq + Hash, I: InternId> Interner<V, I> {
    /// Numbers are given out from `floor` on.
    pub(super) fn new(floor: u32) -> Self {
        let (ids, live) = (QuickMap::default(), QuickMap::default());
        Self { ids, live, next: Counter::from(floor), created: Vec::new(), emptied: Vec::new() }
    }

    /// Keeps `value` under `id` for ever, with or without members.
    pub(super) fn with_permanent(mut self, value: V, id: I) -> Self {
        let value = Arc::new(value);
        self.ids.insert(Arc::clone(&value), id);
        self.live.insert(id, Interned { value, members: 1 });
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

    /// Adds a member.
    pub(super) fn add_member(&mut self, value: V) -> I {
        self.add_members(value, 1)
    }

    fn add_members(&mut self, value: V, members: usize) -> I {
        let id = match self.ids.get(&value) {
            Some(id) => *id,
            None => {
                let (id, value) = (I::from_number(self.next.take()), Arc::new(value));
                self.ids.insert(Arc::clone(&value), id);
                self.live.insert(id, Interned { value, members: 0 });
                self.created.push(id);
                id
            }
        };
        if let Some(held) = self.live.get_mut(&id) {
            held.members += members;
        }
        id
    }

    /// Removes a member.
    pub(super) fn remove_member(&mut self, id: I) {
        self.remove_members(id, 1);
    }

    fn remove_members(&mut self, id: I, members: usize) {
        if let Some(held) = self.live.get_mut(&id) {
            held.members -= members;
            if held.members == 0 {
                self.emptied.push(id);
            }
        }
    }

    /// Moves members; returns the id of each.
    ///
    /// Where all members of an id move to the same value, and that is `equivalent` to the old one, the id stays and gets
    /// the new value: nothing that refers to the id has to be written again.
    pub(super) fn assign(&mut self, moves: Vec<Move<V, I>>, equivalent: impl Fn(&V, &V) -> bool) -> Vec<Option<I>>
    where
        V: Clone,
    {
        let stay = self.replace_values(&moves, equivalent);
        let mut ids = Vec::with_capacity(moves.len());
        for Move { from, to, members } in moves {
            if from.is_some_and(|from| stay.contains(&from)) {
                ids.push(from);
                continue;
            }
            ids.push(to.map(|value| self.add_members(value, members)));
            if let Some(from) = from {
                self.remove_members(from, members);
            }
        }
        ids
    }

    /// Gives ids their new values where that is possible, and returns those ids.
    fn replace_values(&mut self, moves: &[Move<V, I>], equivalent: impl Fn(&V, &V) -> bool) -> QuickSet<I>
    where
        V: Clone,
    {
        let mut candidates = Vec::new();
        for (id, group) in group(moves) {
            let Some(held) = self.live.get(&id).filter(|held| held.members == group.members) else { continue };
            if group.to_same && *group.to != *held.value && equivalent(&held.value, group.to) {
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
            // Where another id already has the value, the members move there.
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

    /// Drops ids without members. Returns the ids that were created and removed since the last call.
    pub(super) fn drop_unused(&mut self) -> (Vec<I>, Vec<I>) {
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
    to_same: bool,
}

fn group<V: Eq, I: InternId>(moves: &[Move<V, I>]) -> QuickMap<I, Group<'_, V>> {
    let mut groups: QuickMap<I, Group<'_, V>> = QuickMap::default();
    for Move { from, to, members } in moves {
        if let (Some(from), Some(to)) = (from, to) {
            let group = groups.entry(*from).or_insert(Group { members: 0, to, to_same: true });
            group.members += members;
            group.to_same = group.to_same && group.to == to;
        }
    }
    groups
}
