//! The rules of a class, and which attributes of a peer they read.

use std::sync::Arc;

use super::{
    class_key::ClassKey,
    policy_rules::{PolicyRules, PolicyRulesCache},
    terms::{TermId, Terms},
};
use crate::model::{Direction, Tier};

#[derive(Debug)]
pub(super) struct ClassRules {
    /// One for each policy, in order of evaluation.
    pub(super) policies: Vec<Arc<PolicyRules>>,
    /// All peers that they name; sorted.
    pub(super) terms: Vec<TermId>,
    /// A network policy is among them, so it matters whether a peer is the subject's node.
    pub(super) isolates: bool,
    /// A rule names pods, or a port of a peer, so it matters whether an address may be an unknown pod's.
    pub(super) reads_pods: bool,
    /// A rule resolves a port's name on the peer.
    pub(super) reads_names: bool,
}

impl ClassRules {
    pub(super) fn new(key: &ClassKey, cache: &mut PolicyRulesCache, terms: &mut Terms) -> Self {
        let versions = key.policies.iter();
        let policies: Vec<Arc<PolicyRules>> =
            versions.map(|version| cache.retain(version, key.direction, terms)).collect();
        let mut terms: Vec<TermId> = policies.iter().flat_map(|policy| policy.terms.iter().copied()).collect();
        terms.sort_unstable();
        terms.dedup();
        Self {
            terms,
            isolates: key.policies.iter().any(|version| version.policy.tier == Tier::NetworkPolicy),
            reads_pods: policies.iter().any(|policy| policy.reads_pods()),
            reads_names: policies.iter().any(|policy| !policy.names.is_empty()),
            policies,
        }
    }

    /// To be called when the class is removed.
    pub(super) fn release(&self, direction: Direction, cache: &mut PolicyRulesCache, terms: &mut Terms) {
        for policy in &self.policies {
            cache.release(policy, direction, terms);
        }
    }
}
