//! Pods that policies leave without DNS: the first thing that breaks, and seldom what was meant.
//!
//! A pod is cut off where the walk through the tiers ends in a denial for port 53 of every name server. What is not
//! certain counts in the pod's favour: a rule that may mean a name server accepts it, and does not deny it. Where the
//! reading knows no name server, every peer may be one; where it knows no pods, the subject of each policy stands for
//! those that it selects.

mod servers;

use std::collections::{BTreeMap, BTreeSet};

use netverdict_policy::model::{
    Action, Direction, Labels, NamespaceScope, Pod, Policy, PolicyKey, Protocol, Subject, Tier,
};

use self::servers::{Chance, Servers};
use super::{
    context::{Lint, remark, rule_path},
    order::selects_everything,
};
use crate::{
    finding::{Report, code},
    selector::matches,
};

/// What a pod can ask by.
const PROTOCOLS: [Protocol; 2] = [Protocol::UDP, Protocol::TCP];

/// A policy that decides about egress, audited ones left out.
struct Speaker<'a> {
    policy: &'a Policy,
    /// Its subject's, by name.
    namespaces: BTreeSet<&'a str>,
    rules: Vec<Said>,
}

/// What a rule of egress says of the name servers.
struct Said {
    index: u32,
    action: Action,
    /// That it means a question, by each of [`PROTOCOLS`].
    chances: [Chance; 2],
}

/// Who asks.
#[derive(Clone, Copy)]
enum Asker<'a> {
    Pod(&'a Pod),
    /// Whoever is selected by a policy's subject.
    Subject(&'a Subject),
}

/// Why someone cannot ask.
enum Cut<'a> {
    /// These isolate it, and none of their rules can mean a name server.
    Isolated(Vec<&'a Policy>),
    Denied(&'a PolicyKey, u32),
}

/// Where the walk through an ordered tier ends.
enum Step<'a> {
    Accepted,
    Denied(&'a PolicyKey, u32),
    Passed,
}

/// A policy, and its rule where it is of an ordered tier.
type Culprit<'a> = (&'a PolicyKey, Option<u32>);

/// Those that cannot ask by a protocol.
#[derive(Clone, Copy, Default)]
struct Victims<'a> {
    count: usize,
    /// `None` where a subject stands for pods that the reading does not know.
    first: Option<&'a Pod>,
}

/// What is known of DNS in a reading.
pub(super) struct Names<'a> {
    /// Of the ordered tiers, in order of evaluation.
    ordered: Vec<Speaker<'a>>,
    /// Of the network policy tier, by namespace.
    isolating: BTreeMap<&'a str, Vec<Speaker<'a>>>,
    /// By each of [`PROTOCOLS`].
    cut_off: BTreeMap<Culprit<'a>, [Victims<'a>; 2]>,
}

impl<'a> Names<'a> {
    pub(super) fn of(lint: &Lint<'a>) -> Self {
        let servers = Servers::of(lint);
        let mut names = Self { ordered: Vec::new(), isolating: BTreeMap::new(), cut_off: BTreeMap::new() };
        for policy in lint.snapshot.policies.values().filter(|policy| !lint.is_audited(policy)) {
            let speaker = || Speaker::of(lint, &servers, policy);
            match policy.tier {
                Tier::Admin | Tier::Baseline => names.ordered.push(speaker()),
                Tier::NetworkPolicy if policy.isolates.egress => {
                    names.isolating.entry(&policy.key.namespace).or_default().push(speaker());
                }
                Tier::NetworkPolicy => {}
            }
        }
        names.ordered.sort_by_key(|Speaker { policy, .. }| (policy.tier, policy.priority, &policy.key.name));
        if lint.population.is_empty() {
            names.ask_for_subjects();
        } else {
            names.ask_for_pods(lint);
        }
        names
    }

    pub(super) fn check(&self, policy: &'a Policy, report: &mut Report) {
        let of_policy = self.cut_off.range((&policy.key, None)..=(&policy.key, Some(u32::MAX)));
        for ((_, index), [by_udp, by_tcp]) in of_policy {
            let (field, who, before) = match index {
                None => ("spec.egress".to_owned(), "no rule of any policy lets", ""),
                Some(index) => (rule_path(Direction::Egress, *index), "the rule does not let", " before this one"),
            };
            if let Some(pods) = by_udp.text() {
                let message = format!("{who} {pods} ask for names: port 53 is closed");
                let remedy = format!("add an egress rule for UDP and TCP port 53 to the name servers{before}");
                report.warning(remark(code::DNS_CUT_OFF, field, message, &remedy));
            } else if let Some(pods) = by_tcp.text() {
                let message = format!("{pods} may ask for names by UDP alone: answers that do not fit a datagram fail");
                let remedy = format!("add an egress rule for TCP port 53 to the name servers{before}");
                report.info(remark(code::DNS_CUT_OFF, field, message, &remedy));
            }
        }
    }

    fn ask_for_pods(&mut self, lint: &Lint<'a>) {
        // Policies tell pods apart by no more than this.
        let mut alike: BTreeMap<(&str, &Labels), Vec<&'a Pod>> = BTreeMap::new();
        for pod in lint.population.pods() {
            alike.entry((&pod.namespace, &pod.labels)).or_default().push(pod);
        }
        for pods in alike.values() {
            for (protocol, cut) in self.ask(Asker::Pod(pods[0])) {
                for culprit in cut.culprits() {
                    let victims = &mut self.cut_off.entry(culprit).or_default()[protocol];
                    victims.first = victims.first.or(Some(pods[0]));
                    victims.count += pods.len();
                }
            }
        }
    }

