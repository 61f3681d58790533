//! The ordered tiers: unreachable rules, and priorities that two policies share.

use std::collections::{BTreeMap, HashMap};

use netverdict_policy::model::{Action, Peer, Policy, PolicyKey, PortMatch, Rule, Subject, Tier};

use super::context::{Lint, rule_path};
use crate::finding::{Invalid, Severity, code};

/// Earlier rules that a rule is compared with: rules of its own subject, and of subjects that select every pod.
const MOST_COMPARED: usize = 256;

/// Findings about each policy.
pub(super) fn check(lint: &Lint<'_>) -> BTreeMap<PolicyKey, Vec<(Severity, Invalid)>> {
    let mut found: BTreeMap<PolicyKey, Vec<(Severity, Invalid)>> = BTreeMap::new();
    let ordered = lint.snapshot.policies.values().filter(|policy| policy.tier != Tier::NetworkPolicy);
    let mut policies: Vec<&Policy> = ordered.map(AsRef::as_ref).filter(|policy| !lint.is_audited(policy)).collect();
    policies.sort_by_key(|policy| (policy.tier, policy.priority, &policy.key.name, &policy.key.kind));
    for (policy, invalid) in unreachable(&policies) {
        found.entry(policy.key.clone()).or_default().push((Severity::Warning, invalid));
    }
    for group in policies.chunk_by(|a, b| (a.tier, a.priority) == (b.tier, b.priority)).filter(|group| group.len() > 1)
    {
        for policy in group {
            let other =
                group.iter().find(|other| other.key != policy.key).map_or(String::new(), |other| other.key.to_string());
            let message = format!(
                "{} policies of the tier have priority {}, {other} among them: their order is undefined",
                group.len(),
                policy.priority
            );
            let remedy = "give each its own priority where they can match the same flow";
            let invalid = Invalid::new(code::SAME_PRIORITY, "spec.priority", message, remedy);
            found.entry(policy.key.clone()).or_default().push((Severity::Info, invalid));
        }
    }
    found
}

/// The reachable rules so far, by subject.
#[derive(Default)]
struct Earlier<'a> {
    of_everything: Vec<(&'a Policy, &'a Rule)>,
    by_subject: HashMap<&'a Subject, Vec<(&'a Policy, &'a Rule)>>,
}

fn unreachable<'a>(policies: &[&'a Policy]) -> Vec<(&'a Policy, Invalid)> {
    let mut found = Vec::new();
    for tier in policies.chunk_by(|a, b| a.tier == b.tier) {
        let mut earlier = Earlier::default();
        for policy in tier {
            for rule in &policy.rules {
                let same = earlier.by_subject.get(&policy.subject).into_iter().flatten().take(MOST_COMPARED);
                let mut candidates = earlier.of_everything.iter().take(MOST_COMPARED).chain(same);
                // The order of policies with the same priority is undefined, which has a finding of its own.
                let goes_first = |other: &Policy| other.priority != policy.priority || other.key == policy.key;
                match candidates.find(|(other, before)| {
                    before.direction == rule.direction && goes_first(other) && covers(before, rule)
                }) {
                    Some((other, before)) => {
                        let place = match other.key == policy.key {
                            true => rule_path(before.direction, before.index),
                            false => format!("{} of {}", rule_path(before.direction, before.index), other.key),
                        };
                        let message = format!("the rule is unreachable: {place} matches everything that it matches");
                        let remedy = "move it before that rule, or remove it";
                        found.push((
                            *policy,
                            Invalid::new(
                                code::UNREACHABLE_RULE,
                                rule_path(rule.direction, rule.index),
                                message,
                                remedy,
                            ),
                        ));
                    }
                    // A covered rule is not kept: its cover covers the same rules.
                    None if selects_everything(&policy.subject) => earlier.of_everything.push((policy, rule)),
                    None => earlier.by_subject.entry(&policy.subject).or_default().push((policy, rule)),
                }
            }
        }
    }
    found
}

pub(super) fn selects_everything(subject: &Subject) -> bool {
    subject.namespaces.is_everything() && subject.pods.is_everything()
}

/// Whether everything that the later rule matches is matched by the earlier one. `false` where it is hard to tell.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    if later.fault.is_some() {
        return false;
    }
    if earlier.fault.is_some() {
        return earlier.action != Action::Accept;
    }
    covers_all(earlier.peers.as_deref(), later.peers.as_deref(), covers_peer)
        && covers_all(earlier.ports.as_deref(), later.ports.as_deref(), covers_port)
}

/// `None` is everything.
fn covers_all<T>(earlier: Option<&[T]>, later: Option<&[T]>, covers: impl Fn(&T, &T) -> bool) -> bool {
    match (earlier, later) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => later.iter().all(|later| earlier.iter().any(|earlier| covers(earlier, later))),
    }
}

fn covers_peer(earlier: &Peer, later: &Peer) -> bool {
    match (earlier, later) {
        (Peer::Pods { namespaces: wide, pods }, Peer::Pods { namespaces: narrow, .. }) if pods.is_everything() => {
            wide == narrow || wide.is_everything()
        }
        (Peer::Block { cidr: wide, except }, Peer::Block { cidr: narrow, .. }) if except.is_empty() => {
            wide.contains(narrow)
        }
        (Peer::Nodes(wide), Peer::Nodes(_)) if wide.is_everything() => true,
        (earlier, later) => earlier == later,
    }
}

fn covers_port(earlier: &PortMatch, later: &PortMatch) -> bool {
    match (earlier, later) {
        (
            PortMatch::Protocol(wide),
            PortMatch::Range { protocol, .. } | PortMatch::Named { protocol: Some(protocol), .. },
        ) => wide == protocol,
        (
            PortMatch::Range { protocol: wide, first, last },
            PortMatch::Range { protocol, first: inner_first, last: inner_last },
        ) => wide == protocol && first <= inner_first && inner_last <= last,
        (earlier, later) => earlier == later,
    }
}
