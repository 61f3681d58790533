//! Maps of which one state after another is kept: the next one costs what it changes, not what it holds.
//!
//! A map is a ground that many states share, and a layer over it that is copied from state to state. A layer that has
//! grown is pressed into a new ground: often enough that copying it stays cheap, seldom enough that grounds stay few.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

/// A layer of a small map may have so many entries.
const THIN: usize = 32;

/// A key, and what it has now; `None` where it is no more.
pub type Edit<K, V> = (K, Option<V>);

#[derive(Clone, Debug)]
pub struct Layered<K, V> {
    ground: Arc<BTreeMap<K, V>>,
    layer: Arc<BTreeMap<K, Option<V>>>,
}

impl<K, V> Default for Layered<K, V> {
    fn default() -> Self {
        Self { ground: Arc::default(), layer: Arc::default() }
    }
}

impl<K, V> From<BTreeMap<K, V>> for Layered<K, V> {
    fn from(ground: BTreeMap<K, V>) -> Self {
        Self { ground: Arc::new(ground), layer: Arc::default() }
    }
}

impl<K: Ord + Clone, V: Clone> Layered<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        match self.layer.get(key) {
            Some(entry) => entry.as_ref(),
            None => self.ground.get(key),
        }
    }

    /// In order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (mut under, mut over) = (self.ground.iter().peekable(), self.layer.iter().peekable());
        std::iter::from_fn(move || {
            loop {
                let order = match (under.peek(), over.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((a, _)), Some((b, _))) => a.cmp(b),
                };
                if order == Ordering::Less {
                    return under.next();
                }
                if order == Ordering::Equal {
                    under.next();
                }
                if let Some((key, Some(value))) = over.next() {
                    return Some((key, value));
                }
            }
        })
    }

    /// The map with these edits. What is not edited is shared.
    #[must_use]
    pub fn with(&self, edits: impl IntoIterator<Item = Edit<K, V>>) -> Self {
        let mut edits = edits.into_iter().peekable();
        if edits.peek().is_none() {
            return self.clone();
        }
        let mut layer = (*self.layer).clone();
        for (key, value) in edits {
            if value.is_none() && !self.ground.contains_key(&key) {
                layer.remove(&key);
            } else {
                layer.insert(key, value);
            }
        }
        let layered = Self { ground: self.ground.clone(), layer: Arc::new(layer) };
        // A layer of n entries is copied n times while it grows to that, n² / 2 entries in all; a ground is copied once.
        let thick = layered.ground.len().saturating_mul(2).isqrt().max(THIN);
        if layered.layer.len() > thick {
            layered.iter().map(cloned).collect::<BTreeMap<_, _>>().into()
        } else {
            layered
        }
    }

    /// What leads from here to other entries, which are in order of their keys.
    pub fn edits_to<'a>(&'a self, others: impl Iterator<Item = (&'a K, &'a V)>) -> Vec<Edit<K, V>>
    where
        K: 'a,
        V: PartialEq + 'a,
    {
        edits(self.iter(), others, V::eq)
    }

    pub fn to_map(&self) -> BTreeMap<K, V> {
        self.iter().map(cloned).collect()
    }
}

/// What leads from some entries to others. Both are in order of their keys.
pub fn edits<'a, K: Ord + Clone + 'a, V: Clone + 'a>(
    before: impl Iterator<Item = (&'a K, &'a V)>,
    after: impl Iterator<Item = (&'a K, &'a V)>,
    same: impl Fn(&V, &V) -> bool,
) -> Vec<Edit<K, V>> {
    let mut edits = Vec::new();
    let (mut before, mut after) = (before.peekable(), after.peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return edits,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let old = if order == Ordering::Greater { None } else { before.next() };
        let new = if order == Ordering::Less { None } else { after.next() };
        match (old, new) {
            (Some((_, old)), Some((_, new))) if same(old, new) => {}
            (_, Some((key, new))) => edits.push((key.clone(), Some(new.clone()))),
            (Some((key, _)), None) => edits.push((key.clone(), None)),
            (None, None) => {}
        }
    }
}

fn cloned<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn states_are_as_plain_maps_would_be_and_keep_to_themselves(
            ground in prop::collection::btree_map(0_u8..200, any::<u8>(), 0..150),
            steps in prop::collection::vec(prop::collection::vec((0_u8..200, any::<Option<u8>>()), 0..40), 0..8),
        ) {
            let mut plain = vec![ground.clone()];
            let mut layered = vec![Layered::from(ground)];
            for step in &steps {
                let mut next = plain[plain.len() - 1].clone();
                for (key, value) in step {
                    match value {
                        Some(value) => _ = next.insert(*key, *value),
                        None => _ = next.remove(key),
                    }
                }
                layered.push(layered[layered.len() - 1].with(step.iter().copied()));
                plain.push(next);
            }
            let first = &plain[0];
            for (layered, plain) in layered.iter().zip(&plain) {
                prop_assert_eq!(&layered.to_map(), plain);
                for key in 0..200 {
                    prop_assert_eq!(layered.get(&key), plain.get(&key));
                }
                let edits = layered.edits_to(first.iter());
                prop_assert_eq!(&layered.with(edits).to_map(), first);
            }
        }
    }

    #[test]
    fn change_of_one_entry_shares_the_others() {
        let many = Layered::from((0..10_000).map(|n| (n, n)).collect::<BTreeMap<_, _>>());
        let next = many.with([(7, None), (8, Some(1))]);
        assert!(Arc::ptr_eq(&many.ground, &next.ground));
        assert_eq!((many.get(&7), next.get(&7), next.get(&8)), (Some(&7), None, Some(&1)));
    }
}
