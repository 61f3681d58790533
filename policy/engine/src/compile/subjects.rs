//! The local pods, and the classes that they are in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Books,
    class::{Class, Likeness, port_names},
    counter::Counter,
    difference::Difference,
    policies::{Policies, Version},
};
use crate::{
    evaluate::tiers,
    model::{ContainerPort, Direction, ObjectKey, Pod, Snapshot},
    tables::{ClassId, Owner, SubjectEntry},
};

#[derive(Debug)]
pub(super) struct Subjects {
    node: String,
    local: BTreeMap<ObjectKey, Subject>,
    classes: BTreeMap<ClassId, Class>,
    by_likeness: HashMap<Arc<Likeness>, ClassId>,
    next: Counter,
}

#[derive(Debug)]
struct Subject {
    pod: Arc<Pod>,
    egress: ClassId,
    ingress: ClassId,
}

/// Classes that came and went.
#[derive(Debug, Default)]
pub(super) struct ClassChange {
    pub(super) created: BTreeSet<ClassId>,
    pub(super) removed: Vec<ClassId>,
}

impl Subjects {
    pub(super) fn new(node: String, floor: u32) -> Self {
        Self {
            node,
            local: BTreeMap::new(),
            classes: BTreeMap::new(),
            by_likeness: HashMap::new(),
            next: Counter::from(floor.max(1)),
        }
    }

    pub(super) fn floor(&self) -> u32 {
        self.next.peek()
    }

    pub(super) fn classes_mut(&mut self) -> impl Iterator<Item = &mut Class> {
        self.classes.values_mut()
    }

    /// Takes in a new snapshot. `touched`: versions of policies that came or went.
    pub(super) fn update(
        &mut self,
        snapshot: &Snapshot,
        difference: &Difference,
        policies: &Policies,
        touched: &[Arc<Version>],
        books: &mut Books,
    ) -> ClassChange {
        let mut change = ClassChange::default();
        for key in self.affected(snapshot, difference, touched) {
            let local = |pod: &&Arc<Pod>| pod.takes_part() && pod.node == self.node;
            let pod = snapshot.pods.get(&key).filter(local).cloned();
            let subject = pod.map(|pod| {
                let selecting = policies.selecting(snapshot, &pod);
                let egress = self.enter(Direction::Egress, &selecting, &pod, &mut change, books);
                let ingress = self.enter(Direction::Ingress, &selecting, &pod, &mut change, books);
                Subject { pod, egress, ingress }
            });
            let entry = subject.as_ref().and_then(|subject| self.entry(subject, books));
            books.ledger.set_subject(key.clone(), entry);
            let before = match subject {
                Some(subject) => self.local.insert(key, subject),
                None => self.local.remove(&key),
            };
            for class in before.into_iter().flat_map(|subject| [subject.egress, subject.ingress]) {
                if let Some(class) = self.classes.get_mut(&class) {
                    class.members -= 1;
                }
            }
        }
        for (id, class) in self.classes.extract_if(.., |_, class| class.members == 0) {
            self.by_likeness.remove(&class.likeness);
            class.dissolve(&mut books.terms, &mut books.columns);
            change.created.remove(&id);
            change.removed.push(id);
        }
        change
    }

    /// Pods whose classes may be others now.
    fn affected(&self, snapshot: &Snapshot, difference: &Difference, touched: &[Arc<Version>]) -> BTreeSet<ObjectKey> {
        let is_local = |key: &&ObjectKey| {
            self.local.contains_key(*key) || snapshot.pods.get(*key).is_some_and(|pod| pod.node == self.node)
        };
        let mut affected: BTreeSet<ObjectKey> = difference.pods.iter().filter(is_local).cloned().collect();
        let concerned = |subject: &Subject| {
            difference.namespaces.contains(&subject.pod.namespace)
                || touched.iter().any(|version| version.selects(snapshot, &subject.pod))
        };
        let others = self.local.iter().filter(|(_, subject)| concerned(subject)).map(|(key, _)| key.clone());
        affected.extend(others);
        affected
    }

    /// Counts a pod into its class.
    fn enter(
        &mut self,
        direction: Direction,
        selecting: &[Arc<Version>],
        pod: &Pod,
        change: &mut ClassChange,
        books: &mut Books,
    ) -> ClassId {
        let policies: Vec<Arc<Version>> =
            selecting.iter().filter(|version| tiers::concerns(&version.policy, direction)).cloned().collect();
        let ports = match direction {
            Direction::Ingress => named_ports(&policies, pod),
            Direction::Egress => Vec::new(),
        };
        let likeness = Likeness { direction, policies, ports };
        let id = match self.by_likeness.get(&likeness) {
            Some(id) => *id,
            None => {
                let (id, likeness) = (ClassId(self.next.take()), Arc::new(likeness));
                let Books { terms, decisions, columns, .. } = books;
                self.classes.insert(id, Class::new(id, Arc::clone(&likeness), terms, decisions, columns));
                self.by_likeness.insert(likeness, id);
                change.created.insert(id);
                id
            }
        };
        if let Some(class) = self.classes.get_mut(&id) {
            class.members += 1;
        }
        id
    }

    fn entry(&self, subject: &Subject, books: &mut Books) -> Option<SubjectEntry> {
        let Subject { pod, egress, ingress } = subject;
        let owner = books.owners.id(Owner::Pod { key: pod.key(), uid: pod.uid.clone() });
        let (egress, ingress) = (self.classes.get(egress)?, self.classes.get(ingress)?);
        Some(SubjectEntry {
            owner,
            egress_class: egress.id,
            ingress_class: ingress.id,
            egress_default: egress.default,
            ingress_default: ingress.default,
        })
    }
}

/// What the port names in ingress rules can read of the subject.
fn named_ports(policies: &[Arc<Version>], pod: &Pod) -> Vec<ContainerPort> {
    let rules = policies.iter().flat_map(|version| &version.policy.rules);
    let names: BTreeSet<&str> =
        rules.filter(|rule| rule.direction == Direction::Ingress).flat_map(port_names).collect();
    let ports: BTreeSet<&ContainerPort> =
        pod.container_ports.iter().filter(|port| names.contains(port.name.as_str())).collect();
    ports.into_iter().cloned().collect()
}
