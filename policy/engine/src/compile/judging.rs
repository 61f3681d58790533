//! What the rules of one class conclude of one view, over all protocols and ports.

use std::collections::{BTreeSet, HashMap};

use super::{
    catalogue::Decisions,
    class::{ClaimView, Likeness, Rules, View},
    columns::{Columns, port_space},
    port_set::PortSet,
};
use crate::{
    evaluate::{
        ports::NamedOn,
        tiers::{self, Judgement, Match},
    },
    model::{Direction, Policy, Protocol, Rule},
    tables::{Column, Outcome},
};

/// The outcome, as a column where ports matter.
pub(super) fn outcome(
    rules: &Rules,
    likeness: &Likeness,
    view: &View,
    decisions: &mut Decisions,
    columns: &mut Columns,
) -> Outcome {
    Judging::new(rules, likeness, view).outcome(decisions, columns)
}

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

/// With audited policies left out, and with them enforced; `None` where there are none.
#[derive(Clone, Debug)]
struct Judged {
    real: Judgement,
    staged: Option<Judgement>,
}

/// Rules that ask for ports: for each claim and rule, the ports of one protocol.
type PortSets = Vec<Vec<(usize, PortSet)>>;

impl<'a> Judging<'a> {
    fn new(rules: &'a Rules, likeness: &'a Likeness, view: &'a View) -> Self {
        let mut judging = Self { rules, likeness, view, peers: Vec::new(), known: HashMap::new(), judged: Vec::new() };
        judging.peers = view.claims.iter().map(|claim| judging.peers_of(claim)).collect();
        judging
    }

    fn outcome(mut self, decisions: &mut Decisions, columns: &mut Columns) -> Outcome {
        // Of a protocol without ports, no rule with ports matches anything (E-11).
        let other = self.judge(&self.port_sets(Protocol::ICMP), None);
        let spaces = Protocol::WITH_PORTS.map(|protocol| {
            let sets = self.port_sets(protocol);
            let starts =
                BTreeSet::from([0, 1]).into_iter().chain(sets.iter().flatten().flat_map(|(_, set)| set.starts()));
            let starts: BTreeSet<u16> = starts.collect();
            starts.into_iter().map(|start| (start, self.judge(&sets, Some(start)))).collect::<Vec<(u16, usize)>>()
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
        Outcome::Column(columns.retain(Column { tcp, udp, sctp, other: outcomes[other] }))
    }

    /// A fragment is judged as the most restricted of all ports (E-15); port 0 is no port.
    fn fragment(&self, stretches: &[(u16, usize)]) -> Judged {
        let mut seen = BTreeSet::new();
        let of_ports = stretches.iter().filter(|(start, _)| *start > 0).map(|(_, at)| *at);
        let distinct: Vec<&Judged> = of_ports.filter(|at| seen.insert(*at)).map(|at| &self.judged[at]).collect();
        let staged = distinct.iter().map(|judged| judged.staged.clone()).collect::<Option<Vec<_>>>();
        Judged {
            real: Judgement::safest(distinct.into_iter().map(|judged| judged.real.clone())),
            staged: staged.map(Judgement::safest),
        }
    }

    fn judge(&mut self, sets: &PortSets, port: Option<u16>) -> usize {
        let mut matches = self.peers.clone();
        for (matches, sets) in matches.iter_mut().zip(sets) {
            for (position, set) in sets {
                matches[*position] = matches[*position].min(port.map_or(Match::No, |port| set.holds(port)));
            }
        }
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

    /// By the policies at these positions. An address that several claim is judged as each of them.
    fn judgement(&self, policies: &[usize], matches: &[Vec<Match>]) -> Judgement {
        let selected: Vec<&Policy> =
            policies.iter().map(|position| &*self.likeness.policies[*position].policy).collect();
        Judgement::safest(self.view.claims.iter().zip(matches).map(|(claim, matches)| {
            tiers::judge(&selected, self.likeness.direction, claim.own_node, |policy, rule| {
                matches[self.rules.offsets[policies[policy]] + rule]
            })
        }))
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

    fn port_sets(&self, protocol: Protocol) -> PortSets {
        let sets = |(claim, peers): (&ClaimView, &Vec<Match>)| {
            let on = match self.likeness.direction {
                Direction::Ingress => NamedOn::Pod(&self.likeness.ports),
                Direction::Egress if self.view.unknown_pod => NamedOn::UnknownPod,
                Direction::Egress => NamedOn::Pod(&claim.ports),
            };
            let asking = self.rules_by_position().filter(|(position, _)| peers[*position] != Match::No);
            asking
                .filter(|(_, rule)| rule.fault.is_none())
                .filter_map(|(position, rule)| Some((position, PortSet::new(rule.ports.as_ref()?, on, protocol))))
                .collect()
        };
        self.view.claims.iter().zip(&self.peers).map(sets).collect()
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
    let decision = judged.real.with_staged(judged.staged);
    Outcome::Final { verdict: decision.verdict, attribution: decisions.id(decision) }
}
