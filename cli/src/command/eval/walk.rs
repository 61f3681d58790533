//! An evaluation for people: the sentence, then the way through the tiers at each end.

use std::fmt::Write as _;

use netverdict_policy::{
    Direction, End, Evaluation, Flow, Point, Reason, Reference, Role, Snapshot, Verdict, evaluate::PointName,
    model::Tier,
};

use crate::{
    command::why::{near_miss_detail, near_miss_name, reason_text},
    terminal::{Paint, plain},
};

const TIERS: [Tier; 3] = [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline];

/// Several lines, ending with a newline.
pub(super) fn explain(snapshot: &Snapshot, flow: &Flow, evaluation: &Evaluation, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(&paint.verdict(evaluation.verdict, &plain(&sentence(flow, evaluation)))));
    let mut denied = false;
    for point in &evaluation.points {
        let decision = &point.decision;
        let verdict = paint.verdict(decision.verdict, decision.verdict.as_str());
        let hypothetical = if denied { " (no packet gets here)" } else { "" };
        let _ = writeln!(text, "\n{} of {}: {verdict}{hypothetical}", point_text(point.name), point.subject);
        for (step, words) in steps(point) {
            let _ = writeln!(text, "  {step:<15} {}", plain(&words));
        }
        denied |= decision.verdict == Verdict::Denied;
    }
    for (point, end) in [(PointName::SourceEgress, &flow.source), (PointName::DestinationIngress, &flow.destination)] {
        if let Some(why) = why_not_judged(snapshot, end) {
            let _ = writeln!(text, "\n{} of {end}: not judged\n  {:<15} {}", point_text(point), "no tier", plain(why));
        }
    }
    text
}

/// Why an end that is a pod has no point.
fn why_not_judged(snapshot: &Snapshot, end: &End) -> Option<&'static str> {
    let End::Pod(key) = end else { return None };
    let pod = snapshot.pods.get(key).filter(|pod| !pod.takes_part())?;
    Some(match pod.finished() {
        true => "the pod has finished: no policy applies to it, and its address may be another's by now",
        false => "the pod is on its host's network: no policy applies to it, and its traffic is the node's",
    })
}

/// The first point that denies speaks for all; else the first that does not know.
fn sentence(flow: &Flow, evaluation: &Evaluation) -> String {
    let ends = format!("{} to {}{}", flow.source, flow.destination, port_text(flow));
    let telling = evaluation.points.iter().find(|point| point.decision.verdict == evaluation.verdict);
    if telling.is_none() && evaluation.verdict == Verdict::Unknown {
        return format!("unknown: {ends}; {}", reason_text(Reason::ServiceNotResolved));
    }
    let Some(point) = telling.filter(|_| evaluation.verdict != Verdict::Allowed) else {
        let deciders: Vec<_> =
            evaluation.points.iter().flat_map(|point| point.decision.decided_by()).map(short).collect();
        return match deciders.as_slice() {
            [] => format!("allowed: {ends}; no policy takes part"),
            deciders => format!("allowed: {ends}, by {}", deciders.join(" and ")),
        };
    };
    let decision = &point.decision;
    let deciders: Vec<_> = decision.decided_by().map(short).collect();
    let by = if deciders.is_empty() { String::new() } else { format!(" by {}", deciders.join(", ")) };
    let mut sentence = format!("{} at {}{by}: {ends}", decision.verdict, point_text(point.name));
    match evaluation.missing.first().filter(|_| decision.reason == Reason::UnknownEndpoint) {
        Some(missing) => _ = write!(sentence, "; {missing}"),
        None => _ = write!(sentence, "; {}", reason_text(decision.reason)),
    }
    // The rule that got furthest is the one worth repairing.
    if let Some(near) = point.near_misses.iter().find(|near| near.rule_index.is_some()) {
        let _ = write!(sentence, "; nearest: {} — {}", near_miss_name(near), near_miss_detail(near));
    }
    sentence
}

fn port_text(flow: &Flow) -> String {
    match flow.port {
        Some(port) => format!(" port {port}/{}", flow.protocol),
        None if flow.protocol.has_ports() => format!(" on all {} ports at once", flow.protocol),
        None => format!(" by {}", flow.protocol),
    }
}

