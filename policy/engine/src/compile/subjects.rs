//! The local pods and their classes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    class::Class,
    class_key::ClassKey,
    counter::Counter,
    difference::Difference,
    hashing::QuickMap,
    output::CompilerOutput,
    policies::{Policies, Version, VersionChange},
    policy_rules::port_names,
};
use crate::{
    evaluate::tiers,
    model::{ContainerPort, Direction, ObjectKey, Pod, Snapshot, Tier},
    tables::{ClassId, Owner, OwnerId, SubjectEntry},
};

/// Where a class is kept. Not its [`ClassId`], which may have been another class's before.
pub(super) type Slot = u32;

#[derive(Debug)]
pub(super) struct Subjects {
    node: String,
    local: QuickMap<ObjectKey, Subject>,
    classes: QuickMap<Slot, Class>,
    class_by_key: QuickMap<Arc<ClassKey>, Slot>,
    next_slot: Counter,
    next: Counter,
}

#[derive(Debug)]
struct Subject {
    pod: Arc<Pod>,
    owner: OwnerId,
    /// Policies, in order of evaluation.
    selecting: Vec<Arc<Version>>,
    egress: Slot,
    ingress: Slot,
}

/// Which pods may be in other classes, and which classes are new or removed.
#[derive(Debug, Default)]
pub(super) struct ClassChange {
    /// Pods that may be in other classes than before.
    pub(super) affected: BTreeSet<ObjectKey>,
    /// New classes, each with the class that its first member comes from. Nothing is evaluated in them yet.
    pub(super) created: Vec<(Slot, Option<Slot>)>,
    /// Classes without members.
    pub(super) removed: BTreeMap<Slot, Class>,
}

impl Subjects {
    pub(super) fn new(node: String, floor: u32) -> Self {
        Self {
            node,
            local: QuickMap::default(),
            classes: QuickMap::default(),
            class_by_key: QuickMap::default(),
            next_slot: Counter::from(0),
            next: Counter::from(floor.max(1)),
        }
    }

    pub(super) fn floor(&self) -> u32 {
        self.next.peek()
    }

    /// The entry and the class of a local pod, for a lookup.
    pub(super) fn find(&self, key: &ObjectKey, direction: Direction) -> Option<(OwnerId, &Class)> {
        let subject = self.local.get(key)?;
        Some((subject.owner, self.classes.get(&subject.slot(direction))?))
    }

    pub(super) fn next_id(&mut self) -> ClassId {
        ClassId(self.next.take())
    }

    pub(super) fn classes(&self) -> &QuickMap<Slot, Class> {
        &self.classes
    }

    pub(super) fn classes_mut(&mut self) -> &mut QuickMap<Slot, Class> {
        &mut self.classes
    }

    /// Brings pods and classes up to date with a new snapshot.
    pub(super) fn update(
        &mut self,
        snapshot: &Snapshot,
        difference: &Difference,
        policies: &Policies,
        versions: &VersionChange,
        output: &mut CompilerOutput,
    ) -> ClassChange {
        let affected = self.affected(snapshot, difference, versions);
        let mut change = ClassChange::default();
        let mut emptied = BTreeSet::new();
        for key in &affected {
            let local = |pod: &&Arc<Pod>| pod.takes_part() && pod.node == self.node;
            let before = self.local.remove(key);
            if let Some(pod) = snapshot.pods.get(key).filter(local).cloned() {
                let known = before.as_ref().filter(|subject| {
                    Arc::ptr_eq(&subject.pod, &pod) && !difference.namespaces.contains(&pod.namespace)
                });
                let selecting = match known {
                    Some(subject) => Policies::update_selecting(&subject.selecting, versions, snapshot, &pod),
                    None => policies.selecting(snapshot, &pod),
                };
                let [egress, ingress] = [Direction::Egress, Direction::Ingress].map(|direction| {
                    let from = before.as_ref().map(|subject| subject.slot(direction));
                    self.add_to_class(direction, &selecting, &pod, from, &mut change, output)
                });
                let owner = match &before {
                    Some(subject) if subject.pod.uid == pod.uid => subject.owner,
                    _ => output.owners.id(Owner::Pod { key: key.clone(), uid: pod.uid.clone() }),
                };
                self.local.insert(key.clone(), Subject { pod, owner, selecting, egress, ingress });
            }
            for slot in before.into_iter().flat_map(|subject| [subject.egress, subject.ingress]) {
                if let Some(class) = self.classes.get_mut(&slot) {
                    class.members -= 1;
                    if class.members == 0 {
                        emptied.insert(slot);
                    }
                }
            }
        }
        for slot in emptied {
            let Some(class) = self.classes.remove(&slot) else { continue };
            if class.members > 0 {
                self.classes.insert(slot, class);
                continue;
            }
            self.class_by_key.remove(&class.key);
            class.rules.release(class.key.direction, &mut output.policy_rules, &mut output.terms);
            change.removed.insert(slot, class);
        }
        change.affected = affected;
        change
    }

