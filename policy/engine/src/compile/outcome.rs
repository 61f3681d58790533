//! The outcome of a class's rules for one view, over all protocols and ports.

use std::{collections::BTreeSet, ptr};

use super::{
    catalogue::{DecisionKey, Decisions},
    class_key::ClassKey,
    class_rules::ClassRules,
    columns::{Columns, port_space},
    hashing::QuickMap,
    policy_rules::PolicyRules,
    port_set::PortSet,
    view::{ClaimantView, PeerView},
};
use crate::{
    evaluate::{
        ports::NamedOn,
        tiers::{self, Conclusion, Match, PolicyPart},
    },
    model::{Direction, Policy, Protocol, Rule},
    tables::{Column, Outcome},
};

/// The outcome, as a column where ports matter.
pub(super) fn evaluate(
    rules: &ClassRules,
    key: &ClassKey,
    view: &PeerView,
    decisions: &mut Decisions,
    columns: &mut Columns,
) -> Outcome {
    OutcomeBuilder::new(rules, key, view).outcome(decisions, columns)
}

struct OutcomeBuilder<'a> {
    rules: &'a ClassRules,
    key: &'a ClassKey,
    view: &'a PeerView,
    /// The policies of the class, and those of them that are not audited.
    everything: Vec<&'a Policy>,
    in_force: Vec<&'a Policy>,
    /// Where the rules of each policy begin in a row of matches, by position in `everything` and in `in_force`.
    offsets: [Vec<usize>; 2],
    /// How long a row of matches is: rules of all policies, of both directions.
    width: usize,
    /// A row for each owner of the address: whether the rule's peers match it. `No` where the rule is of the other
    /// direction.
    peers: Vec<Match>,
    /// Positions in `evaluated`, by the matches of all rules: many ports have the same.
    known: QuickMap<Vec<Match>, usize>,
    evaluated: Vec<Evaluated<'a>>,
}

/// With audited policies left out, and with them enforced; `None` where there are none.
#[derive(Clone, Debug)]
struct Evaluated<'a> {
    real: Conclusion<'a>,
    staged: Option<Conclusion<'a>>,
}

/// Rules that name ports, by their positions in `peers`, with their ports of one protocol.
type PortSets = Vec<(usize, PortSet)>;

impl<'a> OutcomeBuilder<'a> {
    fn new(rules: &'a ClassRules, key: &'a ClassKey, view: &'a PeerView) -> Self {
        let mut builder = Self {
            rules,
            key,
            view,
            everything: Vec::new(),
            in_force: Vec::new(),
            offsets: [Vec::new(), Vec::new()],
            width: 0,
            peers: Vec::new(),
            known: QuickMap::default(),
            evaluated: Vec::new(),
        };
        for policy_rules in &rules.policies {
            let policy: &Policy = &policy_rules.version.policy;
            builder.everything.push(policy);
            builder.offsets[0].push(builder.width);
            if !policy_rules.version.audited {
                builder.in_force.push(policy);
                builder.offsets[1].push(builder.width);
            }
            builder.width += policy.rules.len();
        }
        builder.peers = builder.peers();
        builder
    }

    fn outcome(mut self, decisions: &mut Decisions, columns: &mut Columns) -> Outcome {
        // Of a protocol without ports, rules with ports never match (E-11).
        let other_sets = self.port_sets(Protocol::ICMP);
        let other = self.evaluate(&other_sets, None);
        if other_sets.is_empty() {
            return self.final_outcome(&self.evaluated[other], decisions);
        }
        let spaces = Protocol::WITH_PORTS.map(|protocol| {
            let sets = self.port_sets(protocol);
            let mut starts: Vec<u16> = sets.iter().flat_map(|(_, set)| set.starts()).chain([0, 1]).collect();
            starts.sort_unstable();
            starts.dedup();
            starts.into_iter().map(|start| (start, self.evaluate(&sets, Some(start)))).collect::<Vec<(u16, usize)>>()
        });
        let outcomes: Vec<Outcome> =
            self.evaluated.iter().map(|evaluated| self.final_outcome(evaluated, decisions)).collect();
        if outcomes.iter().all(|outcome| *outcome == outcomes[other]) {
            return outcomes[other];
        }
        let [tcp, udp, sctp] = spaces.map(|stretches| {
            let fragment = self.final_outcome(&self.fragment(&stretches), decisions);
            let stretches: Vec<(u16, Outcome)> = stretches.iter().map(|(start, at)| (*start, outcomes[*at])).collect();
            port_space(&stretches, fragment)
        });
        Outcome::Column(columns.retain(Column { tcp, udp, sctp, other: outcomes[other] }))
    }

