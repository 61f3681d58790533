//! The rules of each version of a policy in one direction, with their peers as terms: made once for all classes.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    hashing::QuickMap,
    policies::Version,
    terms::{TermId, Terms},
};
use crate::{
    evaluate::tiers::{self, Match},
    model::{Direction, Peer, PortMatch, Rule, Tier},
};

/// Reference-counted by the classes that use them.
#[derive(Debug, Default)]
pub(super) struct PolicyRulesCache {
    live: QuickMap<(u32, Direction), CountedRules>,
}

#[derive(Debug)]
struct CountedRules {
    rules: Arc<PolicyRules>,
    uses: usize,
}

/// The rules of one version of a policy in one direction.
#[derive(Debug)]
pub(super) struct PolicyRules {
    pub(super) version: Arc<Version>,
    /// In order.
    pub(super) rules: Vec<CompiledRule>,
    /// All peers that they name; sorted.
    pub(super) terms: Vec<TermId>,
    /// Port names that they resolve on the peer.
    pub(super) names: BTreeSet<String>,
    /// Some rule names pods, so it matters whether an address may be an unknown pod's.
    names_pods: bool,
}

/// A rule.
#[derive(Debug)]
pub(super) struct CompiledRule {
    /// Among the policy's rules of both directions.
    pub(super) position: usize,
    peers: Peers,
    /// It resolves names of ports on the peer.
    resolves_names: bool,
}

#[derive(Debug)]
enum Peers {
    /// Any peer: the rule names none, or could not be read whole.
    Any(Match),
    These {
        terms: Vec<TermId>,
        /// Pods are among them.
        pods: bool,
    },
}

impl PolicyRulesCache {
    pub(super) fn retain(
        &mut self,
        version: &Arc<Version>,
        direction: Direction,
        terms: &mut Terms,
    ) -> Arc<PolicyRules> {
        let held = self.live.entry((version.number, direction)).or_insert_with(|| {
            let rules = Arc::new(PolicyRules::new(version, direction, terms));
            CountedRules { rules, uses: 0 }
        });
        held.uses += 1;
        Arc::clone(&held.rules)
    }

    pub(super) fn release(&mut self, rules: &PolicyRules, direction: Direction, terms: &mut Terms) {
        let key = (rules.version.number, direction);
        let Some(held) = self.live.get_mut(&key) else { return };
        held.uses -= 1;
        if held.uses == 0 {
            rules.terms.iter().for_each(|term| terms.release(*term));
            rules.names.iter().for_each(|name| terms.release_name(name));
            self.live.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }
}

impl PolicyRules {
    fn new(version: &Arc<Version>, direction: Direction, terms: &mut Terms) -> Self {
        let mut used: BTreeSet<TermId> = BTreeSet::new();
        let (mut names, mut names_pods) = (BTreeSet::new(), false);
        let mut rules = Vec::new();
        let all = version.policy.rules.iter().enumerate();
        for (position, rule) in all.filter(|(_, rule)| rule.direction == direction) {
            let peers = match &rule.peers {
                _ if rule.fault.is_some() => Peers::Any(tiers::fault_matches(rule.action)),
                None => Peers::Any(Match::Certain),
                Some(peers) => {
                    let pods = peers.iter().any(|peer| matches!(peer, Peer::Pods { .. }));
                    let terms = peers.iter().map(|peer| retain_once(peer, &mut used, terms)).collect();
                    names_pods |= pods;
                    Peers::These { terms, pods }
                }
            };
            let reads = direction == Direction::Egress && rule.fault.is_none();
            names.extend(port_names(rule).filter(|_| reads).map(str::to_owned));
            rules.push(CompiledRule { position, peers, resolves_names: reads && port_names(rule).next().is_some() });
        }
        names.iter().for_each(|name| terms.retain_name(name));
        Self { version: Arc::clone(version), rules, terms: used.into_iter().collect(), names, names_pods }
    }

    /// The rule as the policy has it.
    pub(super) fn rule(&self, rule: &CompiledRule) -> &Rule {
        &self.version.policy.rules[rule.position]
    }

    /// Whether the policy changes nothing for peers that none of its rules matches: it neither isolates nor stages.
    pub(super) fn affects_matched_peers_only(&self) -> bool {
        self.version.policy.tier != Tier::NetworkPolicy && !self.version.audited
    }

    /// Whether some rule matches any peer.
    pub(super) fn matches_any_peer(&self) -> bool {
        self.rules.iter().any(|rule| rule.matches(&[], false) != Match::No)
    }

    /// Whether its rules depend on an address being possibly an unknown pod's.
    pub(super) fn reads_pods(&self) -> bool {
        self.names_pods || !self.names.is_empty()
    }

    /// The port names that are resolved on a peer that fulfils these terms.
    pub(super) fn names_read(&self, terms: &[TermId]) -> impl Iterator<Item = &str> {
        let rules = self.rules.iter().filter(|rule| rule.resolves_names);
        rules.filter(|rule| rule.matches(terms, false) != Match::No).flat_map(|rule| port_names(self.rule(rule)))
    }
}

impl CompiledRule {
    /// Whether it matches a peer that fulfils these terms, ports aside. `terms`: sorted.
    pub(super) fn matches(&self, terms: &[TermId], unknown_pod: bool) -> Match {
        match &self.peers {
            Peers::Any(matched) => *matched,
            Peers::These { terms: own, .. } if own.iter().any(|term| terms.binary_search(term).is_ok()) => {
                Match::Certain
            }
            Peers::These { pods: true, .. } if unknown_pod => Match::Possible,
            Peers::These { .. } => Match::No,
        }
    }
}

fn retain_once(peer: &Peer, used: &mut BTreeSet<TermId>, terms: &mut Terms) -> TermId {
    let id = terms.retain(peer);
    if !used.insert(id) {
        terms.release(id);
    }
    id
}

pub(super) fn port_names(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.ports.iter().flatten().filter_map(|port| match port {
        PortMatch::Named { name, .. } => Some(name.as_str()),
        PortMatch::Protocol(_) | PortMatch::Range { .. } => None,
    })
}
