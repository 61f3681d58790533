//! The policies of a Goldmane flow → a decision in our words.

use netverdict_policy::{
    Confidence, Decision, Reason, Reference, Role, Verdict,
    model::{Action as RuleAction, PolicyKey, Tier},
};
use serde::{Deserialize, Serialize};

use super::unreadable::Unreadable;

/// Index of the hit that stands for the end of a tier.
const END_OF_TIER_INDEX: i64 = -1;

const STAGED_NETWORK_POLICY: i64 = 3;
const STAGED_GLOBAL_NETWORK_POLICY: i64 = 4;
const STAGED_KUBERNETES_NETWORK_POLICY: i64 = 5;
const PROFILE: i64 = 9;
const END_OF_TIER: i64 = 10;

/// Action of a policy, or the result of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Unspecified,
    Allow,
    Deny,
    Pass,
}

impl Action {
    pub(super) const fn of(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Unspecified),
            1 => Some(Self::Allow),
            2 => Some(Self::Deny),
            3 => Some(Self::Pass),
            _ => None,
        }
    }

    /// A pass decides nothing: as the last word on a flow it leaves the verdict open.
    const fn verdict(self) -> Verdict {
        match self {
            Self::Allow => Verdict::Allowed,
            Self::Deny => Verdict::Denied,
            Self::Unspecified | Self::Pass => Verdict::Unknown,
        }
    }

    const fn of_rule(self) -> Option<RuleAction> {
        match self {
            Self::Allow => Some(RuleAction::Accept),
            Self::Deny => Some(RuleAction::Deny),
            Self::Pass => Some(RuleAction::Pass),
            Self::Unspecified => None,
        }
    }
}

/// The policies that a flow met, in order.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Trace {
    enforced_policies: Vec<Hit>,
    /// The policies that it would meet if staged policies were enforced.
    pending_policies: Vec<Hit>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Hit {
    kind: i64,
    namespace: String,
    name: String,
    tier: String,
    action: i64,
    policy_index: i64,
    rule_index: i64,
    /// At the end of a tier: a policy of the tier that selects the endpoint, not all of them.
    trigger: Option<Box<Hit>>,
}

impl Trace {
    /// The decision behind a flow's action.
    pub(super) fn decision(&self, action: Action) -> Result<Decision, Unreadable> {
        let verdict = action.verdict();
        let mut references = self.enforced_policies.iter().map(Hit::reference).collect::<Result<Vec<_>, _>>()?;
        let last = self.enforced_policies.last();
        let (reason, tier) = match last {
            Some(hit) if verdict != Verdict::Unknown => (hit.reason(verdict), hit.deciding_tier()),
            _ => (Reason::AttributionUnknown, None),
        };
        let has_staged = self.pending_policies.iter().any(Hit::is_staged);
        let would_be = self.pending_policies.last().filter(|_| has_staged).map(Hit::action).transpose()?;
        let verdict_if_enforced = would_be.map(Action::verdict).filter(|verdict| *verdict != Verdict::Unknown);
        if has_staged {
            let count = self.pending_policies.len();
            let deciding = self.pending_policies.iter().enumerate();
            for (_, hit) in deciding.filter(|(index, hit)| hit.is_staged() || index + 1 == count) {
                references.push(Reference { role: Role::Staged, ..hit.reference()? });
            }
        }
        // Some releases give a flow the verdict of a staged policy, and a flow does not say its release.
        let disagrees = last.is_some_and(|hit| hit.action().is_ok_and(|last| last.verdict() != verdict));
        let confidence = match has_staged || disagrees {
            true => Confidence::Ambiguous,
            // No addresses, no pod, one policy of perhaps several that isolate.
            false => Confidence::Partial,
        };
        Ok(Decision { verdict, verdict_if_enforced, reason, tier, confidence, references })
    }
}

impl Hit {
    fn action(&self) -> Result<Action, Unreadable> {
        Action::of(self.action).ok_or_else(|| Unreadable::code("policies.action", self.action))
    }

