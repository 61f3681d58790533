//! Subject classes: what their policies conclude of each identity.

use std::sync::Arc;

use super::{
    Books,
    columns::Columns,
    hashing::QuickMap,
    judging,
    policies::Version,
    scripts::{Script, Scripts},
    terms::{TermId, Terms},
    view::{Look, View},
};
use crate::{
    model::{ContainerPort, Direction, Tier},
    tables::{ClassId, IdentityId, Outcome},
};

/// Local pods that every rule treats alike in one direction.
#[derive(Debug)]
pub(super) struct Class {
    /// 0 until it is known whether it takes over another's.
    pub(super) id: ClassId,
    pub(super) likeness: Arc<Likeness>,
    /// Pods in it.
    pub(super) members: usize,
    /// For identities of which no rule reads anything, the world for one.
    pub(super) default: Outcome,
    pub(super) rules: Rules,
    views: Views,
    /// How the identities look that do not look like the world; sorted.
    viewed: Vec<(IdentityId, ViewId)>,
}

/// What makes pods alike.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Likeness {
    pub(super) direction: Direction,
    /// In order of evaluation.
    pub(super) policies: Vec<Arc<Version>>,
    /// Container ports of the subject whose names its ingress rules use; sorted. Empty for egress.
    pub(super) ports: Vec<ContainerPort>,
}

/// Position in [`Views`]; used again.
pub(super) type ViewId = usize;

/// Counted by the identities that look so.
#[derive(Debug, Default)]
struct Views {
    ids: QuickMap<Arc<View>, ViewId>,
    seen: Vec<Option<Seen>>,
}

#[derive(Debug)]
struct Seen {
    view: Arc<View>,
    outcome: Outcome,
    identities: usize,
}

impl Class {
    /// Nothing is judged yet.
    pub(super) fn new(likeness: Arc<Likeness>, scripts: &mut Scripts, terms: &mut Terms) -> Self {
        let rules = Rules::new(&likeness, scripts, terms);
        let default = Outcome::Column(Default::default());
        let (views, viewed) = (Views::default(), Vec::new());
        Self { id: ClassId(0), likeness, members: 0, default, rules, views, viewed }
    }

    pub(super) fn viewed(&self) -> &[(IdentityId, ViewId)] {
        &self.viewed
    }

    pub(super) fn view(&self, id: ViewId) -> Option<&Arc<View>> {
        self.views.seen[id].as_ref().map(|seen| &seen.view)
    }

    pub(super) fn outcome(&self, view: ViewId) -> Outcome {
        self.views.seen[view].as_ref().map_or(self.default, |seen| seen.outcome)
    }

    pub(super) fn views(&self) -> usize {
        self.views.seen.len()
    }

