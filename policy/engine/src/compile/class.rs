//! Subject classes: what their policies conclude of each identity.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    catalogue::Decisions,
    columns::Columns,
    identity::Reading,
    judging,
    policies::Version,
    terms::{TermId, Terms},
};
use crate::{
    model::{ContainerPort, Direction, Peer, PortMatch, Rule, Tier},
    tables::{ClassId, IdentityId, Outcome},
};

/// Local pods that every rule treats alike in one direction.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) id: ClassId,
    pub(super) likeness: Arc<Likeness>,
    /// Pods in it.
    pub(super) members: usize,
    /// For identities of which no rule reads anything, the world for one.
    pub(super) default: Outcome,
    rules: Rules,
    views: HashMap<Arc<View>, Seen>,
    /// How the identities look that do not look like the world.
    viewed: HashMap<IdentityId, Arc<View>>,
}

/// An identity with what can be read of it.
#[derive(Debug)]
pub(super) struct Look<'a> {
    pub(super) id: IdentityId,
    /// Terms that hold for the address; sorted.
    pub(super) ground: &'a [TermId],
    pub(super) claims: Vec<&'a Reading>,
    pub(super) unknown_pod: bool,
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

/// What the rules of a class can read of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct View {
    /// One for each that claims the address, one in all for nobody; once where all are the same.
    pub(super) claims: Vec<ClaimView>,
    pub(super) unknown_pod: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ClaimView {
    /// Positions of terms that hold; sorted.
    pub(super) terms: Vec<usize>,
    pub(super) ports: Vec<ContainerPort>,
    pub(super) own_node: bool,
}

#[derive(Debug)]
struct Seen {
    outcome: Outcome,
    identities: usize,
}

impl Class {
    pub(super) fn new(
        id: ClassId,
        likeness: Arc<Likeness>,
        terms: &mut Terms,
        decisions: &mut Decisions,
        columns: &mut Columns,
    ) -> Self {
        let rules = Rules::new(&likeness, terms);
        let world = View { claims: vec![ClaimView::default()], unknown_pod: false };
        let default = judging::outcome(&rules, &likeness, &world, decisions, columns);
        Self { id, likeness, members: 0, default, rules, views: HashMap::new(), viewed: HashMap::new() }
    }

    /// What holds for an identity that was not looked at before; `None` where it is the default.
    pub(super) fn look(
        &mut self,
        peer: &Look<'_>,
        decisions: &mut Decisions,
        columns: &mut Columns,
    ) -> Option<Outcome> {
        let id = peer.id;
        let view = self.rules.view(peer)?;
        let outcome = match self.views.get_key_value(&view) {
            Some((view, seen)) => {
                self.viewed.insert(id, Arc::clone(view));
                seen.outcome
            }
            None => {
                let outcome = judging::outcome(&self.rules, &self.likeness, &view, decisions, columns);
                let view = Arc::new(view);
                self.viewed.insert(id, Arc::clone(&view));
                self.views.insert(view, Seen { outcome, identities: 0 });
                outcome
            }
        };
        if let Some(seen) = self.viewed.get(&id).and_then(|view| self.views.get_mut(view)) {
            seen.identities += 1;
        }
        (outcome != self.default).then_some(outcome)
    }

    /// The identity is no more. Whether something was held of it.
    pub(super) fn forget(&mut self, id: IdentityId, columns: &mut Columns) -> bool {
        let Some(view) = self.viewed.remove(&id) else { return false };
        if let Some(seen) = self.views.get_mut(&view) {
            seen.identities -= 1;
            if seen.identities == 0 {
                columns.release(seen.outcome);
                self.views.remove(&view);
            }
        }
        true
    }

    /// The class is no more.
    pub(super) fn dissolve(self, terms: &mut Terms, columns: &mut Columns) {
        for seen in self.views.values() {
            columns.release(seen.outcome);
        }
        columns.release(self.default);
        for term in &self.rules.terms {
            terms.release(*term);
        }
        for name in &self.rules.names {
            terms.release_name(name);
        }
    }
}

/// The rules of a class, ready to be asked.
#[derive(Debug)]
pub(super) struct Rules {
    /// All peers that they name; sorted.
    terms: Vec<TermId>,
    /// Port names that they resolve on the peer.
    names: BTreeSet<String>,
    /// For each policy, where its rules begin in `peers`.
    pub(super) offsets: Vec<usize>,
    /// For each rule of each policy.
    pub(super) peers: Vec<Option<Peers>>,
    /// Positions of policies that are not audited.
    pub(super) in_force: Vec<usize>,
    pub(super) everything: Vec<usize>,
    isolates: bool,
    /// Some rule names pods, or a port of a peer, so that it matters whether an address may be an unknown pod's.
    reads_pods: bool,
}