    const fn is_staged(&self) -> bool {
        matches!(self.kind, STAGED_NETWORK_POLICY | STAGED_GLOBAL_NETWORK_POLICY | STAGED_KUBERNETES_NETWORK_POLICY)
    }

    const fn is_end_of_tier(&self) -> bool {
        self.kind == END_OF_TIER || self.rule_index == END_OF_TIER_INDEX
    }

    fn reference(&self) -> Result<Reference, Unreadable> {
        let action = self.action()?;
        let is_default = self.is_end_of_tier();
        // At the end of a tier the policy that isolates is the trigger; without one only the tier itself has a name.
        let policy = match &self.trigger {
            Some(trigger) if is_default => trigger.policy(),
            _ if self.kind == END_OF_TIER => {
                PolicyKey { kind: "Tier".to_owned(), namespace: String::new(), name: self.tier.clone() }
            }
            _ => self.policy(),
        };
        let role = match action {
            Action::Pass => Role::Passed,
            _ if self.kind == PROFILE || policy.kind == "Tier" => Role::Default,
            _ if is_default => Role::Isolating,
            _ => Role::Decided,
        };
        let rule_index = match is_default {
            true => None,
            false => {
                let index = u32::try_from(self.rule_index);
                Some(index.map_err(|_| Unreadable::code("policies.rule_index", self.rule_index))?)
            }
        };
        Ok(Reference {
            role,
            policy,
            uid: String::new(),
            generation: 0,
            content_hash: String::new(),
            tier: self.tier(),
            rule_index,
            rule_name: String::new(),
            action: action.of_rule().filter(|_| role != Role::Isolating),
        })
    }

    fn policy(&self) -> PolicyKey {
        PolicyKey { kind: kind(self.kind), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Our three tiers are Calico's built-in ones; a tier of the operator's stands among network policies, and its name
    /// is in the trace that is kept verbatim.
    fn tier(&self) -> Tier {
        match self.tier.as_str() {
            "kube-admin" => Tier::Admin,
            "kube-baseline" => Tier::Baseline,
            _ => Tier::NetworkPolicy,
        }
    }

    fn deciding_tier(&self) -> Option<Tier> {
        (self.kind != PROFILE).then(|| self.tier())
    }

    /// Why a flow has its verdict if this hit was the last.
    fn reason(&self, verdict: Verdict) -> Reason {
        match (verdict, self.tier()) {
            (Verdict::Unknown, _) => Reason::AttributionUnknown,
            // No policy selects the endpoint in this direction, so its profile decides.
            (Verdict::Allowed, _) if self.kind == PROFILE => Reason::NoPolicy,
            (Verdict::Allowed, Tier::Admin) => Reason::ExplicitAccept,
            (Verdict::Allowed, Tier::Baseline) => Reason::BaselineAccept,
            (Verdict::Allowed, Tier::NetworkPolicy) => Reason::RuleMatch,
            (Verdict::Denied, _) if self.is_end_of_tier() => Reason::IsolatedNoMatch,
            (Verdict::Denied, Tier::Baseline) => Reason::BaselineDeny,
            (Verdict::Denied, Tier::Admin | Tier::NetworkPolicy) => Reason::ExplicitDeny,
        }
    }
}

/// A kind as Calico and Kubernetes write it. Calico's own NetworkPolicy has a name of its own, for Kubernetes
/// has a kind NetworkPolicy too.
fn kind(number: i64) -> String {
    match number {
        1 => "CalicoNetworkPolicy",
        2 => "GlobalNetworkPolicy",
        STAGED_NETWORK_POLICY => "StagedNetworkPolicy",
        STAGED_GLOBAL_NETWORK_POLICY => "StagedGlobalNetworkPolicy",
        STAGED_KUBERNETES_NETWORK_POLICY => "StagedKubernetesNetworkPolicy",
        6 => "NetworkPolicy",
        PROFILE => "Profile",
        END_OF_TIER => "EndOfTier",
        11 => "ClusterNetworkPolicy",
        other => return format!("PolicyKind{other}"),
    }
    .to_owned()
}