    /// Everything that it concludes.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.views.seen.iter().flatten().map(|seen| seen.outcome).chain([self.default])
    }

    /// What it concludes of an identity.
    pub(super) fn conclusion(&self, identity: IdentityId) -> Outcome {
        match self.viewed.binary_search_by_key(&identity, |(id, _)| *id) {
            Ok(position) => self.outcome(self.viewed[position].1),
            Err(_) => self.default,
        }
    }

    pub(super) fn judge_default(&mut self, books: &mut Books) {
        self.default =
            judging::outcome(&self.rules, &self.likeness, &View::plain(), &mut books.decisions, &mut books.columns);
    }

    pub(super) fn take_default(&mut self, default: Outcome, columns: &mut Columns) {
        columns.retain_outcome(default);
        self.default = default;
    }

    /// The view of an identity, judged if it is new; `None` where it looks like the world.
    pub(super) fn look(&mut self, peer: &Look<'_>, books: &mut Books) -> Option<ViewId> {
        let view = View::new(&self.rules, peer)?;
        Some(self.view_id(Arc::new(view), None, books))
    }

    /// The id of a view. `outcome`: if it is known.
    pub(super) fn view_id(&mut self, view: Arc<View>, outcome: Option<Outcome>, books: &mut Books) -> ViewId {
        if let Some(id) = self.views.ids.get(&view) {
            return *id;
        }
        let outcome = match outcome {
            Some(outcome) => {
                books.columns.retain_outcome(outcome);
                outcome
            }
            None => judging::outcome(&self.rules, &self.likeness, &view, &mut books.decisions, &mut books.columns),
        };
        self.views.insert(view, outcome)
    }

    /// How identities look that were not looked at before. Sorted, and each above all that are viewed already, unless
    /// nothing is.
    pub(super) fn extend(&mut self, more: impl IntoIterator<Item = (IdentityId, ViewId)>) {
        for (identity, view) in more {
            if let Some(seen) = &mut self.views.seen[view] {
                seen.identities += 1;
            }
            self.viewed.push((identity, view));
        }
    }

    /// Forgets identities that are no more.
    pub(super) fn forget(&mut self, gone: impl Fn(IdentityId) -> bool, columns: &mut Columns) {
        let views = &mut self.views;
        self.viewed.retain(|(identity, view)| {
            let stays = !gone(*identity);
            if !stays {
                views.release(*view, columns);
            }
            stays
        });
    }

    /// The class is no more.
    pub(super) fn dissolve(self, columns: &mut Columns) {
        self.outcomes().for_each(|outcome| columns.release(outcome));
    }
}

impl Views {
    fn insert(&mut self, view: Arc<View>, outcome: Outcome) -> ViewId {
        let free = if self.ids.len() < self.seen.len() { self.seen.iter().position(Option::is_none) } else { None };
        let id = free.unwrap_or(self.seen.len());
        let seen = Seen { view: Arc::clone(&view), outcome, identities: 0 };
        match free {
            Some(free) => self.seen[free] = Some(seen),
            None => self.seen.push(Some(seen)),
        }
        self.ids.insert(view, id);
        id
    }

    fn release(&mut self, id: ViewId, columns: &mut Columns) {
        let Some(seen) = &mut self.seen[id] else { return };
        seen.identities -= 1;
        if seen.identities == 0 {
            columns.release(seen.outcome);
            self.ids.remove(&seen.view);
            self.seen[id] = None;
        }
    }
}

/// The rules of a class, ready to be asked.
#[derive(Debug)]
pub(super) struct Rules {
    /// One for each policy, in order of evaluation.
    pub(super) scripts: Vec<Arc<Script>>,
    /// All peers that they name; sorted.
    pub(super) terms: Vec<TermId>,
    /// Some network policy is among them, so that it matters whether a peer is the subject's node.
    pub(super) isolates: bool,
    /// Some rule names pods, or a port of a peer, so that it matters whether an address may be an unknown pod's.
    pub(super) reads_pods: bool,
    /// Some rule resolves a port's name on the peer.
    pub(super) reads_names: bool,
}

impl Rules {
    fn new(likeness: &Likeness, scripts: &mut Scripts, terms: &mut Terms) -> Self {
        let versions = likeness.policies.iter();
        let scripts: Vec<Arc<Script>> =
            versions.map(|version| scripts.retain(version, likeness.direction, terms)).collect();
        let mut terms: Vec<TermId> = scripts.iter().flat_map(|script| script.terms.iter().copied()).collect();
        terms.sort_unstable();
        terms.dedup();
        Self {
            terms,
            isolates: likeness.policies.iter().any(|version| version.policy.tier == Tier::NetworkPolicy),
            reads_pods: scripts.iter().any(|script| script.reads_pods()),
            reads_names: scripts.iter().any(|script| !script.names.is_empty()),
            scripts,
        }
    }

    /// The class is no more.
    pub(super) fn release(&self, direction: Direction, scripts: &mut Scripts, terms: &mut Terms) {
        for script in &self.scripts {
            scripts.release(script, direction, terms);
        }
    }
}
