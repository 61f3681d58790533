//! What the rules of one class conclude of one view, over all protocols and ports.

use std::{collections::BTreeSet, ptr};

use super::{
    catalogue::{Brief, Decisions},
    class::{Likeness, Rules},
    columns::{Columns, port_space},
    hashing::QuickMap,
    port_set::PortSet,
    scripts::Script,
    view::{ClaimView, View},
};
use crate::{
    evaluate::{
        ports::NamedOn,
        tiers::{self, Blame, Judgement, Match},
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
    /// The policies of the class, and those of them that are not audited.
    everything: Vec<&'a Policy>,
    in_force: Vec<&'a Policy>,
    /// Where the rules of each policy begin in a row of matches, by position in `everything` and in `in_force`.
    offsets: [Vec<usize>; 2],
    /// How long a row of matches is: rules of all policies, of both directions.
    width: usize,
    /// A row for each claim: whether the rule's peers mean it. `No` where the rule is of the other direction.
    peers: Vec<Match>,
    /// By which rules match for each claim: positions in `judged`.
    known: QuickMap<Vec<Match>, usize>,
    judged: Vec<Judged<'a>>,
}

/// With audited policies left out, and with them enforced; `None` where there are none.
#[derive(Clone, Debug)]
struct Judged<'a> {
    real: Judgement<'a>,
    staged: Option<Judgement<'a>>,
}

/// Rules that ask for ports, by their positions in `peers`: the ports of one protocol.
type PortSets = Vec<(usize, PortSet)>;

impl<'a> Judging<'a> {
    fn new(rules: &'a Rules, likeness: &'a Likeness, view: &'a View) -> Self {
        let mut judging = Self {
            rules,
            likeness,
            view,
            everything: Vec::new(),
            in_force: Vec::new(),
            offsets: [Vec::new(), Vec::new()],
            width: 0,
            peers: Vec::new(),
            known: QuickMap::default(),
            judged: Vec::new(),
        };
        for script in &rules.scripts {
            let policy: &Policy = &script.version.policy;
            judging.everything.push(policy);
            judging.offsets[0].push(judging.width);
            if !script.version.audited {
                judging.in_force.push(policy);
                judging.offsets[1].push(judging.width);
            }
            judging.width += policy.rules.len();
        }
        judging.peers = judging.peers();
        judging
    }

    fn outcome(mut self, decisions: &mut Decisions, columns: &mut Columns) -> Outcome {
        // Of a protocol without ports, no rule with ports matches anything (E-11).
        let other_sets = self.port_sets(Protocol::ICMP);
        let other = self.judge(&other_sets, None);
        if other_sets.is_empty() {
            return self.settle(&self.judged[other], decisions);
        }
        let spaces = Protocol::WITH_PORTS.map(|protocol| {
            let sets = self.port_sets(protocol);
            let mut starts: Vec<u16> = sets.iter().flat_map(|(_, set)| set.starts()).chain([0, 1]).collect();
            starts.sort_unstable();
            starts.dedup();
            starts.into_iter().map(|start| (start, self.judge(&sets, Some(start)))).collect::<Vec<(u16, usize)>>()
        });
        let outcomes: Vec<Outcome> = self.judged.iter().map(|judged| self.settle(judged, decisions)).collect();
        if outcomes.iter().all(|outcome| *outcome == outcomes[other]) {
            return outcomes[other];
        }
        let [tcp, udp, sctp] = spaces.map(|stretches| {
            let fragment = self.settle(&self.fragment(&stretches), decisions);
            let stretches: Vec<(u16, Outcome)> = stretches.iter().map(|(start, at)| (*start, outcomes[*at])).collect();
            port_space(&stretches, fragment)
        });
        Outcome::Column(columns.retain(Column { tcp, udp, sctp, other: outcomes[other] }))
    }