    /// Writes the entries of these pods, once their classes have their ids.
    pub(super) fn publish(&self, affected: BTreeSet<ObjectKey>, output: &mut CompilerOutput) {
        for key in affected {
            let entry = self.local.get(&key).and_then(|subject| self.entry(subject));
            output.tracked.set_subject(key, entry);
        }
    }

    /// Pods whose classes may have changed.
    fn affected(&self, snapshot: &Snapshot, difference: &Difference, versions: &VersionChange) -> BTreeSet<ObjectKey> {
        let is_local = |key: &&ObjectKey| {
            self.local.contains_key(*key) || snapshot.pods.get(*key).is_some_and(|pod| pod.node == self.node)
        };
        let mut affected: BTreeSet<ObjectKey> = difference.pods.iter().filter(is_local).cloned().collect();
        let concerned = |subject: &Subject| {
            difference.namespaces.contains(&subject.pod.namespace) || versions.selects(snapshot, &subject.pod)
        };
        let others = self.local.iter().filter(|(_, subject)| concerned(subject)).map(|(key, _)| key.clone());
        affected.extend(others);
        affected
    }

    /// Adds a pod to its class. `from`: the class that it comes from.
    fn add_to_class(
        &mut self,
        direction: Direction,
        selecting: &[Arc<Version>],
        pod: &Pod,
        from: Option<Slot>,
        change: &mut ClassChange,
        output: &mut CompilerOutput,
    ) -> Slot {
        let policies = relevant_policies(selecting, direction);
        let ports = match direction {
            Direction::Ingress => named_ports(&policies, pod),
            Direction::Egress => Vec::new(),
        };
        let class_key = ClassKey { direction, policies, ports };
        let slot = match self.class_by_key.get(&class_key) {
            Some(slot) => *slot,
            None => {
                let (slot, class_key) = (self.next_slot.take(), Arc::new(class_key));
                self.classes.insert(slot, Class::new(Arc::clone(&class_key), output));
                self.class_by_key.insert(class_key, slot);
                change.created.push((slot, from));
                slot
            }
        };
        if let Some(class) = self.classes.get_mut(&slot) {
            class.members += 1;
        }
        slot
    }

    fn entry(&self, subject: &Subject) -> Option<SubjectEntry> {
        let (egress, ingress) = (self.classes.get(&subject.egress)?, self.classes.get(&subject.ingress)?);
        Some(SubjectEntry {
            owner: subject.owner,
            egress_class: egress.id,
            ingress_class: ingress.id,
            egress_default: egress.default,
            ingress_default: ingress.default,
        })
    }
}

impl Subject {
    fn slot(&self, direction: Direction) -> Slot {
        match direction {
            Direction::Egress => self.egress,
            Direction::Ingress => self.ingress,
        }
    }
}

/// Of the policies that select a pod, the ones that can decide in one direction. Baseline is never reached where a network
/// policy isolates; but audited policies stay, since every decision has the verdict that they would give.
fn relevant_policies(selecting: &[Arc<Version>], direction: Direction) -> Vec<Arc<Version>> {
    let concerning = || selecting.iter().filter(|version| tiers::concerns(&version.policy, direction));
    let isolated = concerning().any(|version| version.policy.tier == Tier::NetworkPolicy && !version.audited);
    let unreachable = |version: &Version| isolated && version.policy.tier == Tier::Baseline && !version.audited;
    concerning().filter(|version| !unreachable(version)).cloned().collect()
}

/// The subject's container ports that ingress rules name.
fn named_ports(policies: &[Arc<Version>], pod: &Pod) -> Vec<ContainerPort> {
    let rules = policies.iter().flat_map(|version| &version.policy.rules);
    let names: BTreeSet<&str> =
        rules.filter(|rule| rule.direction == Direction::Ingress).flat_map(port_names).collect();
    let ports: BTreeSet<&ContainerPort> =
        pod.container_ports.iter().filter(|port| names.contains(port.name.as_str())).collect();
    ports.into_iter().cloned().collect()
}
