//! An evaluation for people: the sentence, then the way through the tiers at each end.

use std::fmt::Write as _;

use netverdict_policy::{
    Confidence, Direction, End, Evaluation, Flow, NearMiss, Point, Reason, Reference, Role, Snapshot, Verdict,
    evaluate::PointName,
    model::{Action, Tier},
};

use crate::{
    terminal::{Paint, plain},
    wording::{near_miss_detail, near_miss_name, reason_text},
};

const TIERS: [Tier; 3] = [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline];

/// Several lines, ending with a newline.
pub(super) fn explain(snapshot: &Snapshot, flow: &Flow, evaluation: &Evaluation, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(&paint.verdict(evaluation.verdict, &plain(&sentence(flow, evaluation)))));
    let mut denied = false;
    for (name, end) in [(PointName::SourceEgress, &flow.source), (PointName::DestinationIngress, &flow.destination)] {
        let Some(point) = evaluation.points.iter().find(|point| point.name == name) else {
            if let Some(why) = why_not_judged(snapshot, end) {
                let _ =
                    writeln!(text, "\n{} of {end}: not judged\n  {:<15} {}", point_text(name), "no tier", plain(why));
            }
            continue;
        };
        let decision = &point.decision;
        let verdict = paint.verdict(decision.verdict, decision.verdict.as_str());
        let hypothetical = if denied { " (no packet gets here)" } else { "" };
        let _ = writeln!(text, "\n{} of {}: {verdict}{hypothetical}", point_text(point.name), point.subject);
        for (step, words) in steps(point) {
            let _ = writeln!(text, "  {step:<15} {}", plain(&words));
        }
        denied |= decision.verdict == Verdict::Denied;
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
    let mut sentence = match telling {
        Some(point) if evaluation.verdict != Verdict::Allowed => not_allowed(&ends, evaluation, point),
        None if evaluation.verdict == Verdict::Unknown => {
            format!("unknown: {ends}; {}", reason_words(Reason::ServiceNotResolved))
        }
        Some(_) | None => allowed(&ends, evaluation),
    };
    for other in evaluation.points.iter().flat_map(tied) {
        let _ = write!(sentence, "; but {} has the same priority and {} it", short(other), action_text(other));
    }
    if let Some(words) = if_enforced(evaluation) {
        let _ = write!(sentence, "; with all that is audited enforced: {words}");
    }
    sentence
}

fn allowed(ends: &str, evaluation: &Evaluation) -> String {
    let deciders: Vec<_> = evaluation.points.iter().flat_map(deciders).map(short).collect();
    if !deciders.is_empty() {
        return format!("allowed: {ends}, by {}", deciders.join(" and "));
    }
    let decisions = || evaluation.points.iter().map(|point| &point.decision);
    let without_policy = decisions().map(|decision| decision.reason).find(|reason| *reason != Reason::NoPolicy);
    let why = match without_policy {
        Some(reason) => reason_text(reason),
        None if decisions().any(|decision| decision.passed().next().is_some()) => "passed on, and no policy decides it",
        None => "no policy takes part",
    };
    format!("allowed: {ends}; {why}")
}

fn not_allowed(ends: &str, evaluation: &Evaluation, point: &Point) -> String {
    let decision = &point.decision;
    let deciders: Vec<_> = deciders(point).map(short).collect();
    let by = if deciders.is_empty() { String::new() } else { format!(" by {}", deciders.join(", ")) };
    let mut sentence = format!("{} at {}{by}: {ends}", decision.verdict, point_text(point.name));
    match evaluation.missing.first().filter(|_| decision.reason == Reason::UnknownEndpoint) {
        Some(missing) => _ = write!(sentence, "; {missing}"),
        None => _ = write!(sentence, "; {}", reason_words(decision.reason)),
    }
    // What is staged has near misses too, and repairing it opens nothing.
    let decides = |near: &&NearMiss| decision.decided_by().any(|reference| reference.policy == near.policy);
    if let Some(near) = NearMiss::nearest(point.near_misses.iter().filter(decides)) {
        let _ = write!(sentence, "; nearest: {} — {}", near_miss_name(near), near_miss_detail(near));
    }
    sentence
}

/// With what to ask instead, where there is something.
fn reason_words(reason: Reason) -> String {
    let remedy = match reason {
        Reason::ServiceNotResolved => "; name a pod behind it, with that pod's own port",
        _ => "",
    };
    format!("{}{remedy}", reason_text(reason))
}

/// Who decides, without those that would if the order of equal priorities were another.
fn deciders(point: &Point) -> impl Iterator<Item = &Reference> {
    let most = if point.decision.confidence == Confidence::Ambiguous { 1 } else { usize::MAX };
    point.decision.decided_by().take(most)
}

/// Rules of the deciding rule's priority that would decide otherwise: Kubernetes leaves open which goes first.
fn tied(point: &Point) -> impl Iterator<Item = &Reference> {
    let ambiguous = point.decision.confidence == Confidence::Ambiguous;
    point.decision.decided_by().skip(1).filter(move |_| ambiguous)
}

/// What audited policies would change; `None` where that is nothing.
fn if_enforced(evaluation: &Evaluation) -> Option<String> {
    let of = |point: &Point| point.decision.verdict_if_enforced.unwrap_or(point.decision.verdict);
    let denying = evaluation.points.iter().find(|point| of(point) == Verdict::Denied);
    let audited = || evaluation.points.iter().filter(|point| point.decision.verdict_if_enforced.is_some());
    match (evaluation.verdict, denying) {
        (Verdict::Denied, Some(_)) => None,
        (Verdict::Allowed | Verdict::Unknown, Some(point)) => {
            let staged: Vec<_> = point.decision.staged().map(short).collect();
            Some(format!("denied at {} by {}", point_text(point.name), staged.join(", ")))
        }
        (Verdict::Denied, None) => audited().find(|point| of(point) != point.decision.verdict).map(|point| {
            let staged: Vec<_> = point.decision.staged().map(short).collect();
            let by = if staged.is_empty() { String::new() } else { format!(" by {}", staged.join(", ")) };
            format!("{}{by}", of(point))
        }),
        (Verdict::Allowed | Verdict::Unknown, None) => None,
    }
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
                    let equal = tied(point).any(|other| other == reference);
                    let order =
                        if equal { ": of the same priority, and Kubernetes leaves their order open" } else { "" };
                    format!("{} {} it{order}", long(reference), action_text(reference))
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

fn action_text(reference: &Reference) -> &'static str {
    reference.action.map_or("decides", |action| match action {
        Action::Accept => "accepts",
        Action::Deny => "denies",
        Action::Pass => "passes on",
    })
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
