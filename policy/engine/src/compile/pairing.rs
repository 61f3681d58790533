//! Brings the outcomes of classes up to date with the identities, and writes the pairs.
//!
//! It is incremental. A class that stays only takes in new identities and drops removed ones. A new class is derived from
//! the class that its first member comes from: only peers that match the policies in which the two differ are evaluated
//! again. If it has the same outcome for all identities that stay, and the other class is removed, it takes over the
//! other's id, and the pairs of that id stay.

use std::{iter, mem, rc::Rc, sync::Arc};

use super::{
    class::{Class, ViewId},
    hashing::QuickMap,
    identity::IdentityChange,
    identity_index::IdentityIndex,
    output::CompilerOutput,
    policy_rules::PolicyRules,
    subjects::{ClassChange, Slot, Subjects},
    terms::{TermId, Terms},
};
use crate::{
    model::Direction,
    tables::{ClassId, IdentityId, Outcome},
};

/// The peers whose outcome may differ between two classes.
struct AffectedPeers {
    /// Terms of the policies in which they differ that no class uses any more: `identities` does not follow from them.
    removed_terms: Vec<TermId>,
    /// Identities that the policies in which they differ may match now; sorted.
    identities: Vec<IdentityId>,
    /// All peers are affected.
    all: bool,
}

/// By the versions that only one of the two classes has, each with whether the direction is egress.
type AffectedPeersCache = QuickMap<Vec<(u32, bool)>, Option<Rc<AffectedPeers>>>;

pub(super) fn pair(
    subjects: &mut Subjects,
    classes: ClassChange,
    identities: &IdentityChange,
    index: &IdentityIndex<'_>,
    output: &mut CompilerOutput,
) {
    let ClassChange { affected, created, mut removed } = classes;
    let mut new_classes: Vec<(Slot, Class, Option<Slot>)> = Vec::with_capacity(created.len());
    for (slot, from) in created {
        new_classes.extend(subjects.classes_mut().remove(&slot).map(|class| (slot, class, from)));
    }
    let mut cache = AffectedPeersCache::default();
    for (_, class, from) in &mut new_classes {
        let old = from.and_then(|slot| removed.get(&slot).or_else(|| subjects.classes().get(&slot)));
        let peers = old.and_then(|old| Some((old, affected_peers(&mut cache, old, class, index, &output.terms)?)));
        match peers {
            Some((old, peers)) => derive(class, old, &peers, identities, index, output),
            None => evaluate_all(class, index, output),
        }
    }
    for class in subjects.classes_mut().values_mut() {
        update(class, identities, index, output);
    }
    for (slot, mut class, from) in new_classes {
        let old = from.and_then(|slot| removed.get_mut(&slot));
        match old.filter(|old| old.id != ClassId(0) && has_same_outcomes(&class, old, identities)) {
            Some(old) => {
                class.id = mem::take(&mut old.id);
                let gone = old.view_by_identity().iter().filter(|(identity, _)| identities.removed.contains(identity));
                gone.for_each(|(identity, view)| delete_pair(class.id, old, *identity, *view, output));
                let first = class.view_by_identity().partition_point(|(identity, _)| *identity < identities.first_new);
                class.view_by_identity()[first..]
                    .iter()
                    .for_each(|(identity, view)| put_pair(&class, *identity, *view, output));
            }
            None => {
                class.id = subjects.next_id();
                class.view_by_identity().iter().for_each(|(identity, view)| put_pair(&class, *identity, *view, output));
            }
        }
        subjects.classes_mut().insert(slot, class);
    }
    for class in removed.into_values() {
        if class.id != ClassId(0) {
            output.tracked.remove_pairs(class.id);
        }
        class.release(&mut output.columns);
    }
    subjects.publish(affected, output);
}

/// Takes the changed identities into a class that stays as it is.
fn update(class: &mut Class, identities: &IdentityChange, index: &IdentityIndex<'_>, output: &mut CompilerOutput) {
    let mut more: Vec<(IdentityId, ViewId)> = Vec::new();
    let mut has_removed = false;
    for (identity, view) in class.view_by_identity() {
        has_removed |= identities.removed.contains(identity);
        more.extend(identities.derived_from(*identity).iter().map(|derived| (*derived, *view)));
    }
    for identity in &identities.unmatched {
        let facts = index.facts_of(*identity);
        more.extend(facts.and_then(|facts| Some((*identity, class.view_of(&facts, output)?))));
    }
    more.sort_unstable();
    more.iter().for_each(|(identity, view)| put_pair(class, *identity, *view, output));
    class.extend(more);
    if has_removed {
        let removed = |identity: &IdentityId| identities.removed.contains(identity);
        for (identity, view) in class.view_by_identity().iter().filter(|(identity, _)| removed(identity)) {
            delete_pair(class.id, class, *identity, *view, output);
        }
        class.remove(|identity| removed(&identity), &mut output.columns);
    }
}

