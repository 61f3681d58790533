//! The result of an evaluation, and the policies that it is attributed to.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::model::Direction;
use crate::{
    model::{Action, PolicyKey, Tier},
    named,
};

named! {
    /// For one flow in one direction.
    Verdict { Allowed = "allowed", Denied = "denied", Unknown = "unknown" }
}

named! {
    /// The reason of a verdict: the closed list of `docs/semantics.md`.
    Reason {
        // allowed
        NoPolicy = "no_policy",
        RuleMatch = "rule_match",
        ExplicitAccept = "explicit_accept",
        BaselineAccept = "baseline_accept",
        NodeLocalExempt = "node_local_exempt",
        Reply = "reply",
        Related = "related",
        #[serde(rename = "self")]
        SelfTraffic = "self",
        EstablishedStale = "established_stale",
        Midstream = "midstream",
        // denied
        IsolatedNoMatch = "isolated_no_match",
        ExplicitDeny = "explicit_deny",
        BaselineDeny = "baseline_deny",
        FailClosed = "fail_closed",
        SpoofedSource = "spoofed_source",
        PolicyNotReady = "policy_not_ready",
        OtherDrop = "other_drop",
        // unknown, or under any verdict
        ServiceNotResolved = "service_not_resolved",
        UnknownEndpoint = "unknown_endpoint",
        AttributionUnknown = "attribution_unknown",
        UnknownPod = "unknown_pod",
    }
}

named! {
    /// Whether the attribution is certain.
    Confidence {
        Exact = "exact",
        /// Upstream leaves the order undefined and another policy says otherwise.
        Ambiguous = "ambiguous",
        /// A fact that the verdict depends on is not known, for instance the owner of an address.
        Partial = "partial",
    }
}

named! {
    /// The part a policy had in a decision.
    Role {
        /// Its rule decided.
        Decided = "decided",
        /// It isolates the pod and none of its rules matched.
        Isolating = "isolating",
        /// Its rule passed the flow on to the next tier.
        Passed = "passed",
        /// It decides once every audited policy is enforced: it gives `verdict_if_enforced`.
        Staged = "staged",
        /// A default that another system has a name for.
        Default = "default",
    }
}

named! {
    /// The first dimension in which the nearest rule did not match, in the order in which they are tried.
    FailedDimension {
        Peer = "peer",
        IpBlockExcept = "ip_block_except",
        IpFamily = "ip_family",
        Protocol = "protocol",
        Port = "port",
        NamedPortUnresolved = "named_port_unresolved",
        NoRules = "no_rules",
        /// The rule could not be read whole, so it matches nothing.
        Fault = "fault",
    }
}

/// One policy's part in a decision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    pub role: Role,
    pub policy: PolicyKey,
    pub uid: String,
    pub generation: i64,
    pub content_hash: String,
    pub tier: Tier,
    /// `None` for a policy that only isolates.
    pub rule_index: Option<u32>,
    /// Empty where the kind has no names for rules.
    pub rule_name: String,
    /// `None` for a policy that only isolates.
    pub action: Option<Action>,
}

/// The result of evaluating one flow at one end. The catalogue row that an [`AttributionId`] stands for: equal
/// decisions have equal ids, on every node and after every restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    pub verdict: Verdict,
    /// The verdict with every audited policy enforced; `None` unless an audited policy takes part.
    pub verdict_if_enforced: Option<Verdict>,
    pub reason: Reason,
    /// The tier that decided; `None` where none did.
    pub tier: Option<Tier>,
    pub confidence: Confidence,
    /// In order of evaluation.
    pub references: Vec<Reference>,
}

impl Decision {
    /// The policies that decided: rules that matched, or all isolating ones. Empty where no policy did.
    pub fn decided_by(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().filter(|r| matches!(r.role, Role::Decided | Role::Isolating | Role::Default))
    }

    /// Rules that passed the flow on before the decision.
    pub fn passed(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().filter(|r| r.role == Role::Passed)
    }

    /// The policies that decide once every audited policy is enforced, audited or not. Empty unless one takes part.
    pub fn staged(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().filter(|r| r.role == Role::Staged)
    }
}

/// 63 bits of the SHA-256 of a [`Decision`]: positive as a signed column; 0 stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttributionId(pub u64);

impl AttributionId {
    pub const NONE: Self = Self(0);
}

impl fmt::Display for AttributionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How near a policy that isolates came to allowing the flow: its nearest rule and where that failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NearMiss {
    pub policy: PolicyKey,
    /// `None` where the policy has no rule for the direction.
    pub rule_index: Option<u32>,
    pub failed: FailedDimension,
    /// For people: the expected value beside the found one, for instance `pod label app=web is not app=api`.
    pub detail: String,
}

impl NearMiss {
    /// The miss that came furthest, of equals the first; `None` where no policy has a rule. It shows the rule to repair.
    pub fn nearest<'a>(misses: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        let with_rules = misses.into_iter().filter(|miss| miss.failed != FailedDimension::NoRules);
        with_rules.reduce(|best, next| if next.failed.distance() > best.failed.distance() { next } else { best })
    }
}

impl FailedDimension {
    /// How many dimensions a rule passed before it failed in this one, for comparing policies.
    const fn distance(self) -> u8 {
        match self {
            Self::NoRules => 0,
            Self::Fault => 1,
            Self::Peer => 2,
            Self::IpBlockExcept => 3,
            Self::IpFamily => 4,
            Self::Protocol => 5,
            Self::NamedPortUnresolved => 6,
            Self::Port => 7,
        }
    }
}
