//! What the rules of a class can read of an identity.

use super::{class::Rules, identity::Reading, terms::TermId};
use crate::model::ContainerPort;

/// An identity with what can be read of it.
#[derive(Debug)]
pub(super) struct Look<'a> {
    /// Terms that hold for the address; sorted.
    pub(super) ground: &'a [TermId],
    pub(super) claims: Vec<&'a Reading>,
    pub(super) unknown_pod: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct View {
    /// One for each that claims the address, one in all for nobody; once where all are the same.
    pub(super) claims: Vec<ClaimView>,
    pub(super) unknown_pod: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ClaimView {
    /// Those that the class reads and that hold; sorted.
    pub(super) terms: Vec<TermId>,
    /// As far as rules that mean it ask for their names.
    pub(super) ports: Vec<ContainerPort>,
    pub(super) own_node: bool,
}

impl View {
    /// The world's.
    pub(super) fn plain() -> Self {
        Self { claims: vec![ClaimView::default()], unknown_pod: false }
    }

    /// How an identity looks to these rules; `None` where it looks like the world.
    pub(super) fn new(rules: &Rules, peer: &Look<'_>) -> Option<Self> {
        let unknown_pod = peer.unknown_pod && rules.reads_pods;
        let nobody = Reading::default();
        let (first, others) = match peer.claims.split_first() {
            Some((first, others)) => (*first, others),
            None => (&nobody, &[][..]),
        };
        let first = ClaimView::new(rules, peer.ground, first);
        let others: Vec<ClaimView> = others.iter().map(|reading| ClaimView::new(rules, peer.ground, reading)).collect();
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

    /// Whether one of these terms holds.
    pub(super) fn holds_any(&self, terms: &[TermId]) -> bool {
        let holds = |term: &TermId| self.claims.iter().any(|claim| claim.terms.binary_search(term).is_ok());
        terms.iter().any(holds)
    }
}

impl ClaimView {
    fn new(rules: &Rules, ground: &[TermId], reading: &Reading) -> Self {
        let is_read = |term: &&TermId| rules.terms.binary_search(term).is_ok();
        let mut terms: Vec<TermId> = ground.iter().chain(&reading.terms).filter(is_read).copied().collect();
        terms.sort_unstable();
        terms.dedup();
        let mut ports = Vec::new();
        if rules.reads_names && !reading.ports.is_empty() {
            let names: Vec<&str> = rules.scripts.iter().flat_map(|script| script.names_read(&terms)).collect();
            ports.extend(reading.ports.iter().filter(|port| names.contains(&port.name.as_str())).cloned());
        }
        Self { terms, ports, own_node: reading.own_node && rules.isolates }
    }

    fn is_plain(&self) -> bool {
        self.terms.is_empty() && self.ports.is_empty() && !self.own_node
    }
}
