//! An index from the attributes that rules read to the identities that have them, so that a class looks at these only.

use std::collections::BTreeSet;

use super::{
    address_records::AddressRecords, class_rules::ClassRules, hashing::QuickMap, identity::Identities,
    policy_rules::PolicyRules, terms::TermId, view::PeerFacts,
};
use crate::tables::IdentityId;

pub(super) struct IdentityIndex<'a> {
    records: &'a AddressRecords,
    identities: &'a Identities,
    by_term: QuickMap<TermId, Vec<IdentityId>>,
    by_port: QuickMap<&'a str, Vec<IdentityId>>,
    /// Addresses that may be an unknown pod's.
    unknown_pods: Vec<IdentityId>,
    own_node: Vec<IdentityId>,
}

impl<'a> IdentityIndex<'a> {
    /// `filled`: whether more than [`IdentityIndex::facts_of`] will be asked; filling it costs a pass over all identities.
    pub(super) fn new(records: &'a AddressRecords, identities: &'a Identities, filled: bool) -> Self {
        let mut index = Self {
            records,
            identities,
            by_term: QuickMap::default(),
            by_port: QuickMap::default(),
            unknown_pods: Vec::new(),
            own_node: Vec::new(),
        };
        if filled {
            let mut ids: Vec<IdentityId> = identities.iter().map(|(id, _)| id).collect();
            ids.sort_unstable();
            ids.into_iter().for_each(|id| index.add(id));
        }
        index
    }

    pub(super) fn facts_of(&self, id: IdentityId) -> Option<PeerFacts<'a>> {
        Some(self.records.facts_of(self.identities.get(id)?))
    }

    /// All identities that these rules may tell from the world; sorted.
    pub(super) fn distinguished_by(&self, rules: &ClassRules) -> Vec<IdentityId> {
        let policies: Vec<&PolicyRules> = rules.policies.iter().map(|policy| &**policy).collect();
        let mut identities = self.matching(&rules.terms, &policies);
        if rules.isolates {
            identities.extend(&self.own_node);
        }
        identities.sort_unstable();
        identities.dedup();
        identities
    }

    /// All identities that fulfil one of these terms, or of which these policies read other attributes; sorted.
    pub(super) fn matching(&self, terms: &[TermId], policies: &[&PolicyRules]) -> Vec<IdentityId> {
        let mut identities: Vec<IdentityId> =
            terms.iter().filter_map(|term| self.by_term.get(term)).flatten().copied().collect();
        let names: BTreeSet<&str> = policies.iter().flat_map(|policy| policy.names_read(&[])).collect();
        identities.extend(names.iter().filter_map(|name| self.by_port.get(name)).flatten());
        if policies.iter().any(|policy| policy.reads_pods()) {
            identities.extend(&self.unknown_pods);
        }
        identities.sort_unstable();
        identities.dedup();
        identities
    }

    fn add(&mut self, id: IdentityId) {
        let Some(facts) = self.facts_of(id) else { return };
        let claims = || facts.claims.iter();
        let terms = facts.cidr_facts.iter().chain(claims().flat_map(|attributes| &attributes.terms));
        for term in terms {
            push_once(self.by_term.entry(*term).or_default(), id);
        }
        for port in claims().flat_map(|attributes| &attributes.ports) {
            push_once(self.by_port.entry(port.name.as_str()).or_default(), id);
        }
        if facts.unknown_pod {
            self.unknown_pods.push(id);
        }
        if claims().any(|attributes| attributes.own_node) {
            self.own_node.push(id);
        }
    }
}

fn push_once(list: &mut Vec<IdentityId>, id: IdentityId) {
    if list.last() != Some(&id) {
        list.push(id);
    }
}
