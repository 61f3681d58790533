//! A class's view of an identity: the attributes that its rules can read.

use super::{class_rules::ClassRules, identity::PeerAttributes, terms::TermId};
use crate::model::ContainerPort;

/// All attributes of an identity that some rule may read.
#[derive(Debug)]
pub(super) struct PeerFacts<'a> {
    /// Terms that the address fulfils independently of its owner; sorted.
    pub(super) cidr_facts: &'a [TermId],
    /// Of each owner of the address.
    pub(super) claims: Vec<&'a PeerAttributes>,
    pub(super) unknown_pod: bool,
}

/// Identities with equal views have equal outcomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PeerView {
    /// One for each owner of the address; a single one where there is none, and where all are equal.
    pub(super) claims: Vec<ClaimantView>,
    pub(super) unknown_pod: bool,
}

/// The peer, if it is one of the owners of its address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ClaimantView {
    /// Terms of the class that it fulfils; sorted.
    pub(super) terms: Vec<TermId>,
    /// Container ports whose names are used by rules that match it.
    pub(super) ports: Vec<ContainerPort>,
    pub(super) own_node: bool,
}

impl PeerView {
    /// That of the world.
    pub(super) fn plain() -> Self {
        Self { claims: vec![ClaimantView::default()], unknown_pod: false }
    }

    /// `None` where these rules cannot tell the identity from the world.
    pub(super) fn new(rules: &ClassRules, peer: &PeerFacts<'_>) -> Option<Self> {
        let unknown_pod = peer.unknown_pod && rules.reads_pods;
        let nobody = PeerAttributes::default();
        let (first, others) = match peer.claims.split_first() {
            Some((first, others)) => (*first, others),
            None => (&nobody, &[][..]),
        };
        let first = ClaimantView::new(rules, peer.cidr_facts, first);
        let others: Vec<ClaimantView> =
            others.iter().map(|attributes| ClaimantView::new(rules, peer.cidr_facts, attributes)).collect();
        let alike = others.iter().all(|other| *other == first);
        if alike && first.is_plain() && !unknown_pod {
            return None;
        }
        let mut claims = vec![first];
        if !alike {
            claims.extend(others);
        }
        Some(Self { claims, unknown_pod })
    }

    /// Whether it fulfils one of these terms.
    pub(super) fn fulfils_any(&self, terms: &[TermId]) -> bool {
        let holds = |term: &TermId| self.claims.iter().any(|claim| claim.terms.binary_search(term).is_ok());
        terms.iter().any(holds)
    }
}

impl ClaimantView {
    fn new(rules: &ClassRules, cidr_facts: &[TermId], attributes: &PeerAttributes) -> Self {
        let is_read = |term: &&TermId| rules.terms.binary_search(term).is_ok();
        let mut terms: Vec<TermId> = cidr_facts.iter().chain(&attributes.terms).filter(is_read).copied().collect();
        terms.sort_unstable();
        terms.dedup();
        let mut ports = Vec::new();
        if rules.reads_names && !attributes.ports.is_empty() {
            let names: Vec<&str> = rules.policies.iter().flat_map(|policy| policy.names_read(&terms)).collect();
            ports.extend(attributes.ports.iter().filter(|port| names.contains(&port.name.as_str())).cloned());
        }
        Self { terms, ports, own_node: attributes.own_node && rules.isolates }
    }

    fn is_plain(&self) -> bool {
        self.terms.is_empty() && self.ports.is_empty() && !self.own_node
    }
}
