//! A persistent map: a shared base with a copy-on-write overlay. Old versions stay as they are, and the cost of a new one
//! depends on the number of changes, not on the size of the map.
//!
//! The overlay is copied from version to version. A large overlay is merged into a new base: often enough that copying
//! the overlay stays cheap, seldom enough that there are few bases.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

/// Entries that the overlay of a small map may have.
const LEAST_OVERLAY: usize = 32;

/// A key with its new value; `None` where it is removed.
pub type Edit<K, V> = (K, Option<V>);

#[derive(Clone, Debug)]
pub struct PersistentMap<K, V> {
    base: Arc<BTreeMap<K, V>>,
    overlay: Arc<BTreeMap<K, Option<V>>>,
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self { base: Arc::default(), overlay: Arc::default() }
    }
}

impl<K, V> From<BTreeMap<K, V>> for PersistentMap<K, V> {
    fn from(base: BTreeMap<K, V>) -> Self {
        Self { base: Arc::new(base), overlay: Arc::default() }
    }
}

impl<K: Ord + Clone, V: Clone> PersistentMap<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        match self.overlay.get(key) {
            Some(entry) => entry.as_ref(),
            None => self.base.get(key),
        }
    }

    /// In order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (mut under, mut over) = (self.base.iter().peekable(), self.overlay.iter().peekable());
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

    /// A new version with these edits; everything else is shared.
    #[must_use]
    pub fn with(&self, edits: impl IntoIterator<Item = Edit<K, V>>) -> Self {
        let mut edits = edits.into_iter().peekable();
        if edits.peek().is_none() {
            return self.clone();
        }
        let mut overlay = (*self.overlay).clone();
        for (key, value) in edits {
            if value.is_none() && !self.base.contains_key(&key) {
                overlay.remove(&key);
            } else {
                overlay.insert(key, value);
            }
        }
        let map = Self { base: self.base.clone(), overlay: Arc::new(overlay) };
        // An overlay of n entries is copied n times while it grows to that, n² / 2 entries in all; a base is copied once.
        let most = map.base.len().saturating_mul(2).isqrt().max(LEAST_OVERLAY);
        if map.overlay.len() > most { map.iter().map(cloned).collect::<BTreeMap<_, _>>().into() } else { map }
    }

    /// The edits that lead from this map to other entries, which are in order of their keys.
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

/// The edits that lead from some entries to others. Both are in order of their keys.
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
        fn versions_are_as_plain_maps_would_be_and_do_not_change_each_other(
            base in prop::collection::btree_map(0_u8..200, any::<u8>(), 0..150),
            steps in prop::collection::vec(prop::collection::vec((0_u8..200, any::<Option<u8>>()), 0..40), 0..8),
        ) {
            let mut plain = vec![base.clone()];
            let mut maps = vec![PersistentMap::from(base)];
            for step in &steps {
                let mut next = plain[plain.len() - 1].clone();
                for (key, value) in step {
                    match value {
                        Some(value) => _ = next.insert(*key, *value),
                        None => _ = next.remove(key),
                    }
                }
                maps.push(maps[maps.len() - 1].with(step.iter().copied()));
                plain.push(next);
            }
            let first = &plain[0];
            for (map, plain) in maps.iter().zip(&plain) {
                prop_assert_eq!(&map.to_map(), plain);
                for key in 0..200 {
                    prop_assert_eq!(map.get(&key), plain.get(&key));
                }
                let edits = map.edits_to(first.iter());
                prop_assert_eq!(&map.with(edits).to_map(), first);
            }
        }
    }

    #[test]
    fn change_of_one_entry_shares_the_others() {
        let many = PersistentMap::from((0..10_000).map(|n| (n, n)).collect::<BTreeMap<_, _>>());
        let next = many.with([(7, None), (8, Some(1))]);
        assert!(Arc::ptr_eq(&many.base, &next.base));
        assert_eq!((many.get(&7), next.get(&7), next.get(&8)), (Some(&7), None, Some(&1)));
    }
}
