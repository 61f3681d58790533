//! Pods that cannot reach DNS because of egress policies, which is rarely intended.
//!
//! A pod is cut off where the evaluation of all tiers ends in a denial for port 53 of every name server. Where that is not
//! certain, the pod counts as not cut off: a rule that may match a name server accepts it and does not deny it. Without known
//! name servers, every peer may be one. Without known pods, the subject of each policy is checked instead.

mod servers;

use std::collections::{BTreeMap, BTreeSet};

use netverdict_policy::model::{
    Action, Direction, Labels, NamespaceScope, Pod, Policy, PolicyKey, Protocol, Subject, Tier,
};

use self::servers::{Match, Servers};
use super::{
    context::{Lint, rule_path},
    order::selects_everything,
};
use crate::{
    finding::{Invalid, Report, code},
    selector::matches,
};

/// The protocols of DNS.
const PROTOCOLS: [Protocol; 2] = [Protocol::UDP, Protocol::TCP];

/// A policy with a decision about egress. Audited policies have none.
struct EgressPolicy<'a> {
    policy: &'a Policy,
    /// Names of the namespaces of its subject.
    namespaces: BTreeSet<&'a str>,
    rules: Vec<DnsRule>,
}

/// An egress rule, reduced to whether it matches DNS.
struct DnsRule {
    index: u32,
    action: Action,
    /// For each of [`PROTOCOLS`].
    matches: [Match; 2],
}

/// The sender of DNS queries.
#[derive(Clone, Copy)]
enum Client<'a> {
    Pod(&'a Pod),
    /// Any pod that a policy's subject selects.
    Subject(&'a Subject),
}

/// Why a client cannot reach DNS.
enum Denial<'a> {
    /// These policies isolate it, and none of their rules can match a name server.
    ByIsolation(Vec<&'a Policy>),
    ByRule(&'a PolicyKey, u32),
}

/// The result of one ordered tier.
enum TierResult<'a> {
    Accepted,
    Denied(&'a PolicyKey, u32),
    Passed,
}

/// The policy that denies, and its rule if it is of an ordered tier.
type Cause<'a> = (&'a PolicyKey, Option<u32>);

/// The pods that cannot reach DNS by one protocol.
#[derive(Clone, Copy, Default)]
struct Affected<'a> {
    count: usize,
    /// `None` where no pods are known and a subject was checked.
    first: Option<&'a Pod>,
}

/// The result for all pods.
pub(super) struct DnsCheck<'a> {
    /// Policies of the ordered tiers, in order of evaluation.
    ordered: Vec<EgressPolicy<'a>>,
    /// Policies of the network policy tier, by namespace.
    isolating: BTreeMap<&'a str, Vec<EgressPolicy<'a>>>,
    /// For each of [`PROTOCOLS`].
    cut_off: BTreeMap<Cause<'a>, [Affected<'a>; 2]>,
}

impl<'a> DnsCheck<'a> {
    pub(super) fn of(lint: &Lint<'a>) -> Self {
        let servers = Servers::of(lint);
        let mut check = Self { ordered: Vec::new(), isolating: BTreeMap::new(), cut_off: BTreeMap::new() };
        for policy in lint.snapshot.policies.values().filter(|policy| !lint.is_audited(policy)) {
            let egress = || EgressPolicy::of(lint, &servers, policy);
            match policy.tier {
                Tier::Admin | Tier::Baseline => check.ordered.push(egress()),
                Tier::NetworkPolicy if policy.isolates.egress => {
                    check.isolating.entry(&policy.key.namespace).or_default().push(egress());
                }
                Tier::NetworkPolicy => {}
            }
        }
        check.ordered.sort_by_key(|EgressPolicy { policy, .. }| (policy.tier, policy.priority, &policy.key.name));
        if lint.pods.is_empty() {
            check.check_subjects();
        } else {
            check.check_pods(lint);
        }
        check
    }

    pub(super) fn report(&self, policy: &'a Policy, report: &mut Report) {
        let of_policy = self.cut_off.range((&policy.key, None)..=(&policy.key, Some(u32::MAX)));
        for ((_, index), [by_udp, by_tcp]) in of_policy {
            let (field, cause, before) = match index {
                None => ("spec.egress".to_owned(), "no rule of any policy allows", ""),
                Some(index) => (rule_path(Direction::Egress, *index), "the rule denies", " before this one"),
            };
            if let Some(pods) = by_udp.text() {
                let message = format!("{cause} DNS queries (port 53) of {pods}");
                let remedy = format!("add an egress rule for UDP and TCP port 53 to the name servers{before}");
                report.warning(Invalid::new(code::DNS_CUT_OFF, field, message, remedy));
            } else if let Some(pods) = by_tcp.text() {
                let message =
                    format!("{cause} DNS queries by TCP of {pods}: answers that do not fit into one UDP datagram fail");
                let remedy = format!("add an egress rule for TCP port 53 to the name servers{before}");
                report.info(Invalid::new(code::DNS_CUT_OFF, field, message, remedy));
            }
        }
    }

    fn check_pods(&mut self, lint: &Lint<'a>) {
        // Policies distinguish pods by namespace and labels only.
        let mut alike: BTreeMap<(&str, &Labels), Vec<&'a Pod>> = BTreeMap::new();
        for pod in lint.pods.iter() {
            alike.entry((&pod.namespace, &pod.labels)).or_default().push(pod);
        }
        for pods in alike.values() {
            for (protocol, denial) in self.denials(Client::Pod(pods[0])) {
                for cause in denial.causes() {
                    let affected = &mut self.cut_off.entry(cause).or_default()[protocol];
                    affected.first = affected.first.or(Some(pods[0]));
                    affected.count += pods.len();
                }
            }
        }
    }

