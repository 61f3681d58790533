//! The walk through the tiers: admin, network policy, baseline, default. It finds the deciding rules, and the policies that
//! the verdict is attributed to.
//!
//! It does not read the fields of a rule: the caller says whether a rule matches.

use std::{cmp::Ordering, ptr};

use crate::{
    decision::{Confidence, Decision, Reason, Reference, Role, Verdict},
    model::{Action, Direction, Policy, Rule, Tier},
};

/// Whether a rule matches a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Match {
    No,
    /// It would match some of the possible owners of the address. Enough to deny, never to accept or to pass.
    Possible,
    Certain,
}

impl From<bool> for Match {
    fn from(matched: bool) -> Self {
        if matched { Self::Certain } else { Self::No }
    }
}

/// The verdict of one end's policies for one peer and port, with audited policies either left out or enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conclusion<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) tier: Option<Tier>,
    pub(crate) confidence: Confidence,
    pub(crate) parts: Vec<PolicyPart<'a>>,
}

/// One policy's part in a conclusion: a [`Reference`] before its texts are copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyPart<'a> {
    pub(crate) role: Role,
    pub(crate) policy: &'a Policy,
    pub(crate) rule: Option<&'a Rule>,
}

impl PartialEq for PolicyPart<'_> {
    /// The same rule of the same policy, not an equal one.
    fn eq(&self, other: &Self) -> bool {
        let same_rule = match (self.rule, other.rule) {
            (Some(a), Some(b)) => ptr::eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        self.role == other.role && ptr::eq(self.policy, other.policy) && same_rule
    }
}

impl Eq for PolicyPart<'_> {}

impl Conclusion<'_> {
    /// Without any policy.
    pub(crate) fn plain(verdict: Verdict, reason: Reason) -> Self {
        Self { verdict, reason, tier: None, confidence: Confidence::Exact, parts: Vec::new() }
    }

    /// The most restricted of several: the first that denies, else the first. Partial unless all are equal. An empty list
    /// does not happen; it would deny.
    pub(crate) fn safest(conclusions: impl IntoIterator<Item = Self>) -> Self {
        let mut conclusions = conclusions.into_iter();
        let Some(mut safest) = conclusions.next() else { return Self::plain(Verdict::Denied, Reason::FailClosed) };
        let mut same = true;
        for next in conclusions {
            same &= next == safest;
            if next.verdict == Verdict::Denied && safest.verdict != Verdict::Denied {
                safest = next;
            }
        }
        if !same {
            safest.confidence = Confidence::Partial;
        }
        safest
    }

    /// The decision. `staged`: the conclusion with all audited policies enforced.
    pub(crate) fn with_staged(&self, staged: Option<&Self>) -> Decision {
        let &Self { verdict, reason, tier, confidence, .. } = self;
        let verdict_if_enforced = staged.map(|staged| staged.verdict);
        let references = self.parts_with(staged).map(|part| part.reference()).collect();
        Decision { verdict, verdict_if_enforced, reason, tier, confidence, references }
    }

    /// The parts that the decision refers to, in order.
    pub(crate) fn parts_with(&self, staged: Option<&Self>) -> impl Iterator<Item = PolicyPart<'_>> {
        let deciders = staged.into_iter().flat_map(|staged| &staged.parts).filter(|part| part.role != Role::Passed);
        self.parts.iter().copied().chain(deciders.map(|part| PolicyPart { role: Role::Staged, ..*part }))
    }
}

impl PolicyPart<'_> {
    fn reference(&self) -> Reference {
        let &Self { role, policy, rule } = self;
        Reference {
            role,
            policy: policy.key.clone(),
            uid: policy.uid.clone(),
            generation: policy.generation,
            content_hash: policy.content_hash.clone(),
            tier: policy.tier,
            rule_index: rule.map(|rule| rule.index),
            rule_name: rule.map(|rule| rule.name.clone()).unwrap_or_default(),
            action: rule.map(|rule| rule.action),
        }
    }
}

