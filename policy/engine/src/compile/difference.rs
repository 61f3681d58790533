//! Which objects differ between two snapshots.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::{ObjectKey, PolicyKey, Snapshot};

/// Keys of objects that were added, removed or changed.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) namespaces: BTreeSet<String>,
    pub(super) pods: Vec<ObjectKey>,
    pub(super) nodes: Vec<String>,
    pub(super) services: Vec<ObjectKey>,
    pub(super) policies: BTreeSet<PolicyKey>,
    pub(super) names: bool,
    pub(super) pod_ranges: bool,
}

impl Difference {
    pub(super) fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let mut difference = Self {
            namespaces: changed(&old.namespaces, &new.namespaces).into_iter().collect(),
            pods: changed(&old.pods, &new.pods),
            nodes: changed(&old.nodes, &new.nodes),
            services: changed(&old.services, &new.services),
            policies: changed(&old.policies, &new.policies).into_iter().collect(),
            names: old.names != new.names,
            pod_ranges: old.pod_ranges != new.pod_ranges,
        };
        // A policy may become audited, or cease to be, without a change of its own: by its namespace or by `audit_all`.
        let audit = |snapshot: &Snapshot, name: &str| snapshot.namespaces.get(name).is_some_and(|n| n.audit);
        let turned: BTreeSet<&String> =
            difference.namespaces.iter().filter(|name| audit(old, name) != audit(new, name)).collect();
        if old.audit_all != new.audit_all {
            difference.policies.extend(new.policies.keys().cloned());
        } else if !turned.is_empty() {
            let turned = new.policies.keys().filter(|key| turned.contains(&key.namespace));
            difference.policies.extend(turned.cloned());
        }
        difference
    }
}

fn changed<K: Ord + Clone, V: PartialEq>(old: &BTreeMap<K, Arc<V>>, new: &BTreeMap<K, Arc<V>>) -> Vec<K> {
    let mut changed = Vec::new();
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return changed,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        match order {
            Ordering::Less => changed.extend(olds.next().map(|(key, _)| key.clone())),
            Ordering::Greater => changed.extend(news.next().map(|(key, _)| key.clone())),
            Ordering::Equal => {
                if let (Some((key, a)), Some((_, b))) = (olds.next(), news.next())
                    && !Arc::ptr_eq(a, b)
                    && a != b
                {
                    changed.push(key.clone());
                }
            }
        }
    }
}
