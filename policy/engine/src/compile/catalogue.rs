//! Meanings of attribution ids and owner ids.

use std::{collections::HashMap, mem, sync::Arc};

use super::{
    counter::Counter,
    hashing::{QuickMap, QuickSet},
};
use crate::{
    decision::{AttributionId, Confidence, Decision, Reason, Role, Verdict},
    model::Tier,
    tables::{Owner, OwnerId},
};

/// Fewer new entries than this are not worth an eviction.
const LEAST_NEW: usize = 4_096;

/// A decision with numbers in the place of policies and rules: cheap to make and to compare.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DecisionKey {
    pub(super) verdict: Verdict,
    pub(super) verdict_if_enforced: Option<Verdict>,
    pub(super) reason: Reason,
    pub(super) tier: Option<Tier>,
    pub(super) confidence: Confidence,
    /// Version of a policy and position of the rule in it.
    pub(super) references: Vec<(Role, u32, Option<usize>)>,
}

#[derive(Debug)]
struct Meaning<V> {
    value: Arc<V>,
    /// It was in no table at the last eviction.
    idle: bool,
}

impl<V> Meaning<V> {
    fn new(value: Arc<V>) -> Self {
        Self { value, idle: false }
    }

    /// An entry that is idle twice is evicted: an entry that has just left the tables may still be looked up.
    fn is_kept(&mut self, used: bool) -> bool {
        let idle = mem::replace(&mut self.idle, !used);
        used || !idle
    }
}

/// When to evict: once as many entries are new as were in use at the last eviction. So at most twice as many are kept as
/// are in use.
#[derive(Debug)]
struct Limit(usize);

impl Limit {
    fn is_passed(&self, entries: usize) -> bool {
        entries > self.0
    }

    fn set(&mut self, entries: usize, used: usize) {
        self.0 = entries + LEAST_NEW.max(used);
    }
}

#[derive(Debug)]
pub(super) struct Decisions {
    ids: QuickMap<DecisionKey, AttributionId>,
    meanings: QuickMap<AttributionId, Meaning<Decision>>,
    /// Since the last change was taken out.
    new: Vec<AttributionId>,
    limit: Limit,
    /// Two decisions had the same hash. Then nothing is evicted, or an id could be given to a third decision.
    collided: bool,
}

impl Default for Decisions {
    fn default() -> Self {
        let (ids, meanings) = (QuickMap::default(), QuickMap::default());
        Self { ids, meanings, new: Vec::new(), limit: Limit(LEAST_NEW), collided: false }
    }
}

impl Decisions {
    pub(super) fn get(&self, id: AttributionId) -> Option<&Arc<Decision>> {
        self.meanings.get(&id).map(|meaning| &meaning.value)
    }

    /// The id of a decision. `decision` is called only if the key is new.
    pub(super) fn id_by_key(&mut self, key: DecisionKey, decision: impl FnOnce() -> Decision) -> AttributionId {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = self.id(decision());
        self.ids.insert(key, id);
        id
    }

    pub(super) fn id(&mut self, decision: Decision) -> AttributionId {
        let mut salt = 0;
        loop {
            let id = AttributionId::of(&decision, salt);
            match self.meanings.get(&id) {
                Some(known) if *known.value == decision => return id,
                Some(_) => self.collided = true,
                None => {
                    self.meanings.insert(id, Meaning::new(Arc::new(decision)));
                    self.new.push(id);
                    return id;
                }
            }
            salt += 1;
        }
    }

    pub(super) fn take_new(&mut self) -> Vec<(AttributionId, Decision)> {
        let new = mem::take(&mut self.new);
        new.into_iter().filter_map(|id| Some((id, Decision::clone(self.get(id)?)))).collect()
    }

    pub(super) fn is_full(&self) -> bool {
        self.limit.is_passed(self.meanings.len().max(self.ids.len()))
    }