const fn point_text(point: PointName) -> &'static str {
    match point {
        PointName::SourceEgress => "source egress",
        PointName::DestinationIngress => "destination ingress",
    }
}

/// What each tier said, until one decided.
fn steps(point: &Point) -> Vec<(&'static str, String)> {
    let decision = &point.decision;
    if decision.tier.is_none() && decision.reason != Reason::NoPolicy {
        return vec![("no tier", reason_text(decision.reason).to_owned())];
    }
    let direction = point.name.direction();
    let mut steps = Vec::new();
    for tier in TIERS {
        let passes: Vec<_> = decision.passed().filter(|reference| reference.tier == tier).collect();
        steps.extend(passes.iter().map(|pass| (tier_text(tier), format!("passed on by {}", long(pass)))));
        if decision.tier == Some(tier) {
            steps.extend(deciding(point, tier));
            break;
        }
        if passes.is_empty() {
            steps.push((tier_text(tier), nothing(tier, direction, &point.subject.to_string())));
        }
    }
    if decision.tier.is_none() {
        steps.push(("default", "allowed".to_owned()));
    }
    if let Some(verdict) = decision.verdict_if_enforced {
        let staged: Vec<_> = decision.staged().map(long).collect();
        let by = if staged.is_empty() { String::new() } else { format!(", by {}", staged.join("; ")) };
        steps.push(("if enforced", format!("{verdict}{by}")));
    }
    steps
}

fn nothing(tier: Tier, direction: Direction, subject: &str) -> String {
    match tier {
        Tier::NetworkPolicy => format!("none isolates {subject} for {}", direction.as_str()),
        Tier::Admin | Tier::Baseline => "no rule matches".to_owned(),
    }
}

fn deciding(point: &Point, tier: Tier) -> Vec<(&'static str, String)> {
    let decision = &point.decision;
    let mut steps: Vec<_> = decision
        .decided_by()
        .map(|reference| {
            let near = point.near_misses.iter().find(|near| near.policy == reference.policy);
            let words = match (reference.role, near) {
                (Role::Isolating, Some(near)) => {
                    let rule = near.rule_index.map_or(String::new(), |index| format!("nearest rule {index}: "));
                    format!("{} isolates it; {rule}{}", long(reference), near_miss_detail(near))
                }
                (Role::Isolating, None) => format!("{} isolates it; no rule matches", long(reference)),
                (Role::Decided | Role::Passed | Role::Staged | Role::Default, _) => {
                    let action = reference.action.map_or("decides", |action| match action {
                        netverdict_policy::model::Action::Accept => "accepts",
                        netverdict_policy::model::Action::Deny => "denies",
                        netverdict_policy::model::Action::Pass => "passes",
                    });
                    format!("{} {action} it", long(reference))
                }
            };
            (tier_text(tier), words)
        })
        .collect();
    let named = !steps.is_empty();
    let plain_reason = matches!(decision.reason, Reason::RuleMatch | Reason::IsolatedNoMatch)
        || matches!(decision.reason, Reason::ExplicitAccept | Reason::ExplicitDeny)
        || matches!(decision.reason, Reason::BaselineAccept | Reason::BaselineDeny);
    if !named || !plain_reason {
        steps.push((tier_text(tier), reason_text(decision.reason).to_owned()));
    }
    steps
}

const fn tier_text(tier: Tier) -> &'static str {
    match tier {
        Tier::Admin => "admin",
        Tier::NetworkPolicy => "network policy",
        Tier::Baseline => "baseline",
    }
}

/// `db/allow-api rule 0`.
fn short(reference: &Reference) -> String {
    let name = match reference.policy.namespace.as_str() {
        "" => reference.policy.name.clone(),
        namespace => format!("{namespace}/{}", reference.policy.name),
    };
    reference.rule_index.map_or(name.clone(), |index| format!("{name} rule {index}"))
}

/// With kind and rule name.
fn long(reference: &Reference) -> String {
    let name = match reference.rule_name.as_str() {
        "" => String::new(),
        name => format!(" \"{name}\""),
    };
    format!("{} {}{name}", reference.policy.kind, short(reference))
}

#[cfg(test)]
mod tests;
