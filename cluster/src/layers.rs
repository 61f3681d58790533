//! The objects of several sources, laid over one another: of equal identities, the object of the highest layer counts.
//!
//! Objects are kept by origin (layer, scope, key), and found by identity. Their content is not read.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use netverdict_manifest::Object;

use crate::{
    identity::ObjectIdentity,
    kept::KeptObject,
    source::{Change, Fault, Key, Layer, Location, Scope},
};

#[derive(Debug, Default)]
pub struct Layers {
    scopes: BTreeMap<(Layer, Scope), BTreeMap<Key, Arc<KeptObject>>>,
    /// All objects of an identity, sorted by origin; the last one counts. It is one, as a rule.
    same: HashMap<ObjectIdentity, Vec<(Origin, Arc<KeptObject>)>>,
    faults: BTreeMap<(Layer, Scope, Option<Key>), Vec<Fault>>,
}

/// Where an object comes from, in order of precedence.
type Origin = (Layer, Location);

impl Layers {
    /// Applies changes of the source that is `layer`. Returns the identities that another object may now count for.
    pub fn apply(&mut self, layer: Layer, changes: Vec<Change>) -> HashSet<ObjectIdentity> {
        let mut touched = HashSet::new();
        for change in changes {
            match change {
                Change::Put(location, object) => self.put(layer, location, object, &mut touched),
                Change::Delete(location) => self.delete(layer, location, &mut touched),
                Change::Retain(scope, keys) => {
                    let held = self.scopes.get(&(layer, scope.clone()));
                    let gone: Vec<Key> =
                        held.into_iter().flat_map(BTreeMap::keys).filter(|key| !keys.contains(*key)).cloned().collect();
                    for key in gone {
                        self.delete(layer, Location::new(&scope, key), &mut touched);
                    }
                    self.faults.retain(|(of, within, key), _| {
                        *of != layer || *within != scope || key.as_ref().is_none_or(|key| keys.contains(key))
                    });
                }
                Change::Fault(scope, key, faults) if faults.is_empty() => _ = self.faults.remove(&(layer, scope, key)),
                Change::Fault(scope, key, faults) => _ = self.faults.insert((layer, scope, key), faults),
            }
        }
        touched
    }

    /// The object that counts.
    pub(crate) fn get(&self, identity: &ObjectIdentity) -> Option<&Arc<KeptObject>> {
        self.same.get(identity)?.last().map(|(_, object)| object)
    }

    /// Faults in reading, by source and scope.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.values().flatten()
    }

    /// All objects, in order of layer, scope and key, without objects that a higher layer has too. Of an object that one
    /// layer has twice both are there.
    pub fn into_objects(self) -> Vec<Object> {
        let Self { scopes, same, .. } = self;
        let highest: HashMap<ObjectIdentity, Layer> =
            same.into_iter().filter_map(|(identity, origins)| Some((identity, origins.last()?.0.0))).collect();
        let all = scopes
            .into_iter()
            .flat_map(|((layer, _), objects)| objects.into_values().map(move |object| (layer, object.whole())));
        let counting = all.filter(|(layer, object)| highest.get(&ObjectIdentity::of(object)) == Some(layer));
        counting.map(|(_, object)| object).collect()
    }

    fn put(&mut self, layer: Layer, location: Location, object: Object, touched: &mut HashSet<ObjectIdentity>) {
        let Location { scope, key } = location.clone();
        self.faults.remove(&(layer, scope.clone(), Some(key.clone())));
        let held = self.scopes.entry((layer, scope)).or_default();
        let object = KeptObject::new(object);
        // Equal content need not be read again.
        if held.get(&key).is_some_and(|known| known.says_the_same(&object)) {
            return;
        }
        let object = Arc::new(object);
        let before = held.insert(key, object.clone());
        let identity = ObjectIdentity::of(object.head());
        let origin = (layer, location);
        if let Some(before) = before {
            let former = ObjectIdentity::of(before.head());
            if former != identity {
                self.forget(former, &origin, touched);
            }
        }
        let origins = self.same.entry(identity.clone()).or_insert_with(|| Vec::with_capacity(1));
        match place(origins, &origin) {
            Ok(index) => origins[index].1 = object,
            Err(index) => origins.insert(index, (origin, object)),
        }
        touched.insert(identity);
    }

    fn delete(&mut self, layer: Layer, location: Location, touched: &mut HashSet<ObjectIdentity>) {
        let Location { scope, key } = location.clone();
        self.faults.remove(&(layer, scope.clone(), Some(key.clone())));
        let scope = (layer, scope);
        let Some(held) = self.scopes.get_mut(&scope) else { return };
        let before = held.remove(&key);
        if held.is_empty() {
            self.scopes.remove(&scope);
        }
        if let Some(before) = before {
            self.forget(ObjectIdentity::of(before.head()), &(layer, location), touched);
        }
    }

    fn forget(&mut self, identity: ObjectIdentity, origin: &Origin, touched: &mut HashSet<ObjectIdentity>) {
        if let Some(origins) = self.same.get_mut(&identity) {
            if let Ok(index) = place(origins, origin) {
                origins.remove(index);
            }
            if origins.is_empty() {
                self.same.remove(&identity);
            }
        }
        touched.insert(identity);
    }
}

/// Where an origin is, or belongs.
fn place(origins: &[(Origin, Arc<KeptObject>)], origin: &Origin) -> Result<usize, usize> {
    origins.binary_search_by(|(known, _)| known.cmp(origin))
}

#[cfg(test)]
mod tests;