/// Whether a policy applies to a direction. Rules of a direction that a network policy does not isolate are
/// ignored (N-2).
pub(crate) fn concerns(policy: &Policy, direction: Direction) -> bool {
    match policy.tier {
        Tier::NetworkPolicy => policy.isolates.in_direction(direction),
        Tier::Admin | Tier::Baseline => policy.rules.iter().any(|rule| rule.direction == direction),
    }
}

/// Order of evaluation and of listing: by tier, then priority where it counts, then name (A-1, C-2, C-3).
pub(crate) fn order(a: &Policy, b: &Policy) -> Ordering {
    let by_name = match (a.tier, b.tier) {
        (Tier::NetworkPolicy, Tier::NetworkPolicy) => {
            (&a.key.namespace, &a.key.name, &a.key.kind).cmp(&(&b.key.namespace, &b.key.name, &b.key.kind))
        }
        _ => (a.priority, &a.key.name, &a.key.kind, &a.key.namespace).cmp(&(
            b.priority,
            &b.key.name,
            &b.key.kind,
            &b.key.namespace,
        )),
    };
    a.tier.cmp(&b.tier).then(by_name)
}

/// Matches of a rule that could not be read whole: accept nothing (N-13), deny and pass everything (C-9).
pub(crate) fn fault_matches(action: Action) -> Match {
    match action {
        Action::Accept => Match::No,
        Action::Deny | Action::Pass => Match::Certain,
    }
}

/// Evaluates `policies`, which select the subject, concern the direction and stand in [`order`].
///
/// `own_node`: the peer is the subject's node. `matches` is given positions in `policies` and in a policy's rules.
pub(crate) fn evaluate<'a>(
    policies: &[&'a Policy],
    direction: Direction,
    own_node: bool,
    matches: impl Fn(usize, usize) -> Match,
) -> Conclusion<'a> {
    let mut walk = Walk { policies, direction, matches: &matches, passed: Vec::new(), doubt: false, tie: false };
    walk.ordered(Tier::Admin)
        .or_else(|| walk.network_policies(own_node))
        .or_else(|| walk.ordered(Tier::Baseline))
        .unwrap_or_else(|| walk.conclude(Verdict::Allowed, Reason::NoPolicy, None, Vec::new()))
}

struct Walk<'w, 'a, M> {
    policies: &'w [&'a Policy],
    direction: Direction,
    matches: &'w M,
    /// Rules that passed the flow on.
    passed: Vec<PolicyPart<'a>>,
    /// A rule that may match was passed over, or a rule that may not match was applied.
    doubt: bool,
    /// The API leaves the order of several rules undefined, and they disagree.
    tie: bool,
}

/// The first rule of a policy that matches.
struct Hit<'a> {
    policy: &'a Policy,
    rule: &'a Rule,
    certain: bool,
}

impl Hit<'_> {
    /// The action that is applied: a pass that could not be read whole denies (C-9).
    fn action(&self) -> Action {
        if self.rule.fault.is_some() { Action::Deny } else { self.rule.action }
    }

    fn reason(&self, tier: Tier) -> Reason {
        match (self.action(), tier) {
            (Action::Accept, Tier::Admin) => Reason::ExplicitAccept,
            (Action::Accept, _) => Reason::BaselineAccept,
            _ if self.rule.fault.is_some() => Reason::FailClosed,
            _ if !self.certain => Reason::UnknownPod,
            (_, Tier::Admin) => Reason::ExplicitDeny,
            (_, _) => Reason::BaselineDeny,
        }
    }
}