#[derive(Debug)]
pub(super) struct Peers {
    /// Positions in `terms`.
    pub(super) terms: Vec<usize>,
    pub(super) pods: bool,
}

impl Rules {
    fn new(likeness: &Likeness, terms: &mut Terms) -> Self {
        let direction = likeness.direction;
        let mut used: BTreeSet<TermId> = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut by_rule: Vec<Option<Vec<TermId>>> = Vec::new();
        let mut offsets = Vec::new();
        let mut reads_pods = false;
        for version in &likeness.policies {
            offsets.push(by_rule.len());
            for rule in &version.policy.rules {
                if rule.direction != direction || rule.fault.is_some() {
                    by_rule.push(None);
                    continue;
                }
                by_rule.push(rule.peers.as_ref().map(|peers| {
                    let ids = peers.iter().map(|peer| {
                        reads_pods |= matches!(peer, Peer::Pods { .. });
                        let id = terms.retain(peer);
                        if !used.insert(id) {
                            terms.release(id);
                        }
                        id
                    });
                    ids.collect()
                }));
                if direction == Direction::Egress {
                    names.extend(port_names(rule).map(str::to_owned));
                }
            }
        }
        for name in &names {
            terms.retain_name(name);
        }
        let terms_used: Vec<TermId> = used.into_iter().collect();
        let position = |id: TermId| terms_used.binary_search(&id).ok();
        let is_pods = |id: &TermId| matches!(terms.get(*id), Some(Peer::Pods { .. }));
        let peers = by_rule.into_iter().map(|ids| {
            ids.map(|ids| Peers {
                pods: ids.iter().any(is_pods),
                terms: ids.into_iter().filter_map(position).collect(),
            })
        });
        let audited = |position: &usize| likeness.policies[*position].audited;
        Self {
            peers: peers.collect(),
            offsets,
            in_force: (0..likeness.policies.len()).filter(|position| !audited(position)).collect(),
            everything: (0..likeness.policies.len()).collect(),
            isolates: likeness.policies.iter().any(|version| version.policy.tier == Tier::NetworkPolicy),
            reads_pods: reads_pods || !names.is_empty(),
            names,
            terms: terms_used,
        }
    }

    /// How an identity looks to these rules; `None` where it looks like the world.
    fn view(&self, peer: &Look<'_>) -> Option<View> {
        let unknown_pod = peer.unknown_pod && self.reads_pods;
        let nobody = Reading::default();
        let (first, others) = match peer.claims.split_first() {
            Some((first, others)) => (*first, others),
            None => (&nobody, &[][..]),
        };
        let first = self.claim_view(peer.ground, first);
        let others = others.iter().map(|reading| self.claim_view(peer.ground, reading));
        let mut others = others.skip_while(|other| *other == first).peekable();
        if others.peek().is_none() && first.is_plain() && !unknown_pod {
            return None;
        }
        let alike = others.peek().is_none();
        let all = || peer.claims.iter().map(|reading| self.claim_view(peer.ground, reading)).collect();
        let claims = if alike { vec![first] } else { all() };
        Some(View { claims, unknown_pod })
    }

    fn claim_view(&self, ground: &[TermId], reading: &Reading) -> ClaimView {
        let holds = |term: &TermId| ground.binary_search(term).is_ok() || reading.terms.binary_search(term).is_ok();
        let terms = self.terms.iter().enumerate().filter(|(_, term)| holds(term)).map(|(position, _)| position);
        let ports = reading.ports.iter().filter(|port| self.names.contains(&port.name)).cloned();
        ClaimView { terms: terms.collect(), ports: ports.collect(), own_node: reading.own_node && self.isolates }
    }
}

impl ClaimView {
    fn is_plain(&self) -> bool {
        self.terms.is_empty() && self.ports.is_empty() && !self.own_node
    }
}

pub(super) fn port_names(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.ports.iter().flatten().filter_map(|port| match port {
        PortMatch::Named { name, .. } => Some(name.as_str()),
        PortMatch::Protocol(_) | PortMatch::Range { .. } => None,
    })
}
