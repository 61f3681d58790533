//! Addresses whose DNS names some rule reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    blocks::Blocks,
    identity::{CidrFacts, CidrFactsId, CidrFactsTable},
    interning::Move,
    terms::{TermChange, TermId, Terms},
};
use crate::{
    address,
    evaluate::peer,
    model::{NamePattern, Peer, Snapshot},
};

#[derive(Debug, Default)]
pub(super) struct NamedAddresses {
    /// Terms for names that each address fulfils; sorted.
    terms: BTreeMap<IpAddr, Vec<TermId>>,
    /// The terms for names and those for blocks together.
    facts: BTreeMap<IpAddr, CidrFactsId>,
}

impl NamedAddresses {
    pub(super) fn facts(&self, address: IpAddr) -> Option<CidrFactsId> {
        self.facts.get(&address).copied()
    }

    /// Follows changes of names, terms and blocks. `changed_blocks`: of [`Blocks::update`]. Returns the addresses that
    /// may have another identity.
    pub(super) fn update(
        &mut self,
        snapshot: &Snapshot,
        names_changed: bool,
        terms: &Terms,
        change: &TermChange,
        (blocks, changed_blocks): (&Blocks, &BTreeSet<IpNet>),
        facts_table: &mut CidrFactsTable,
    ) -> Vec<IpAddr> {
        if names_changed || change.touches_any(|peer| matches!(peer, Peer::Name(_))) {
            self.terms = terms_for_names(snapshot, terms);
        } else if changed_blocks.is_empty() && !change.touches_any(|peer| matches!(peer, Peer::Block { .. })) {
            return Vec::new();
        }
        let addresses: BTreeSet<IpAddr> = self.terms.keys().chain(self.facts.keys()).copied().collect();
        let moves = addresses.iter().map(|address| Move {
            from: self.facts.get(address).copied(),
            to: self.terms.get(address).map(|names| cidr_facts(blocks, *address, names)),
            members: 1,
        });
        let assigned = facts_table.assign(moves.collect(), |old, new| old.equals_before(new, change));
        let mut changed = Vec::new();
        for (address, facts) in addresses.into_iter().zip(assigned) {
            let before = match facts {
                Some(facts) => self.facts.insert(address, facts),
                None => self.facts.remove(&address),
            };
            if before != facts || changed_blocks.iter().any(|block| block.contains(&address)) {
                changed.push(address);
            }
        }
        changed
    }
}

fn cidr_facts(blocks: &Blocks, address: IpAddr, names: &[TermId]) -> CidrFacts {
    let block = blocks.find(address).map(|(_, block)| block.terms()).unwrap_or_default();
    let mut terms = [block, names].concat();
    terms.sort_unstable();
    CidrFacts(terms)
}

/// The terms for names that each address fulfils.
fn terms_for_names(snapshot: &Snapshot, terms: &Terms) -> BTreeMap<IpAddr, Vec<TermId>> {
    let patterns: Vec<(TermId, &NamePattern)> = terms
        .iter()
        .filter_map(|(id, peer)| match peer {
            Peer::Name(pattern) => Some((id, pattern)),
            Peer::Pods { .. } | Peer::Block { .. } | Peer::Nodes(_) => None,
        })
        .collect();
    let mut named: BTreeMap<IpAddr, Vec<TermId>> = BTreeMap::new();
    if patterns.is_empty() {
        return named;
    }
    for (name, addresses) in &snapshot.names {
        for (id, _) in patterns.iter().filter(|(_, pattern)| peer::name_matches(pattern, name)) {
            for address in addresses {
                named.entry(address::canonical(*address)).or_default().push(*id);
            }
        }
    }
    for terms in named.values_mut() {
        terms.sort_unstable();
        terms.dedup();
    }
    named
}
