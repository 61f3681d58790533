//! Subject classes: what their policies conclude of each identity.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    catalogue::Decisions,
    columns::{Columns, port_space},
    identity::{Reading, Signature},
    policies::Version,
    terms::{TermId, Terms},
};
use crate::{
    decision::Decision,
    evaluate::{
        ports::{self, NamedOn, Starts},
        tiers::{self, Judgement, Match},
    },
    model::{ContainerPort, Direction, Peer, Policy, PortMatch, Protocol, Rule, Tier},
    tables::{ClassId, Column, IdentityId, Outcome},
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
struct View {
    /// One for each that claims the address, one in all for nobody; once where all are the same.
    claims: Vec<ClaimView>,
    unknown_pod: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct ClaimView {
    /// Positions of terms that hold; sorted.
    terms: Vec<usize>,
    ports: Vec<ContainerPort>,
    own_node: bool,
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
        let default = rules.outcome(&likeness, &world, decisions, columns);
        Self { id, likeness, members: 0, default, rules, views: HashMap::new(), viewed: HashMap::new() }
    }

    /// What holds for an identity that was not looked at before; `None` where it is the default.
    pub(super) fn look(
        &mut self,
        id: IdentityId,
        signature: &Signature,
        decisions: &mut Decisions,
        columns: &mut Columns,
    ) -> Option<Outcome> {
        let view = self.rules.view(signature)?;
        let outcome = match self.views.get_key_value(&view) {
            Some((view, seen)) => {
                self.viewed.insert(id, Arc::clone(view));
                seen.outcome
            }
            None => {
                let outcome = self.rules.outcome(&self.likeness, &view, decisions, columns);
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
struct Rules {
    /// All peers that they name; sorted.
    terms: Vec<TermId>,
    /// Port names that they resolve on the peer.
    names: BTreeSet<String>,
    /// For each policy, where its rules begin in `peers`.
    offsets: Vec<usize>,
    /// For each rule of each policy.
    peers: Vec<Option<Peers>>,
    /// Positions of policies that are not audited.
    in_force: Vec<usize>,
    everything: Vec<usize>,
    isolates: bool,
    /// Some rule names pods, or a port of a peer, so that it matters whether an address may be an unknown pod's.
    reads_pods: bool,
}

#[derive(Debug)]
struct Peers {
    /// Positions in `terms`.
    terms: Vec<usize>,
    pods: bool,
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
            ids.map(|ids| Peers { pods: ids.iter().any(is_pods), terms: ids.into_iter().filter_map(position).collect() })
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
    fn view(&self, signature: &Signature) -> Option<View> {
        let nobody = Reading::default();
        let readings = signature.claims.iter().map(|reading| &**reading);
        let mut claims: Vec<ClaimView> = readings.map(|reading| self.claim_view(signature, reading)).collect();
        if claims.is_empty() {
            claims.push(self.claim_view(signature, &nobody));
        }
        if claims.iter().all(|claim| *claim == claims[0]) {
            claims.truncate(1);
        }
        let view = View { claims, unknown_pod: signature.unknown_pod && self.reads_pods };
        let plain = !view.unknown_pod && matches!(view.claims.as_slice(), [only] if only.is_plain());
        (!plain).then_some(view)
    }

    fn claim_view(&self, signature: &Signature, reading: &Reading) -> ClaimView {
        let holds =
            |term: &TermId| signature.address.binary_search(term).is_ok() || reading.terms.binary_search(term).is_ok();
        let terms = self.terms.iter().enumerate().filter(|(_, term)| holds(term)).map(|(position, _)| position);
        let ports = reading.ports.iter().filter(|port| self.names.contains(&port.name)).cloned();
        ClaimView { terms: terms.collect(), ports: ports.collect(), own_node: reading.own_node && self.isolates }
    }

    fn outcome(&self, likeness: &Likeness, view: &View, decisions: &mut Decisions, columns: &mut Columns) -> Outcome {
        Judging::new(self, likeness, view).outcome(decisions, columns)
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

/// One class looking at one view.
struct Judging<'a> {
    rules: &'a Rules,
    likeness: &'a Likeness,
    view: &'a View,
    /// By claim and rule: whether the rule's peers mean it. `No` where the rule is of the other direction.
    peers: Vec<Vec<Match>>,
    /// By which rules match for each claim: positions in `judged`.
    known: HashMap<Vec<Vec<Match>>, usize>,
    judged: Vec<Judged>,
}

#[derive(Clone, Debug)]
struct Judged {
    real: Judgement,
    staged: Option<Judgement>,
}

impl Judged {
    fn decision(self) -> Decision {
        self.real.with_staged(self.staged)
    }
}

impl<'a> Judging<'a> {
    fn new(rules: &'a Rules, likeness: &'a Likeness, view: &'a View) -> Self {
        let mut judging = Self { rules, likeness, view, peers: Vec::new(), known: HashMap::new(), judged: Vec::new() };
        judging.peers = view.claims.iter().map(|claim| judging.peers_of(claim)).collect();
        judging
    }

    fn outcome(mut self, decisions: &mut Decisions, columns: &mut Columns) -> Outcome {
        let other = self.judge(Protocol::ICMP, None);
        let spaces = Protocol::WITH_PORTS.map(|protocol| {
            let starts = self.stretches(protocol);
            let stretches: Vec<(u16, usize)> =
                starts.into_iter().map(|start| (start, self.judge(protocol, Some(start)))).collect();
            stretches
        });
        let outcomes: Vec<Outcome> = self.judged.iter().map(|judged| settle(judged.clone(), decisions)).collect();
        if outcomes.iter().all(|outcome| *outcome == outcomes[other]) {
            return outcomes[other];
        }
        let [tcp, udp, sctp] = spaces.map(|stretches| {
            let fragment = settle(self.fragment(&stretches), decisions);
            let stretches: Vec<(u16, Outcome)> = stretches.iter().map(|(start, at)| (*start, outcomes[*at])).collect();
            port_space(&stretches, fragment)
        });
        let column = Column { tcp, udp, sctp, other: outcomes[other] };
        Outcome::Column(columns.retain(column))
    }

    /// First ports of the stretches that no rule tells apart, from 0.
    fn stretches(&self, protocol: Protocol) -> BTreeSet<u16> {
        let mut starts = Starts::default();
        for (position, rule) in self.rules_by_position() {
            if self.peers.iter().all(|peers| peers[position] == Match::No) {
                continue;
            }
            for term in rule.ports.iter().flatten() {
                for claim in &self.view.claims {
                    starts.add(term, self.named_on(claim), protocol);
                }
            }
        }
        let mut starts: BTreeSet<u16> = starts.into_ports().into_iter().collect();
        starts.insert(0);
        starts
    }

    /// A fragment is judged as the most restricted of all ports (E-15); port 0 is no port.
    fn fragment(&self, stretches: &[(u16, usize)]) -> Judged {
        let of_ports = || stretches.iter().filter(|(start, _)| *start > 0).map(|(_, at)| &self.judged[*at]);
        let real = Judgement::safest(of_ports().map(|judged| judged.real.clone()));
        let staged = of_ports().map(|judged| judged.staged.clone()).collect::<Option<Vec<_>>>();
        Judged { real, staged: staged.map(Judgement::safest) }
    }

    fn judge(&mut self, protocol: Protocol, port: Option<u16>) -> usize {
        let claims = self.view.claims.iter().enumerate();
        let matches: Vec<Vec<Match>> = claims.map(|(at, claim)| self.matches(at, claim, protocol, port)).collect();
        if let Some(known) = self.known.get(&matches) {
            return *known;
        }
        let staged = self.rules.in_force.len() < self.rules.everything.len();
        let judged = Judged {
            real: self.judgement(&self.rules.in_force, &matches),
            staged: staged.then(|| self.judgement(&self.rules.everything, &matches)),
        };
        self.judged.push(judged);
        self.known.insert(matches, self.judged.len() - 1);
        self.judged.len() - 1
    }

    fn judgement(&self, policies: &[usize], matches: &[Vec<Match>]) -> Judgement {
        let selected: Vec<&Policy> = policies.iter().map(|position| &*self.likeness.policies[*position].policy).collect();
        Judgement::safest(self.view.claims.iter().zip(matches).map(|(claim, matches)| {
            tiers::judge(&selected, self.likeness.direction, claim.own_node, |policy, rule| {
                matches[self.rules.offsets[policies[policy]] + rule]
            })
        }))
    }

    fn matches(&self, at: usize, claim: &ClaimView, protocol: Protocol, port: Option<u16>) -> Vec<Match> {
        let mut matches = self.peers[at].clone();
        for (position, rule) in self.rules_by_position() {
            if matches[position] != Match::No
                && rule.fault.is_none()
                && let Some(terms) = &rule.ports
            {
                let on = self.named_on(claim);
                let best = terms.iter().map(|term| ports::matches(term, on, protocol, port)).max();
                matches[position] = matches[position].min(best.unwrap_or(Match::No));
            }
        }
        matches
    }

    fn peers_of(&self, claim: &ClaimView) -> Vec<Match> {
        let mut matches = vec![Match::No; self.rules.peers.len()];
        for (position, rule) in self.rules_by_position() {
            matches[position] = match &self.rules.peers[position] {
                _ if rule.fault.is_some() => tiers::fault_matches(rule.action),
                None => Match::Certain,
                Some(peers) if peers.terms.iter().any(|term| claim.terms.binary_search(term).is_ok()) => Match::Certain,
                Some(peers) if peers.pods && self.view.unknown_pod => Match::Possible,
                Some(_) => Match::No,
            };
        }
        matches
    }

    fn named_on<'b>(&'b self, claim: &'b ClaimView) -> NamedOn<'b> {
        match self.likeness.direction {
            Direction::Ingress => NamedOn::Pod(&self.likeness.ports),
            Direction::Egress if self.view.unknown_pod => NamedOn::UnknownPod,
            Direction::Egress => NamedOn::Pod(&claim.ports),
        }
    }

    fn rules_by_position(&self) -> impl Iterator<Item = (usize, &'a Rule)> + use<'a> {
        let (likeness, rules) = (self.likeness, self.rules);
        likeness.policies.iter().zip(&rules.offsets).flat_map(move |(version, offset)| {
            let of_policy = version.policy.rules.iter().enumerate().map(move |(rule, it)| (offset + rule, it));
            of_policy.filter(move |(_, rule)| rule.direction == likeness.direction)
        })
    }
}

fn settle(judged: Judged, decisions: &mut Decisions) -> Outcome {
    let decision = judged.decision();
    Outcome::Final { verdict: decision.verdict, attribution: decisions.id(decision) }
}