impl<'w, 'a, M: Fn(usize, usize) -> Match> Walk<'w, 'a, M> {
    /// A tier in which the first matching rule decides (C-2).
    fn ordered(&mut self, tier: Tier) -> Option<Conclusion<'a>> {
        let of_tier: Vec<usize> = self.of_tier(tier).collect();
        let (position, hit) = of_tier.iter().enumerate().find_map(|(position, policy)| {
            let (hit, doubt) = self.first_hit(*policy);
            self.doubt |= doubt;
            Some((position, hit?))
        })?;
        self.doubt |= !hit.certain;
        let rivals: Vec<Hit<'_>> = of_tier[position + 1..]
            .iter()
            .take_while(|policy| self.policies[**policy].priority == hit.policy.priority)
            .filter_map(|policy| self.first_hit(*policy).0)
            .collect();
        let tie = rivals.iter().any(|rival| rival.action() != hit.action());
        self.tie |= tie;
        // A pass decides nothing, so the tied rules have the role of the rule that passed the flow on.
        let role = if hit.action() == Action::Pass { Role::Passed } else { Role::Decided };
        let tied = rivals.iter().filter(|_| tie).map(|rival| part(rival.policy, Some(rival.rule), role));
        match hit.action() {
            Action::Pass => {
                self.passed.push(part(hit.policy, Some(hit.rule), role));
                self.passed.extend(tied);
                None
            }
            action @ (Action::Accept | Action::Deny) => {
                let verdict = if action == Action::Accept { Verdict::Allowed } else { Verdict::Denied };
                let deciders = [part(hit.policy, Some(hit.rule), role)].into_iter().chain(tied).collect();
                Some(self.conclude(verdict, hit.reason(tier), Some(tier), deciders))
            }
        }
    }

    /// The first rule of a policy that applies, and whether one before it may match too.
    fn first_hit(&self, policy: usize) -> (Option<Hit<'a>>, bool) {
        let mut doubt = false;
        let owner = self.policies[policy];
        for (position, rule) in owner.rules.iter().enumerate().filter(|(_, rule)| rule.direction == self.direction) {
            let hit = match (self.matches)(policy, position) {
                Match::No => continue,
                Match::Possible => Hit { policy: owner, rule, certain: false },
                Match::Certain => Hit { policy: owner, rule, certain: true },
            };
            if hit.certain || hit.action() == Action::Deny {
                return (Some(hit), doubt);
            }
            doubt = true;
        }
        (None, doubt)
    }

    /// The union of all rules of all policies that isolate the subject.
    fn network_policies(&mut self, own_node: bool) -> Option<Conclusion<'a>> {
        let isolating: Vec<usize> = self.of_tier(Tier::NetworkPolicy).collect();
        let tier = Some(Tier::NetworkPolicy);
        if isolating.is_empty() {
            return None;
        }
        if own_node {
            return Some(self.conclude(Verdict::Allowed, Reason::NodeLocalExempt, tier, Vec::new()));
        }
        let mut deciders = Vec::new();
        for policy in &isolating {
            let owner = self.policies[*policy];
            for (position, rule) in owner.rules.iter().enumerate() {
                if rule.direction != self.direction || rule.action != Action::Accept {
                    continue;
                }
                match (self.matches)(*policy, position) {
                    Match::No => {}
                    Match::Possible => self.doubt = true,
                    Match::Certain => deciders.push(part(owner, Some(rule), Role::Decided)),
                }
            }
        }
        if !deciders.is_empty() {
            return Some(self.conclude(Verdict::Allowed, Reason::RuleMatch, tier, deciders));
        }
        let deciders = isolating.iter().map(|policy| part(self.policies[*policy], None, Role::Isolating)).collect();
        Some(self.conclude(Verdict::Denied, Reason::IsolatedNoMatch, tier, deciders))
    }

    fn conclude(
        &self,
        verdict: Verdict,
        reason: Reason,
        tier: Option<Tier>,
        deciders: Vec<PolicyPart<'a>>,
    ) -> Conclusion<'a> {
        let confidence = match (self.doubt, self.tie) {
            (true, _) => Confidence::Partial,
            (false, true) => Confidence::Ambiguous,
            (false, false) => Confidence::Exact,
        };
        let parts = self.passed.iter().copied().chain(deciders).collect();
        Conclusion { verdict, reason, tier, confidence, parts }
    }

    fn of_tier(&self, tier: Tier) -> impl Iterator<Item = usize> + use<'w, 'a, M> {
        let policies = self.policies;
        (0..policies.len()).filter(move |policy| policies[*policy].tier == tier)
    }
}

fn part<'a>(policy: &'a Policy, rule: Option<&'a Rule>, role: Role) -> PolicyPart<'a> {
    PolicyPart { role, policy, rule }
}