    /// A fragment is judged as the most restricted of all ports (E-15); port 0 is no port.
    fn fragment(&self, stretches: &[(u16, usize)]) -> Judged<'a> {
        let mut seen = BTreeSet::new();
        let of_ports = stretches.iter().filter(|(start, _)| *start > 0).map(|(_, at)| *at);
        let distinct: Vec<&Judged<'a>> = of_ports.filter(|at| seen.insert(*at)).map(|at| &self.judged[at]).collect();
        let staged = distinct.iter().map(|judged| judged.staged.clone()).collect::<Option<Vec<_>>>();
        Judged {
            real: Judgement::safest(distinct.into_iter().map(|judged| judged.real.clone())),
            staged: staged.map(Judgement::safest),
        }
    }

    fn judge(&mut self, sets: &PortSets, port: Option<u16>) -> usize {
        let mut matches = self.peers.clone();
        for (position, set) in sets {
            matches[*position] = matches[*position].min(port.map_or(Match::No, |port| set.holds(port)));
        }
        if let Some(known) = self.known.get(&matches) {
            return *known;
        }
        let staged = self.in_force.len() < self.everything.len();
        let judged = Judged {
            real: self.judgement(&self.in_force, &self.offsets[1], &matches),
            staged: staged.then(|| self.judgement(&self.everything, &self.offsets[0], &matches)),
        };
        self.judged.push(judged);
        self.known.insert(matches, self.judged.len() - 1);
        self.judged.len() - 1
    }

    /// By these policies. An address that several claim is judged as each of them.
    fn judgement(&self, policies: &[&'a Policy], offsets: &[usize], matches: &[Match]) -> Judgement<'a> {
        let claims = self.view.claims.iter().enumerate();
        Judgement::safest(claims.map(|(row, claim)| {
            tiers::judge(policies, self.likeness.direction, claim.own_node, |policy, rule| {
                matches[row * self.width + offsets[policy] + rule]
            })
        }))
    }

    fn peers(&self) -> Vec<Match> {
        let mut matches = vec![Match::No; self.width * self.view.claims.len()];
        for (row, claim) in self.view.claims.iter().enumerate() {
            for (script, offset) in self.scripts() {
                for line in &script.lines {
                    let position = row * self.width + offset + line.position;
                    matches[position] = line.matches(&claim.terms, self.view.unknown_pod);
                }
            }
        }
        matches
    }

    /// Of the rules whose peers mean a claim. Rules that could not be read whole do not ask for ports.
    fn port_sets(&self, protocol: Protocol) -> PortSets {
        let mut sets = Vec::new();
        for (row, claim) in self.view.claims.iter().enumerate() {
            let on = self.named_on(claim);
            for (script, offset) in self.scripts() {
                for line in &script.lines {
                    let position = row * self.width + offset + line.position;
                    let rule: &Rule = script.rule(line);
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

    fn named_on<'b>(&'b self, claim: &'b ClaimView) -> NamedOn<'b> {
        match self.likeness.direction {
            Direction::Ingress => NamedOn::Pod(&self.likeness.ports),
            Direction::Egress if self.view.unknown_pod => NamedOn::UnknownPod,
            Direction::Egress => NamedOn::Pod(&claim.ports),
        }
    }

    fn scripts(&self) -> impl Iterator<Item = (&'a Script, usize)> {
        self.rules.scripts.iter().map(|script| &**script).zip(self.offsets[0].iter().copied())
    }

    fn settle(&self, judged: &Judged<'a>, decisions: &mut Decisions) -> Outcome {
        let Judged { real, staged } = judged;
        let brief = Brief {
            verdict: real.verdict,
            verdict_if_enforced: staged.as_ref().map(|staged| staged.verdict),
            reason: real.reason,
            tier: real.tier,
            confidence: real.confidence,
            references: real.blames_with(staged.as_ref()).map(|blame| self.numbers(&blame)).collect(),
        };
        let attribution = decisions.of_brief(brief, || real.with_staged(staged.as_ref()));
        Outcome::Final { verdict: real.verdict, attribution }
    }

    fn numbers(&self, blame: &Blame<'_>) -> (crate::decision::Role, u32, Option<usize>) {
        let script = self.rules.scripts.iter().find(|script| ptr::eq(&*script.version.policy, blame.policy));
        let number = script.map_or(0, |script| script.version.number);
        let position = |rule: &Rule| blame.policy.rules.iter().position(|own| ptr::eq(own, rule));
        (blame.role, number, blame.rule.and_then(position))
    }
}
