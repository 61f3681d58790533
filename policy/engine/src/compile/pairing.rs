//! Brings what classes conclude of identities up to date, and writes the pairs.
//!
//! Classes that stay only take in new identities and forget old ones. A new class goes by the one that its first member
//! comes from: whom the policies in which the two differ do not mean is judged as before. If it concludes the same of all
//! identities that stay, and the other is no more, it goes on under the other's id, and their pairs stay.

use std::{iter, mem, rc::Rc, sync::Arc};

use super::{
    Books,
    class::{Class, ViewId},
    directory::Directory,
    hashing::QuickMap,
    identity::IdentityChange,
    scripts::Script,
    subjects::{ClassChange, Slot, Subjects},
    terms::{TermId, Terms},
    view::Look,
};
use crate::tables::{ClassId, IdentityId, Outcome};

/// Whom the policies mean in which two classes differ.
struct Meant {
    /// Terms that they read and nobody does any more, so that `identities` does not go by them.
    lost: Vec<TermId>,
    /// Whom they may mean now; sorted.
    identities: Vec<IdentityId>,
    everybody: bool,
}

/// By the numbers of the versions that only one of the two classes has.
type Differences = QuickMap<Vec<(u32, bool)>, Option<Rc<Meant>>>;

pub(super) fn pair(
    subjects: &mut Subjects,
    classes: ClassChange,
    identities: &IdentityChange,
    directory: &Directory<'_>,
    books: &mut Books,
) {
    let ClassChange { affected, created, mut dissolved } = classes;
    let mut newcomers: Vec<(Slot, Class, Option<Slot>)> = Vec::with_capacity(created.len());
    for (slot, from) in created {
        newcomers.extend(subjects.classes_mut().remove(&slot).map(|class| (slot, class, from)));
    }
    let mut differences = Differences::default();
    for (_, class, from) in &mut newcomers {
        let old = from.and_then(|slot| dissolved.get(&slot).or_else(|| subjects.classes().get(&slot)));
        let meant = old.and_then(|old| Some((old, meant(&mut differences, old, class, directory, &books.terms)?)));
        match meant {
            Some((old, meant)) => follow(class, old, &meant, identities, directory, books),
            None => judge_all(class, directory, books),
        }
    }
    for class in subjects.classes_mut().values_mut() {
        update(class, identities, directory, books);
    }
    for (slot, mut class, from) in newcomers {
        let old = from.and_then(|slot| dissolved.get_mut(&slot));
        match old.filter(|old| old.id != ClassId(0) && concludes_alike(&class, old, identities)) {
            Some(old) => {
                class.id = mem::take(&mut old.id);
                let removed = old.viewed().iter().filter(|(identity, _)| identities.removed.contains(identity));
                removed.for_each(|(identity, view)| unpair(class.id, old, *identity, *view, books));
                let first = class.viewed().partition_point(|(identity, _)| *identity < identities.first);
                class.viewed()[first..].iter().for_each(|(identity, view)| put(&class, *identity, *view, books));
            }
            None => {
                class.id = subjects.next_id();
                class.viewed().iter().for_each(|(identity, view)| put(&class, *identity, *view, books));
            }
        }
        subjects.classes_mut().insert(slot, class);
    }
    for class in dissolved.into_values() {
        if class.id != ClassId(0) {
            books.ledger.remove_pairs(class.id);
        }
        class.dissolve(&mut books.columns);
    }
    subjects.publish(affected, books);
}

/// Takes the changed identities into a class that stays as it is.
fn update(class: &mut Class, identities: &IdentityChange, directory: &Directory<'_>, books: &mut Books) {
    let mut more: Vec<(IdentityId, ViewId)> = Vec::new();
    let mut goes = false;
    for (identity, view) in class.viewed() {
        goes |= identities.removed.contains(identity);
        more.extend(identities.heirs_of(*identity).iter().map(|heir| (*heir, *view)));
    }
    for stranger in &identities.strangers {
        let look = directory.look(*stranger);
        more.extend(look.and_then(|look| Some((*stranger, class.look(&look, books)?))));
    }
    more.sort_unstable();
    more.iter().for_each(|(identity, view)| put(class, *identity, *view, books));
    class.extend(more);
    if goes {
        for (identity, view) in class.viewed().iter().filter(|(identity, _)| identities.removed.contains(identity)) {
            unpair(class.id, class, *identity, *view, books);
        }
        class.forget(|identity| identities.removed.contains(&identity), &mut books.columns);
    }
}