    /// Evicts entries that have not been used for long. `versions`: of the policies in force.
    pub(super) fn evict(&mut self, used: &QuickSet<AttributionId>, versions: &QuickSet<u32>) {
        if !self.collided {
            self.meanings.retain(|id, meaning| meaning.is_kept(used.contains(id)));
        }
        let is_current = |key: &DecisionKey| key.references.iter().all(|(_, version, _)| versions.contains(version));
        self.ids.retain(|key, id| self.meanings.contains_key(id) && is_current(key));
        self.meanings.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.limit.set(self.meanings.len().max(self.ids.len()), used.len());
    }
}

#[derive(Debug)]
pub(super) struct Owners {
    ids: HashMap<Arc<Owner>, OwnerId>,
    meanings: QuickMap<OwnerId, Meaning<Owner>>,
    next: Counter,
    new: Vec<OwnerId>,
    limit: Limit,
}

impl Owners {
    pub(super) fn new(floor: u32) -> Self {
        let (ids, meanings) = (HashMap::new(), QuickMap::default());
        Self { ids, meanings, next: Counter::from(floor), new: Vec::new(), limit: Limit(LEAST_NEW) }
    }

    pub(super) fn get(&self, id: OwnerId) -> Option<&Owner> {
        self.meanings.get(&id).map(|meaning| &*meaning.value)
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
        self.meanings.insert(id, Meaning::new(Arc::clone(&owner)));
        self.ids.insert(owner, id);
        self.new.push(id);
        id
    }

    pub(super) fn take_new(&mut self) -> Vec<(OwnerId, Owner)> {
        let new = mem::take(&mut self.new);
        new.into_iter().filter_map(|id| Some((id, self.get(id)?.clone()))).collect()
    }

    pub(super) fn floor(&self) -> u32 {
        self.next.peek()
    }

    pub(super) fn is_full(&self) -> bool {
        self.limit.is_passed(self.meanings.len())
    }

    /// Evicts entries that have not been used for long.
    pub(super) fn evict(&mut self, used: &QuickSet<OwnerId>) {
        self.meanings.retain(|id, meaning| meaning.is_kept(used.contains(id)));
        self.ids.retain(|_, id| self.meanings.contains_key(id));
        self.meanings.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.limit.set(self.meanings.len(), used.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectKey;

    fn decision(number: usize) -> Decision {
        Decision {
            verdict: Verdict::Denied,
            verdict_if_enforced: None,
            reason: Reason::IsolatedNoMatch,
            tier: None,
            confidence: Confidence::Exact,
            references: vec![crate::decision::Reference {
                role: Role::Isolating,
                policy: crate::model::PolicyKey {
                    kind: "NetworkPolicy".into(),
                    namespace: "shop".into(),
                    name: number.to_string(),
                },
                uid: String::new(),
                generation: 1,
                content_hash: String::new(),
                tier: Tier::NetworkPolicy,
                rule_index: None,
                rule_name: String::new(),
                action: None,
            }],
        }
    }

    #[test]
    fn decisions_do_not_pile_up_and_the_last_ones_stay_known() {
        let mut decisions = Decisions::default();
        let for_good = decisions.id(decision(0));
        let mut last = for_good;
        for number in 1..10 * LEAST_NEW {
            let id = decisions.id(decision(number));
            if decisions.is_full() {
                decisions.evict(&QuickSet::from_iter([for_good, id]), &QuickSet::default());
                assert!(decisions.get(last).is_some(), "it was in use until now");
            }
            last = id;
        }
        assert!(decisions.get(for_good).is_some());
        assert!(decisions.meanings.len() < 4 * LEAST_NEW, "{} are kept", decisions.meanings.len());
    }

    #[test]
    fn owners_do_not_pile_up_and_are_never_called_by_the_id_of_another() {
        let owner = |number: u32| Owner::Pod { key: ObjectKey::new("shop", "web-0"), uid: number.to_string() };
        let mut owners = Owners::new(1);
        let first = owners.id(owner(0));
        for number in 1..40_000 {
            let id = owners.id(owner(number));
            if owners.is_full() {
                owners.evict(&QuickSet::from_iter([id]));
            }
        }
        assert!(owners.meanings.len() < 4 * LEAST_NEW, "{} are kept", owners.meanings.len());
        assert_eq!((owners.get(first), owners.find(&owner(0))), (None, None));
        assert!(owners.id(owner(0)) > first);
    }
}