    /// A fragment counts as the most restricted of all ports (E-15); port 0 is no port.
    fn fragment(&self, stretches: &[(u16, usize)]) -> Evaluated<'a> {
        let mut seen = BTreeSet::new();
        let of_ports = stretches.iter().filter(|(start, _)| *start > 0).map(|(_, at)| *at);
        let distinct: Vec<&Evaluated<'a>> =
            of_ports.filter(|at| seen.insert(*at)).map(|at| &self.evaluated[at]).collect();
        let staged = distinct.iter().map(|evaluated| evaluated.staged.clone()).collect::<Option<Vec<_>>>();
        Evaluated {
            real: Conclusion::safest(distinct.into_iter().map(|evaluated| evaluated.real.clone())),
            staged: staged.map(Conclusion::safest),
        }
    }

    fn evaluate(&mut self, sets: &PortSets, port: Option<u16>) -> usize {
        let mut matches = self.peers.clone();
        for (position, set) in sets {
            matches[*position] = matches[*position].min(port.map_or(Match::No, |port| set.holds(port)));
        }
        if let Some(known) = self.known.get(&matches) {
            return *known;
        }
        let staged = self.in_force.len() < self.everything.len();
        let evaluated = Evaluated {
            real: self.conclusion(&self.in_force, &self.offsets[1], &matches),
            staged: staged.then(|| self.conclusion(&self.everything, &self.offsets[0], &matches)),
        };
        self.evaluated.push(evaluated);
        self.known.insert(matches, self.evaluated.len() - 1);
        self.evaluated.len() - 1
    }

    /// By these policies. An address with several owners counts as the most restricted of them.
    fn conclusion(&self, policies: &[&'a Policy], offsets: &[usize], matches: &[Match]) -> Conclusion<'a> {
        let claims = self.view.claims.iter().enumerate();
        Conclusion::safest(claims.map(|(row, claim)| {
            tiers::evaluate(policies, self.key.direction, claim.own_node, |policy, rule| {
                matches[row * self.width + offsets[policy] + rule]
            })
        }))
    }

    fn peers(&self) -> Vec<Match> {
        let mut matches = vec![Match::No; self.width * self.view.claims.len()];
        for (row, claim) in self.view.claims.iter().enumerate() {
            for (policy, offset) in self.policies() {
                for rule in &policy.rules {
                    let position = row * self.width + offset + rule.position;
                    matches[position] = rule.matches(&claim.terms, self.view.unknown_pod);
                }
            }
        }
        matches
    }

    /// The ports of rules whose peers match. Rules that could not be read whole name none.
    fn port_sets(&self, protocol: Protocol) -> PortSets {
        let mut sets = Vec::new();
        for (row, claim) in self.view.claims.iter().enumerate() {
            let on = self.named_on(claim);
            for (policy, offset) in self.policies() {
                for rule in &policy.rules {
                    let position = row * self.width + offset + rule.position;
                    let rule: &Rule = policy.rule(rule);
                    if let Some(ports) = rule.ports.as_ref().filter(|_| rule.fault.is_none())
                        && self.peers[position] != Match::No
                    {
                        sets.push((position, PortSet::new(ports, on, protocol)));
                    }
                }
            }
        }
        sets
    }

    fn named_on<'b>(&'b self, claim: &'b ClaimantView) -> NamedOn<'b> {
        match self.key.direction {
            Direction::Ingress => NamedOn::Pod(&self.key.ports),
            Direction::Egress if self.view.unknown_pod => NamedOn::UnknownPod,
            Direction::Egress => NamedOn::Pod(&claim.ports),
        }
    }

    /// With where the rules of each begin in a row of matches.
    fn policies(&self) -> impl Iterator<Item = (&'a PolicyRules, usize)> {
        self.rules.policies.iter().map(|policy| &**policy).zip(self.offsets[0].iter().copied())
    }

    fn final_outcome(&self, evaluated: &Evaluated<'a>, decisions: &mut Decisions) -> Outcome {
        let Evaluated { real, staged } = evaluated;
        let brief = DecisionKey {
            verdict: real.verdict,
            verdict_if_enforced: staged.as_ref().map(|staged| staged.verdict),
            reason: real.reason,
            tier: real.tier,
            confidence: real.confidence,
            references: real.parts_with(staged.as_ref()).map(|part| self.numbers(&part)).collect(),
        };
        let attribution = decisions.id_by_key(brief, || real.with_staged(staged.as_ref()));
        Outcome::Final { verdict: real.verdict, attribution }
    }

    fn numbers(&self, part: &PolicyPart<'_>) -> (crate::decision::Role, u32, Option<usize>) {
        let own = self.rules.policies.iter().find(|own| ptr::eq(&*own.version.policy, part.policy));
        let number = own.map_or(0, |own| own.version.number);
        let position = |rule: &Rule| part.policy.rules.iter().position(|own| ptr::eq(own, rule));
        (part.role, number, part.rule.and_then(position))
    }
}