/// Judges a class without another to go by.
fn judge_all(class: &mut Class, directory: &Directory<'_>, books: &mut Books) {
    class.judge_default(books);
    let mut viewed = Vec::new();
    for identity in directory.concerned(&class.rules) {
        let look: Option<Look<'_>> = directory.look(identity);
        viewed.extend(look.and_then(|look| Some((identity, class.look(&look, books)?))));
    }
    class.extend(viewed);
}

/// Judges a class as far as it concludes something else than the one it comes from.
fn follow(
    class: &mut Class,
    old: &Class,
    meant: &Meant,
    identities: &IdentityChange,
    directory: &Directory<'_>,
    books: &mut Books,
) {
    if meant.everybody {
        class.judge_default(books);
    } else {
        class.take_default(old.default, &mut books.columns);
    }
    // By view of the old class: whether it is by terms that are lost, and its id here.
    let mut touched: Vec<Option<bool>> = vec![None; old.views()];
    let mut taken: Vec<Option<ViewId>> = vec![None; old.views()];
    let mut viewed = Vec::new();
    let mut again: Vec<IdentityId> = meant.identities.iter().chain(&identities.strangers).copied().collect();
    for (identity, view) in old.viewed() {
        let Some(seen) = old.view(*view) else { continue };
        let is_touched = *touched[*view].get_or_insert_with(|| seen.holds_any(&meant.lost));
        let stays = Some(*identity).filter(|identity| !identities.removed.contains(identity));
        for identity in stays.iter().chain(identities.heirs_of(*identity)) {
            if is_touched {
                again.push(*identity);
            } else if meant.identities.binary_search(identity).is_err() {
                let outcome = (!meant.everybody).then(|| old.outcome(*view));
                let id = *taken[*view].get_or_insert_with(|| class.view_id(Arc::clone(seen), outcome, books));
                viewed.push((*identity, id));
            }
        }
    }
    again.sort_unstable();
    again.dedup();
    for identity in again {
        let look = directory.look(identity);
        viewed.extend(look.and_then(|look| Some((identity, class.look(&look, books)?))));
    }
    viewed.sort_unstable();
    class.extend(viewed);
}

/// Whom the policies mean in which two classes differ; `None` where nothing of the old one can be relied on.
fn meant(
    differences: &mut Differences,
    old: &Class,
    class: &Class,
    directory: &Directory<'_>,
    live: &Terms,
) -> Option<Rc<Meant>> {
    if old.likeness.ports != class.likeness.ports {
        return None;
    }
    let lacks = |other: &Class, script: &Script| !other.likeness.policies.contains(&script.version);
    let scripts = |one: &Class, other: &Class| {
        let lacked = one.rules.scripts.iter().filter(|script| lacks(other, script));
        lacked.cloned().collect::<Vec<_>>()
    };
    let scripts: Vec<_> = iter::chain(scripts(old, class), scripts(class, old)).collect();
    let direction = class.likeness.direction == crate::model::Direction::Egress;
    let key = scripts.iter().map(|script| (script.version.number, direction)).collect();
    let found = differences.entry(key).or_insert_with(|| {
        if !scripts.iter().all(|script| script.is_silent_unless_it_matches()) {
            return None;
        }
        let scripts: Vec<&Script> = scripts.iter().map(|script| &**script).collect();
        let mut terms: Vec<TermId> = scripts.iter().flat_map(|script| script.terms.iter().copied()).collect();
        terms.sort_unstable();
        let identities = directory.meant(&terms, &scripts);
        terms.retain(|term| live.get(*term).is_none());
        Some(Rc::new(Meant {
            lost: terms,
            identities,
            everybody: scripts.iter().any(|script| script.means_everybody()),
        }))
    });
    found.clone()
}

/// Whether a class concludes of all identities that stay what another does.
fn concludes_alike(class: &Class, old: &Class, identities: &IdentityChange) -> bool {
    let agree = |identity: &IdentityId| class.conclusion(*identity) == old.conclusion(*identity);
    let before = old.viewed().iter().map(|(identity, _)| identity);
    let now = class.viewed().iter().map(|(identity, _)| identity).take_while(|identity| **identity < identities.first);
    class.default == old.default
        && before.filter(|identity| !identities.removed.contains(identity)).all(agree)
        && now.clone().all(agree)
}

fn put(class: &Class, identity: IdentityId, view: ViewId, books: &mut Books) {
    let outcome: Outcome = class.outcome(view);
    if outcome != class.default {
        books.ledger.set_pair(class.id, identity, Some(outcome));
    }
}

/// `id`: under which the pair was written.
fn unpair(id: ClassId, class: &Class, identity: IdentityId, view: ViewId, books: &mut Books) {
    if class.outcome(view) != class.default {
        books.ledger.set_pair(id, identity, None);
    }
}