    fn check_subjects(&mut self) {
        let all = self.ordered.iter().chain(self.isolating.values().flatten());
        let policies: Vec<&'a Policy> = all.map(|egress| egress.policy).collect();
        for policy in policies {
            for (protocol, denial) in self.denials(Client::Subject(&policy.subject)) {
                // The subjects of the other policies are checked in their turn.
                for cause in denial.causes().into_iter().filter(|(key, _)| *key == &policy.key) {
                    self.cut_off.entry(cause).or_default()[protocol] = Affected { count: 1, first: None };
                }
            }
        }
    }

    /// The protocols, by position in [`PROTOCOLS`], by which the client cannot reach DNS.
    fn denials(&self, client: Client<'_>) -> Vec<(usize, Denial<'a>)> {
        let selecting = |egress: &&EgressPolicy<'a>| egress.selects(client);
        let ordered: Vec<&EgressPolicy<'a>> = self.ordered.iter().filter(selecting).collect();
        let baseline = ordered.partition_point(|egress| egress.policy.tier == Tier::Admin);
        let (admin, baseline) = ordered.split_at(baseline);
        let isolating = client.namespace().and_then(|namespace| self.isolating.get(namespace));
        let isolating: Vec<&EgressPolicy<'a>> = isolating.into_iter().flatten().filter(selecting).collect();
        (0..PROTOCOLS.len())
            .filter_map(|protocol| Some((protocol, evaluate(admin, &isolating, baseline, protocol)?)))
            .collect()
    }
}

/// `None` where the client can reach a name server.
fn evaluate<'a>(
    admin: &[&EgressPolicy<'a>],
    isolating: &[&EgressPolicy<'a>],
    baseline: &[&EgressPolicy<'a>],
    protocol: usize,
) -> Option<Denial<'a>> {
    match ordered_tier(admin, protocol) {
        TierResult::Accepted => return None,
        TierResult::Denied(policy, index) => return Some(Denial::ByRule(policy, index)),
        TierResult::Passed => {}
    }
    if !isolating.is_empty() {
        let mut found = isolating.iter().flat_map(|egress| &egress.rules).map(|rule| rule.matches[protocol]);
        let open = found.any(|found| found > Match::No);
        return (!open).then(|| Denial::ByIsolation(isolating.iter().map(|egress| egress.policy).collect()));
    }
    match ordered_tier(baseline, protocol) {
        TierResult::Denied(policy, index) => Some(Denial::ByRule(policy, index)),
        TierResult::Accepted | TierResult::Passed => None,
    }
}

fn ordered_tier<'a>(policies: &[&EgressPolicy<'a>], protocol: usize) -> TierResult<'a> {
    let mut may_pass = false;
    for egress in policies {
        for rule in &egress.rules {
            match (rule.action, rule.matches[protocol]) {
                (Action::Accept, Match::Maybe | Match::Certain) => return TierResult::Accepted,
                (Action::Deny, Match::Certain) if may_pass => return TierResult::Passed,
                (Action::Deny, Match::Certain) => return TierResult::Denied(&egress.policy.key, rule.index),
                (Action::Pass, Match::Certain) => return TierResult::Passed,
                (Action::Pass, Match::Maybe) => may_pass = true,
                (Action::Deny, Match::Maybe) | (_, Match::No) => {}
            }
        }
    }
    TierResult::Passed
}

impl<'a> EgressPolicy<'a> {
    fn of(lint: &Lint<'a>, servers: &Servers<'_>, policy: &'a Policy) -> Self {
        let egress = policy.rules.iter().filter(|rule| rule.direction == Direction::Egress);
        let rules = egress.filter_map(|rule| {
            let (action, matches) = match (&rule.fault, rule.action) {
                (None, action) => (action, servers.match_rule(lint, rule, PROTOCOLS)),
                (Some(_), Action::Accept) => return None,
                // It denies everything (C-9).
                (Some(_), Action::Deny | Action::Pass) => (Action::Deny, [Match::Certain; 2]),
            };
            Some(DnsRule { index: rule.index, action, matches })
        });
        Self { policy, namespaces: lint.pods.namespaces(&policy.subject.namespaces), rules: rules.collect() }
    }

    /// Whether the policy certainly selects the client: the policy's subject is at least as wide as the client's.
    fn selects(&self, client: Client<'_>) -> bool {
        let subject = &self.policy.subject;
        match client {
            Client::Pod(pod) => self.namespaces.contains(pod.namespace.as_str()) && matches(&subject.pods, &pod.labels),
            Client::Subject(narrow) => {
                selects_everything(subject)
                    || subject.namespaces == narrow.namespaces
                        && (subject.pods == narrow.pods || subject.pods.is_everything())
            }
        }
    }
}

impl Client<'_> {
    /// The namespace whose network policies apply.
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pod(pod) => Some(&pod.namespace),
            Self::Subject(Subject { namespaces: NamespaceScope::Named(name), .. }) => Some(name),
            Self::Subject(_) => None,
        }
    }
}

impl<'a> Denial<'a> {
    fn causes(self) -> Vec<Cause<'a>> {
        match self {
            Self::ByIsolation(policies) => policies.into_iter().map(|policy| (&policy.key, None)).collect(),
            Self::ByRule(policy, index) => vec![(policy, Some(index))],
        }
    }
}

impl Affected<'_> {
    /// The number of pods and one of them, for the message.
    fn text(self) -> Option<String> {
        let Some(first) = self.first else { return (self.count > 0).then(|| "the pods".to_owned()) };
        Some(match self.count {
            1 => format!("the pod {}", first.key()),
            2 => format!("the pod {} and one other", first.key()),
            all => format!("the pod {} and {} others", first.key(), all - 1),
        })
    }
}
