//! The expected decision at one end, and the differences of a decision from it.

use std::collections::BTreeMap;

use anyhow::bail;
use netverdict_policy::{
    Confidence, Decision, NearMiss, ObjectKey, PointName, Reason, Reference, Snapshot, Verdict, model::PolicyKey,
};

use super::file::PointText;

/// One end's verdict and its attribution. Policies are written `x/deny`, rules `x/allow#0`; of the ordered
/// tiers `CNP name#0`, `ANP name#0`, `BANP default#0`, with the rule's name behind it where it has one.
#[derive(Clone, Debug)]
pub struct ExpectedPoint {
    pub name: PointName,
    pub subject: ObjectKey,
    pub verdict: Verdict,
    pub reason: Reason,
    pub confidence: Confidence,
    pub decided_by: Vec<String>,
    pub passed: Vec<String>,
    /// A policy or rule, and the dimension in which it failed.
    pub near_misses: Vec<String>,
}

impl ExpectedPoint {
    /// Without a text: no policy.
    pub(super) fn new(
        name: PointName,
        subject: ObjectKey,
        text: Option<&PointText>,
        names: &Names,
    ) -> anyhow::Result<Self> {
        let none = PointText {
            reason: Reason::NoPolicy,
            confidence: None,
            decided_by: Vec::new(),
            passed: Vec::new(),
            near_miss: Vec::new(),
        };
        let text = text.unwrap_or(&none);
        let spelled = |list: &[String]| list.iter().map(|text| names.spell(text)).collect::<anyhow::Result<Vec<_>>>();
        Ok(Self {
            name,
            subject,
            verdict: verdict_of(text.reason)?,
            reason: text.reason,
            confidence: text.confidence.unwrap_or(Confidence::Exact),
            decided_by: spelled(&text.decided_by)?,
            passed: spelled(&text.passed)?,
            near_misses: text.near_miss.clone(),
        })
    }

    /// Differences from the expected decision, for people; empty where there are none. `near_misses` if they were asked for.
    pub fn differences(&self, decision: &Decision, near_misses: Option<&[NearMiss]>) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, expected: String, found: String| {
            if expected != found {
                differences.push(format!("{} {what}: expected {expected}, found {found}", self.name));
            }
        };
        compare("verdict", self.verdict.to_string(), decision.verdict.to_string());
        compare("reason", self.reason.to_string(), decision.reason.to_string());
        compare("confidence", self.confidence.to_string(), decision.confidence.to_string());
        compare("decided_by", list(&self.decided_by), list(&decision.decided_by().map(spelled).collect::<Vec<_>>()));
        compare("passed", list(&self.passed), list(&decision.passed().map(spelled).collect::<Vec<_>>()));
        if let Some(near_misses) = near_misses {
            let found: Vec<_> = near_misses
                .iter()
                .map(|near| format!("{} {}", policy(&near.policy, near.rule_index), near.failed))
                .collect();
            compare("near_miss", list(&self.near_misses), list(&found));
        }
        differences
    }
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

fn spelled(reference: &Reference) -> String {
    let policy = policy(&reference.policy, reference.rule_index);
    if reference.rule_name.is_empty() { policy } else { format!("{policy} {}", reference.rule_name) }
}

fn policy(key: &PolicyKey, rule_index: Option<u32>) -> String {
    let name = match key.kind.as_str() {
        "NetworkPolicy" => format!("{}/{}", key.namespace, key.name),
        "ClusterNetworkPolicy" => format!("CNP {}", key.name),
        "AdminNetworkPolicy" => format!("ANP {}", key.name),
        "BaselineAdminNetworkPolicy" => format!("BANP {}", key.name),
        other => format!("{other} {}", key.name),
    };
    rule_index.map_or(name.clone(), |index| format!("{name}#{index}"))
}

/// The reasons of the cases, each of which goes with one verdict.
fn verdict_of(reason: Reason) -> anyhow::Result<Verdict> {
    Ok(match reason {
        Reason::NoPolicy
        | Reason::RuleMatch
        | Reason::ExplicitAccept
        | Reason::BaselineAccept
        | Reason::NodeLocalExempt
        | Reason::Reply
        | Reason::Related
        | Reason::SelfTraffic
        | Reason::EstablishedStale
        | Reason::Midstream => Verdict::Allowed,
        Reason::IsolatedNoMatch
        | Reason::ExplicitDeny
        | Reason::BaselineDeny
        | Reason::FailClosed
        | Reason::SpoofedSource
        | Reason::PolicyNotReady
        | Reason::OtherDrop => Verdict::Denied,
        Reason::ServiceNotResolved | Reason::UnknownEndpoint => Verdict::Unknown,
        Reason::AttributionUnknown | Reason::UnknownPod => bail!("{reason} does not say which verdict"),
    })
}

/// How the policies of the ordered tiers are called in this spelling.
pub(super) struct Names {
    kinds: BTreeMap<String, &'static str>,
}

impl Names {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let kinds = snapshot.policies.keys().filter_map(|key| match key.kind.as_str() {
            "ClusterNetworkPolicy" => Some((key.name.clone(), "CNP")),
            "AdminNetworkPolicy" => Some((key.name.clone(), "ANP")),
            "BaselineAdminNetworkPolicy" => Some((key.name.clone(), "BANP")),
            _ => None,
        });
        Self { kinds: kinds.collect() }
    }

    /// `CNP name#0` by the kind that the policy of this name has.
    fn spell(&self, text: &str) -> anyhow::Result<String> {
        let Some(rest) = text.strip_prefix("CNP ") else { return Ok(text.to_owned()) };
        let name = rest.split(['#', ' ']).next().unwrap_or_default();
        match self.kinds.get(name) {
            Some(kind) => Ok(format!("{kind} {rest}")),
            None => bail!("there is no policy {name} in an ordered tier"),
        }
    }
}
