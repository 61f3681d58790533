//! The shape of an evaluated flow for programs. A contract: fields are added, never renamed or removed.

use netverdict_manifest::Finding;
use netverdict_policy::{Confidence, Evaluation, NearMiss, Point, Reason, Reference, Verdict};
use serde::Serialize;

use crate::wording::reason_text;

/// One flow's verdict.
#[derive(Debug, Serialize)]
pub(super) struct FlowAnswer {
    verdict: Verdict,
    /// Source egress before destination ingress; only ends that are pods, and not on the host's network.
    points: Vec<PointAnswer>,
    /// Why the flow could not be evaluated, or not at one of the points; the verdict is then unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The answer for one flow that was asked by itself: the flow's, with what of the objects changes it.
#[derive(Debug, Serialize)]
pub(super) struct OneAnswer {
    #[serde(flatten)]
    flow: FlowAnswer,
    /// As of a case; left out where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct PointAnswer {
    point: &'static str,
    verdict: Verdict,
    reason: &'static str,
    decided_by: Vec<PolicyAnswer>,
    near_miss: Vec<NearMissAnswer>,
    passed: Vec<PolicyAnswer>,
    /// With every audited policy enforced; null unless one takes part.
    verdict_if_enforced: Option<Verdict>,
    /// Who would decide then; left out unless one takes part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    staged: Vec<PolicyAnswer>,
    /// Left out where it is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct PolicyAnswer {
    kind: String,
    namespace: String,
    name: String,
    /// Null for a policy that isolates.
    rule_index: Option<u32>,
    rule_name: String,
}

#[derive(Debug, Serialize)]
struct NearMissAnswer {
    kind: String,
    namespace: String,
    name: String,
    rule_index: Option<u32>,
    failed: &'static str,
    detail: String,
}

impl FlowAnswer {
    pub(super) fn of(evaluation: &Evaluation) -> Self {
        let points = evaluation.points.iter().map(PointAnswer::of).collect();
        let unknown = evaluation.verdict == Verdict::Unknown;
        let told = evaluation.points.iter().any(|point| point.decision.verdict == Verdict::Unknown);
        let error = match evaluation.missing.first() {
            Some(missing) if unknown => Some(missing.to_string()),
            // Where no point tells the reason.
            None if unknown && !told => Some(reason_text(Reason::ServiceNotResolved).to_owned()),
            Some(_) | None => None,
        };
        Self { verdict: evaluation.verdict, points, error }
    }

    pub(super) fn failed(error: String) -> Self {
        Self { verdict: Verdict::Unknown, points: Vec::new(), error: Some(error) }
    }
}

impl OneAnswer {
    pub(super) fn of(evaluation: &Evaluation, findings: Vec<Finding>) -> Self {
        Self { flow: FlowAnswer::of(evaluation), findings }
    }
}

impl PointAnswer {
    fn of(point: &Point) -> Self {
        let Point { name, subject: _, decision, near_misses } = point;
        Self {
            point: name.as_str(),
            verdict: decision.verdict,
            reason: decision.reason.as_str(),
            decided_by: decision.decided_by().map(PolicyAnswer::of).collect(),
            near_miss: near_misses.iter().map(NearMissAnswer::of).collect(),
            passed: decision.passed().map(PolicyAnswer::of).collect(),
            verdict_if_enforced: decision.verdict_if_enforced,
            staged: decision.staged().map(PolicyAnswer::of).collect(),
            confidence: (decision.confidence != Confidence::Exact).then(|| decision.confidence.as_str()),
        }
    }
}

impl PolicyAnswer {
    fn of(reference: &Reference) -> Self {
        Self {
            kind: reference.policy.kind.clone(),
            namespace: reference.policy.namespace.clone(),
            name: reference.policy.name.clone(),
            rule_index: reference.rule_index,
            rule_name: reference.rule_name.clone(),
        }
    }
}

impl NearMissAnswer {
    fn of(near: &NearMiss) -> Self {
        Self {
            kind: near.policy.kind.clone(),
            namespace: near.policy.namespace.clone(),
            name: near.policy.name.clone(),
            rule_index: near.rule_index,
            failed: near.failed.as_str(),
            detail: near.detail.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use netverdict_manifest::code;
    use netverdict_policy::FailedDimension;

    #[test]
    fn the_documented_lists_are_whole() {
        let page = include_str!("../../../../docs/eval.md");
        for name in FailedDimension::ALL.iter().map(|failed| failed.as_str()) {
            assert!(page.contains(&format!("`{name}`")), "docs/eval.md lacks {name}");
        }
        for (name, meaning) in code::ALL {
            let line = format!("| `{name}` | {} |\n", meaning.trim_end_matches('.'));
            assert!(page.contains(&line), "docs/eval.md lacks {line}");
        }
    }
}