    fn ask_for_subjects(&mut self) {
        let speakers = self.ordered.iter().chain(self.isolating.values().flatten());
        let policies: Vec<&'a Policy> = speakers.map(|speaker| speaker.policy).collect();
        for policy in policies {
            for (protocol, cut) in self.ask(Asker::Subject(&policy.subject)) {
                // Others are asked for their own subjects.
                for culprit in cut.culprits().into_iter().filter(|(key, _)| *key == &policy.key) {
                    self.cut_off.entry(culprit).or_default()[protocol] = Victims { count: 1, first: None };
                }
            }
        }
    }

    /// What cuts them off, by position in [`PROTOCOLS`].
    fn ask(&self, asker: Asker<'_>) -> Vec<(usize, Cut<'a>)> {
        let selecting = |speaker: &&Speaker<'a>| speaker.selects(asker);
        let ordered: Vec<&Speaker<'a>> = self.ordered.iter().filter(selecting).collect();
        let baseline = ordered.partition_point(|speaker| speaker.policy.tier == Tier::Admin);
        let (admin, baseline) = ordered.split_at(baseline);
        let isolating = asker.namespace().and_then(|namespace| self.isolating.get(namespace));
        let isolating: Vec<&Speaker<'a>> = isolating.into_iter().flatten().filter(selecting).collect();
        (0..PROTOCOLS.len())
            .filter_map(|protocol| Some((protocol, walk(admin, &isolating, baseline, protocol)?)))
            .collect()
    }
}

/// `None` where nothing keeps the asker from a name server.
fn walk<'a>(
    admin: &[&Speaker<'a>],
    isolating: &[&Speaker<'a>],
    baseline: &[&Speaker<'a>],
    protocol: usize,
) -> Option<Cut<'a>> {
    match ordered_tier(admin, protocol) {
        Step::Accepted => return None,
        Step::Denied(policy, index) => return Some(Cut::Denied(policy, index)),
        Step::Passed => {}
    }
    if !isolating.is_empty() {
        let mut chances = isolating.iter().flat_map(|speaker| &speaker.rules).map(|said| said.chances[protocol]);
        let open = chances.any(|chance| chance > Chance::No);
        return (!open).then(|| Cut::Isolated(isolating.iter().map(|speaker| speaker.policy).collect()));
    }
    match ordered_tier(baseline, protocol) {
        Step::Denied(policy, index) => Some(Cut::Denied(policy, index)),
        Step::Accepted | Step::Passed => None,
    }
}

fn ordered_tier<'a>(speakers: &[&Speaker<'a>], protocol: usize) -> Step<'a> {
    let mut may_pass = false;
    for speaker in speakers {
        for said in &speaker.rules {
            match (said.action, said.chances[protocol]) {
                (Action::Accept, Chance::Maybe | Chance::Certain) => return Step::Accepted,
                (Action::Deny, Chance::Certain) if may_pass => return Step::Passed,
                (Action::Deny, Chance::Certain) => return Step::Denied(&speaker.policy.key, said.index),
                (Action::Pass, Chance::Certain) => return Step::Passed,
                (Action::Pass, Chance::Maybe) => may_pass = true,
                (Action::Deny, Chance::Maybe) | (_, Chance::No) => {}
            }
        }
    }
    Step::Passed
}

impl<'a> Speaker<'a> {
    fn of(lint: &Lint<'a>, servers: &Servers<'_>, policy: &'a Policy) -> Self {
        let egress = policy.rules.iter().filter(|rule| rule.direction == Direction::Egress);
        let rules = egress.filter_map(|rule| {
            let (action, chances) = match (&rule.fault, rule.action) {
                (None, action) => (action, servers.chances(lint, rule, PROTOCOLS)),
                (Some(_), Action::Accept) => return None,
                // It denies everything (C-9).
                (Some(_), Action::Deny | Action::Pass) => (Action::Deny, [Chance::Certain; 2]),
            };
            Some(Said { index: rule.index, action, chances })
        });
        Self { policy, namespaces: lint.population.namespaces(&policy.subject.namespaces), rules: rules.collect() }
    }

    /// Certainly: a subject is selected by one that is at least as wide.
    fn selects(&self, asker: Asker<'_>) -> bool {
        let subject = &self.policy.subject;
        match asker {
            Asker::Pod(pod) => self.namespaces.contains(pod.namespace.as_str()) && matches(&subject.pods, &pod.labels),
            Asker::Subject(narrow) => {
                selects_everything(subject)
                    || subject.namespaces == narrow.namespaces
                        && (subject.pods == narrow.pods || subject.pods.is_everything())
            }
        }
    }
}

impl Asker<'_> {
    /// That network policies for it are in.
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pod(pod) => Some(&pod.namespace),
            Self::Subject(Subject { namespaces: NamespaceScope::Named(name), .. }) => Some(name),
            Self::Subject(_) => None,
        }
    }
}

impl<'a> Cut<'a> {
    fn culprits(self) -> Vec<Culprit<'a>> {
        match self {
            Self::Isolated(policies) => policies.into_iter().map(|policy| (&policy.key, None)).collect(),
            Self::Denied(policy, index) => vec![(policy, Some(index))],
        }
    }
}

impl Victims<'_> {
    /// For the message: how many, and one of them.
    fn text(self) -> Option<String> {
        let Some(first) = self.first else { return (self.count > 0).then(|| "the pods".to_owned()) };
        Some(match self.count {
            1 => format!("the pod {}", first.key()),
            2 => format!("the pod {} and one other", first.key()),
            all => format!("the pod {} and {} others", first.key(), all - 1),
        })
    }
}
