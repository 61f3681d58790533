//! Which identities can be meant by a term, so that a class looks at those only.

use std::collections::BTreeSet;

use super::{
    class::Rules, hashing::QuickMap, identity::Identities, scripts::Script, terms::TermId, view::Look, world::World,
};
use crate::tables::IdentityId;

pub(super) struct Directory<'a> {
    world: &'a World,
    identities: &'a Identities,
    by_term: QuickMap<TermId, Vec<IdentityId>>,
    by_port: QuickMap<&'a str, Vec<IdentityId>>,
    unknown: Vec<IdentityId>,
    own_node: Vec<IdentityId>,
}

impl<'a> Directory<'a> {
    /// `listed`: whether it will be asked for more than single looks.
    pub(super) fn new(world: &'a World, identities: &'a Identities, listed: bool) -> Self {
        let mut directory = Self {
            world,
            identities,
            by_term: QuickMap::default(),
            by_port: QuickMap::default(),
            unknown: Vec::new(),
            own_node: Vec::new(),
        };
        if listed {
            let mut ids: Vec<IdentityId> = identities.iter().map(|(id, _)| id).collect();
            ids.sort_unstable();
            ids.into_iter().for_each(|id| directory.list(id));
        }
        directory
    }

    pub(super) fn look(&self, id: IdentityId) -> Option<Look<'a>> {
        Some(self.world.look(self.identities.get(id)?))
    }

    /// All that may not look like the world to these rules; sorted.
    pub(super) fn concerned(&self, rules: &Rules) -> Vec<IdentityId> {
        let mut concerned = self.meant(&rules.terms, &rules.scripts.iter().map(|script| &**script).collect::<Vec<_>>());
        if rules.isolates {
            concerned.extend(&self.own_node);
        }
        concerned.sort_unstable();
        concerned.dedup();
        concerned
    }

    /// All of which one of these terms holds, or of which these scripts read something else; sorted.
    pub(super) fn meant(&self, terms: &[TermId], scripts: &[&Script]) -> Vec<IdentityId> {
        let mut meant: Vec<IdentityId> =
            terms.iter().filter_map(|term| self.by_term.get(term)).flatten().copied().collect();
        let names: BTreeSet<&str> = scripts.iter().flat_map(|script| script.names_read(&[])).collect();
        meant.extend(names.iter().filter_map(|name| self.by_port.get(name)).flatten());
        if scripts.iter().any(|script| script.reads_pods()) {
            meant.extend(&self.unknown);
        }
        meant.sort_unstable();
        meant.dedup();
        meant
    }

    fn list(&mut self, id: IdentityId) {
        let Some(look) = self.look(id) else { return };
        let readings = || look.claims.iter();
        let terms = look.ground.iter().chain(readings().flat_map(|reading| &reading.terms));
        for term in terms {
            list_once(self.by_term.entry(*term).or_default(), id);
        }
        for port in readings().flat_map(|reading| &reading.ports) {
            list_once(self.by_port.entry(port.name.as_str()).or_default(), id);
        }
        if look.unknown_pod {
            self.unknown.push(id);
        }
        if readings().any(|reading| reading.own_node) {
            self.own_node.push(id);
        }
    }
}

fn list_once(list: &mut Vec<IdentityId>, id: IdentityId) {
    if list.last() != Some(&id) {
        list.push(id);
    }
}
