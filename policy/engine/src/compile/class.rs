//! Subject classes: local pods with equal rules, and the outcome of those rules for each identity.

use std::sync::Arc;

use super::{
    class_key::ClassKey,
    class_rules::ClassRules,
    columns::Columns,
    hashing::QuickMap,
    outcome,
    output::CompilerOutput,
    view::{PeerFacts, PeerView},
};
use crate::tables::{ClassId, IdentityId, Outcome};

/// Local pods that every rule treats alike in one direction.
#[derive(Debug)]
pub(super) struct Class {
    /// 0 until it is known whether it keeps the id of the class that it comes from.
    pub(super) id: ClassId,
    pub(super) key: Arc<ClassKey>,
    /// How many pods are in it.
    pub(super) members: usize,
    /// The outcome for identities that no rule can tell from the world.
    pub(super) default: Outcome,
    pub(super) rules: ClassRules,
    views: ViewTable,
    /// The views of the other identities; sorted.
    view_by_identity: Vec<(IdentityId, ViewId)>,
}

/// Position in [`ViewTable`]; a free one is used again.
pub(super) type ViewId = usize;

/// The distinct views of a class, reference-counted by the identities that have each.
#[derive(Debug, Default)]
struct ViewTable {
    ids: QuickMap<Arc<PeerView>, ViewId>,
    entries: Vec<Option<ViewEntry>>,
}

#[derive(Debug)]
struct ViewEntry {
    view: Arc<PeerView>,
    outcome: Outcome,
    identities: usize,
}

impl Class {
    /// A class in which nothing is evaluated yet.
    pub(super) fn new(key: Arc<ClassKey>, output: &mut CompilerOutput) -> Self {
        let rules = ClassRules::new(&key, &mut output.policy_rules, &mut output.terms);
        let default = Outcome::Column(Default::default());
        let (views, view_by_identity) = (ViewTable::default(), Vec::new());
        Self { id: ClassId(0), key, members: 0, default, rules, views, view_by_identity }
    }

    pub(super) fn view_by_identity(&self) -> &[(IdentityId, ViewId)] {
        &self.view_by_identity
    }

    pub(super) fn view(&self, id: ViewId) -> Option<&Arc<PeerView>> {
        self.views.entries[id].as_ref().map(|entry| &entry.view)
    }

    pub(super) fn outcome(&self, view: ViewId) -> Outcome {
        self.views.entries[view].as_ref().map_or(self.default, |entry| entry.outcome)
    }

    /// One more than the highest [`ViewId`].
    pub(super) fn view_count(&self) -> usize {
        self.views.entries.len()
    }

    /// All its outcomes; some more than once.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.views.entries.iter().flatten().map(|entry| entry.outcome).chain([self.default])
    }

    pub(super) fn outcome_for(&self, identity: IdentityId) -> Outcome {
        match self.view_by_identity.binary_search_by_key(&identity, |(id, _)| *id) {
            Ok(position) => self.outcome(self.view_by_identity[position].1),
            Err(_) => self.default,
        }
    }

    pub(super) fn evaluate_default(&mut self, output: &mut CompilerOutput) {
        self.default = self.evaluate(&PeerView::plain(), output);
    }

    pub(super) fn set_default(&mut self, default: Outcome, columns: &mut Columns) {
        columns.retain_outcome(default);
        self.default = default;
    }

    /// The view of an identity, evaluated if it is new; `None` where these rules cannot tell it from the world.
    pub(super) fn view_of(&mut self, peer: &PeerFacts<'_>, output: &mut CompilerOutput) -> Option<ViewId> {
        let view = PeerView::new(&self.rules, peer)?;
        Some(self.view_id(Arc::new(view), None, output))
    }

    /// The id of a view. `outcome`: `None` where it is to be evaluated.
    pub(super) fn view_id(
        &mut self,
        view: Arc<PeerView>,
        outcome: Option<Outcome>,
        output: &mut CompilerOutput,
    ) -> ViewId {
        if let Some(id) = self.views.ids.get(&view) {
            return *id;
        }
        let outcome = match outcome {
            Some(outcome) => {
                output.columns.retain_outcome(outcome);
                outcome
            }
            None => self.evaluate(&view, output),
        };
        self.views.insert(view, outcome)
    }

    /// Adds identities. They are sorted, and each is higher than all that are there.
    pub(super) fn extend(&mut self, more: impl IntoIterator<Item = (IdentityId, ViewId)>) {
        for (identity, view) in more {
            if let Some(entry) = &mut self.views.entries[view] {
                entry.identities += 1;
            }
            self.view_by_identity.push((identity, view));
        }
    }

    /// Removes identities.
    pub(super) fn remove(&mut self, gone: impl Fn(IdentityId) -> bool, columns: &mut Columns) {
        let views = &mut self.views;
        self.view_by_identity.retain(|(identity, view)| {
            let stays = !gone(*identity);
            if !stays {
                views.release(*view, columns);
            }
            stays
        });
    }

    /// To be called when the class is removed.
    pub(super) fn release(self, columns: &mut Columns) {
        self.outcomes().for_each(|outcome| columns.release(outcome));
    }

    fn evaluate(&self, view: &PeerView, output: &mut CompilerOutput) -> Outcome {
        outcome::evaluate(&self.rules, &self.key, view, &mut output.decisions, &mut output.columns)
    }
}

impl ViewTable {
    fn insert(&mut self, view: Arc<PeerView>, outcome: Outcome) -> ViewId {
        let free =
            if self.ids.len() < self.entries.len() { self.entries.iter().position(Option::is_none) } else { None };
        let id = free.unwrap_or(self.entries.len());
        let entry = ViewEntry { view: Arc::clone(&view), outcome, identities: 0 };
        match free {
            Some(free) => self.entries[free] = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        self.ids.insert(view, id);
        id
    }

    fn release(&mut self, id: ViewId, columns: &mut Columns) {
        let Some(entry) = &mut self.entries[id] else { return };
        entry.identities -= 1;
        if entry.identities == 0 {
            columns.release(entry.outcome);
            self.ids.remove(&entry.view);
            self.entries[id] = None;
        }
    }
}
