//! The pods of a snapshot, indexed by namespace, label and address, so that a selector does not scan all of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use netverdict_policy::model::{NamespaceScope, Operator, Pod, Selector, Snapshot};

use crate::selector::matches;

pub(super) struct PodIndex<'a> {
    snapshot: &'a Snapshot,
    /// Pods that policies can select, by namespace.
    by_namespace: BTreeMap<&'a str, Vec<&'a Pod>>,
    by_label: HashMap<(&'a str, &'a str), Vec<&'a Pod>>,
    by_address: HashMap<IpAddr, &'a Pod>,
    /// Running pods on the host's network, by namespace.
    on_host: BTreeMap<&'a str, Vec<&'a Pod>>,
}

impl<'a> PodIndex<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let mut index = Self {
            snapshot,
            by_namespace: BTreeMap::new(),
            by_label: HashMap::new(),
            by_address: HashMap::new(),
            on_host: BTreeMap::new(),
        };
        for pod in snapshot.pods.values() {
            if pod.takes_part() {
                index.by_namespace.entry(&pod.namespace).or_default().push(pod);
                index.by_address.extend(pod.addresses.iter().map(|address| (*address, pod.as_ref())));
                for (key, value) in &pod.labels {
                    index.by_label.entry((key, value)).or_default().push(pod);
                }
            } else if pod.host_network {
                index.on_host.entry(&pod.namespace).or_default().push(pod);
            }
        }
        index
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a Pod> {
        self.by_namespace.values().flatten().copied()
    }

    /// The pod that has the address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&'a Pod> {
        self.by_address.get(&address).copied()
    }

    /// The pods that are selected.
    pub(super) fn select(&self, scope: &NamespaceScope, pods: &Selector) -> impl Iterator<Item = &'a Pod> {
        let by_label = match scope {
            NamespaceScope::Named(_) => None,
            NamespaceScope::Selected(_) => {
                pods.requirements.iter().find_map(|requirement| match &requirement.operator {
                    Operator::In(values) => Some((requirement.key.as_str(), values)),
                    Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
                })
            }
        };
        let namespaces = self.namespaces(scope);
        let candidates: Vec<&'a Pod> = match by_label {
            Some((key, values)) => {
                let labelled = values.iter().filter_map(|value| self.by_label.get(&(key, value.as_str()))).flatten();
                labelled.copied().filter(|pod| namespaces.contains(&pod.namespace.as_str())).collect()
            }
            None => namespaces.iter().filter_map(|name| self.by_namespace.get(name)).flatten().copied().collect(),
        };
        let pods = pods.clone();
        candidates.into_iter().filter(move |pod| matches(&pods, &pod.labels))
    }

    /// Pods on the host's network whose labels match. No policy applies to them (E-5).
    pub(super) fn select_on_host(&self, scope: &NamespaceScope, pods: &Selector) -> Vec<&'a Pod> {
        let namespaces = self.namespaces(scope);
        let pods_there = namespaces.iter().filter_map(|name| self.on_host.get(name)).flatten().copied();
        pods_there.filter(|pod| matches(pods, &pod.labels)).collect()
    }

    /// Names of the namespaces in scope, sorted.
    pub(super) fn namespaces(&self, scope: &NamespaceScope) -> BTreeSet<&'a str> {
        let all = self.snapshot.namespaces.iter();
        all.filter(|(name, namespace)| match scope {
            NamespaceScope::Named(only) => *name == only,
            NamespaceScope::Selected(selector) => matches(selector, &namespace.labels),
        })
        .map(|(name, _)| name.as_str())
        .collect()
    }
}