/// Evaluates a class that cannot be derived from another.
fn evaluate_all(class: &mut Class, index: &IdentityIndex<'_>, output: &mut CompilerOutput) {
    class.evaluate_default(output);
    let mut views = Vec::new();
    for identity in index.distinguished_by(&class.rules) {
        let facts = index.facts_of(identity);
        views.extend(facts.and_then(|facts| Some((identity, class.view_of(&facts, output)?))));
    }
    class.extend(views);
}

/// Copies the outcomes of the class that this one comes from, and evaluates the outcomes that may differ.
fn derive(
    class: &mut Class,
    old: &Class,
    affected: &AffectedPeers,
    identities: &IdentityChange,
    index: &IdentityIndex<'_>,
    output: &mut CompilerOutput,
) {
    if affected.all {
        class.evaluate_default(output);
    } else {
        class.set_default(old.default, &mut output.columns);
    }
    // By view of the old class: whether it fulfils removed terms, and its id here.
    let mut touched: Vec<Option<bool>> = vec![None; old.view_count()];
    let mut copied: Vec<Option<ViewId>> = vec![None; old.view_count()];
    let mut views = Vec::new();
    let mut again: Vec<IdentityId> = affected.identities.iter().chain(&identities.unmatched).copied().collect();
    for (identity, id) in old.view_by_identity() {
        let Some(view) = old.view(*id) else { continue };
        let is_touched = *touched[*id].get_or_insert_with(|| view.fulfils_any(&affected.removed_terms));
        let stays = Some(*identity).filter(|identity| !identities.removed.contains(identity));
        for identity in stays.iter().chain(identities.derived_from(*identity)) {
            if is_touched {
                again.push(*identity);
            } else if affected.identities.binary_search(identity).is_err() {
                let outcome = (!affected.all).then(|| old.outcome(*id));
                let id = *copied[*id].get_or_insert_with(|| class.view_id(Arc::clone(view), outcome, output));
                views.push((*identity, id));
            }
        }
    }
    again.sort_unstable();
    again.dedup();
    for identity in again {
        let facts = index.facts_of(identity);
        views.extend(facts.and_then(|facts| Some((identity, class.view_of(&facts, output)?))));
    }
    views.sort_unstable();
    class.extend(views);
}

/// The peers whose outcome may differ between two classes; `None` where no outcome of the old one can be copied.
fn affected_peers(
    cache: &mut AffectedPeersCache,
    old: &Class,
    class: &Class,
    index: &IdentityIndex<'_>,
    live: &Terms,
) -> Option<Rc<AffectedPeers>> {
    if old.key.ports != class.key.ports {
        return None;
    }
    let only_in = |one: &Class, other: &Class| {
        let lacks = |rules: &&Arc<PolicyRules>| !other.key.policies.contains(&rules.version);
        one.rules.policies.iter().filter(lacks).cloned().collect::<Vec<_>>()
    };
    let differing: Vec<_> = iter::chain(only_in(old, class), only_in(class, old)).collect();
    let is_egress = class.key.direction == Direction::Egress;
    let key = differing.iter().map(|rules| (rules.version.number, is_egress)).collect();
    let found = cache.entry(key).or_insert_with(|| {
        if !differing.iter().all(|rules| rules.affects_matched_peers_only()) {
            return None;
        }
        let differing: Vec<&PolicyRules> = differing.iter().map(|rules| &**rules).collect();
        let mut terms: Vec<TermId> = differing.iter().flat_map(|rules| rules.terms.iter().copied()).collect();
        terms.sort_unstable();
        let identities = index.matching(&terms, &differing);
        terms.retain(|term| live.get(*term).is_none());
        Some(Rc::new(AffectedPeers {
            removed_terms: terms,
            identities,
            all: differing.iter().any(|rules| rules.matches_any_peer()),
        }))
    });
    found.clone()
}

/// Whether a class has the same outcome as another for all identities that stay.
fn has_same_outcomes(class: &Class, old: &Class, identities: &IdentityChange) -> bool {
    let agree = |identity: &IdentityId| class.outcome_for(*identity) == old.outcome_for(*identity);
    let before = old.view_by_identity().iter().map(|(identity, _)| identity);
    let now = class.view_by_identity().iter().map(|(identity, _)| identity);
    let mut now = now.take_while(|identity| **identity < identities.first_new);
    class.default == old.default
        && before.filter(|identity| !identities.removed.contains(identity)).all(agree)
        && now.all(agree)
}

fn put_pair(class: &Class, identity: IdentityId, view: ViewId, output: &mut CompilerOutput) {
    let outcome: Outcome = class.outcome(view);
    if outcome != class.default {
        output.tracked.set_pair(class.id, identity, Some(outcome));
    }
}

/// `id`: of the class under which the pair was written.
fn delete_pair(id: ClassId, class: &Class, identity: IdentityId, view: ViewId, output: &mut CompilerOutput) {
    if class.outcome(view) != class.default {
        output.tracked.set_pair(id, identity, None);
    }
}
