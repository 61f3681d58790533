//! Wording that several commands share: reasons, near misses, gaps, and times in requests.

use chrono::{DateTime, SecondsFormat, Utc};
use netverdict_flowlog::answer::{Gap, merged};
use netverdict_policy::{NearMiss, Reason};

use crate::{moment::Moment, terminal::plain};

/// A reason in plain words.
pub(crate) fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPolicy => "no policy selects it in this direction",
        Reason::RuleMatch => "a rule allows it",
        Reason::ExplicitAccept => "an admin rule accepts it",
        Reason::BaselineAccept => "a baseline rule accepts it",
        Reason::NodeLocalExempt => "traffic of the pod's own node is exempt",
        Reason::Reply => "a reply to an allowed connection",
        Reason::Related => "an ICMP error about an allowed connection",
        Reason::SelfTraffic => "a pod may always reach itself",
        Reason::EstablishedStale => "the connection is older than the policy that would deny it",
        Reason::Midstream => "the connection is older than the probe",
        Reason::IsolatedNoMatch => "isolated, and no rule matches",
        Reason::ExplicitDeny => "an admin rule denies it",
        Reason::BaselineDeny => "a baseline rule denies it",
        Reason::FailClosed => "a rule that could not be read whole denies everything",
        Reason::SpoofedSource => "the source address is not the pod's own",
        Reason::PolicyNotReady => "the policies of this pod were not in force yet",
        Reason::OtherDrop => "not a policy's decision",
        Reason::ServiceNotResolved => "a Service's address, whose backend is not known here",
        Reason::UnknownEndpoint => "an end is not known",
        Reason::AttributionUnknown => "who decided is lost",
        Reason::UnknownPod => "an address of a pod range that no pod is known to own",
    }
}

/// `db/allow-api rule 0`.
pub(crate) fn near_miss_name(near: &NearMiss) -> String {
    let name = match near.policy.namespace.as_str() {
        "" => near.policy.name.clone(),
        namespace => format!("{namespace}/{}", near.policy.name),
    };
    near.rule_index.map_or(name.clone(), |index| format!("{name} rule {index}"))
}

/// Where the rule failed to match: the engine's text, or else the dimension.
pub(crate) fn near_miss_detail(near: &NearMiss) -> String {
    if near.detail.is_empty() { near.failed.as_str().replace('_', " ") } else { near.detail.clone() }
}

/// One line for each gap; equal ones are merged.
pub(crate) fn gap_lines(gaps: &[Gap]) -> Vec<String> {
    merged(gaps).iter().map(|gap| plain(&gap.to_string()).into_owned()).collect()
}

/// A moment as the service reads times.
pub(crate) fn time_text(moment: Moment, now: DateTime<Utc>) -> String {
    moment.resolve(now).to_rfc3339_opts(SecondsFormat::Micros, true)
}
