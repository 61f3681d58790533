//! What each version of a policy says of one direction, its peers as terms: read once for all classes.

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

/// Counted by the classes that go by them.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    live: QuickMap<(u32, Direction), Held>,
}

#[derive(Debug)]
struct Held {
    script: Arc<Script>,
    uses: usize,
}

/// The rules of one version of a policy in one direction.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) version: Arc<Version>,
    /// In order.
    pub(super) lines: Vec<Line>,
    /// All peers that they name; sorted.
    pub(super) terms: Vec<TermId>,
    /// Port names that they resolve on the peer.
    pub(super) names: BTreeSet<String>,
    /// Some rule names pods, so that it matters whether an address may be an unknown pod's.
    names_pods: bool,
}

/// A rule.
#[derive(Debug)]
pub(super) struct Line {
    /// Among the policy's rules of both directions.
    pub(super) position: usize,
    peers: Peers,
    /// It resolves names of ports on the peer.
    names: bool,
}

#[derive(Debug)]
enum Peers {
    /// Whoever it is, by what the rule cannot say: it names no peers, or could not be read whole.
    Always(Match),
    These {
        terms: Vec<TermId>,
        pods: bool,
    },
}

impl Scripts {
    pub(super) fn retain(&mut self, version: &Arc<Version>, direction: Direction, terms: &mut Terms) -> Arc<Script> {
        let held = self.live.entry((version.number, direction)).or_insert_with(|| {
            let script = Arc::new(Script::new(version, direction, terms));
            Held { script, uses: 0 }
        });
        held.uses += 1;
        Arc::clone(&held.script)
    }

    pub(super) fn release(&mut self, script: &Script, direction: Direction, terms: &mut Terms) {
        let key = (script.version.number, direction);
        let Some(held) = self.live.get_mut(&key) else { return };
        held.uses -= 1;
        if held.uses == 0 {
            script.terms.iter().for_each(|term| terms.release(*term));
            script.names.iter().for_each(|name| terms.release_name(name));
            self.live.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }
}

impl Script {
    fn new(version: &Arc<Version>, direction: Direction, terms: &mut Terms) -> Self {
        let mut used: BTreeSet<TermId> = BTreeSet::new();
        let (mut names, mut names_pods) = (BTreeSet::new(), false);
        let mut lines = Vec::new();
        let rules = version.policy.rules.iter().enumerate();
        for (position, rule) in rules.filter(|(_, rule)| rule.direction == direction) {
            let peers = match &rule.peers {
                _ if rule.fault.is_some() => Peers::Always(tiers::fault_matches(rule.action)),
                None => Peers::Always(Match::Certain),
                Some(peers) => {
                    let pods = peers.iter().any(|peer| matches!(peer, Peer::Pods { .. }));
                    let terms = peers.iter().map(|peer| retain_once(peer, &mut used, terms)).collect();
                    names_pods |= pods;
                    Peers::These { terms, pods }
                }
            };
            let reads = direction == Direction::Egress && rule.fault.is_none();
            names.extend(port_names(rule).filter(|_| reads).map(str::to_owned));
            lines.push(Line { position, peers, names: reads && port_names(rule).next().is_some() });
        }
        names.iter().for_each(|name| terms.retain_name(name));
        Self { version: Arc::clone(version), lines, terms: used.into_iter().collect(), names, names_pods }
    }

    pub(super) fn rule(&self, line: &Line) -> &Rule {
        &self.version.policy.rules[line.position]
    }

    /// Whether who is not meant by any rule of it is judged as without it.
    pub(super) fn is_silent_unless_it_matches(&self) -> bool {
        self.version.policy.tier != Tier::NetworkPolicy && !self.version.audited
    }

    /// Some rule matches whoever the peer is.
    pub(super) fn means_everybody(&self) -> bool {
        self.lines.iter().any(|line| line.matches(&[], false) != Match::No)
    }

    /// Whether it matters to it that an address may be an unknown pod's.
    pub(super) fn reads_pods(&self) -> bool {
        self.names_pods || !self.names.is_empty()
    }

    /// The port names that are resolved on a peer of which these terms hold.
    pub(super) fn names_read(&self, terms: &[TermId]) -> impl Iterator<Item = &str> {
        let lines = self.lines.iter().filter(|line| line.names);
        lines.filter(|line| line.matches(terms, false) != Match::No).flat_map(|line| port_names(self.rule(line)))
    }
}

impl Line {
    /// Whether it means a peer of which these terms hold, ports aside. `terms`: sorted.
    pub(super) fn matches(&self, terms: &[TermId], unknown_pod: bool) -> Match {
        match &self.peers {
            Peers::Always(matched) => *matched,
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
