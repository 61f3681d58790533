//! An answer as one sentence.

#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    answer::{Decider, Since, WhyAnswer, WhyPoint, merged},
    row::{DispositionName, Method, ModeName},
};
use netverdict_policy::{NearMiss, ObjectKey, Reason, Role, Verdict};

use super::{
    totals::DeniedBefore,
    verdict::{PathVerdict, SOURCE_EGRESS},
};

/// Facts for the sentence that are not in the answer.
#[derive(Default)]
pub(super) struct SentenceContext {
    /// The assumption made where the question leaves the port open; empty where there is none.
    pub assumption: String,
    pub denied_before: Option<DeniedBefore>,
    /// IP family of the attempt on record: 4 or 6.
    pub family: Option<u8>,
    /// The newest policy state's verdict on the whole connection.
    pub newest: Option<PathVerdict>,
}

/// The sentence for an answer that is otherwise complete.
pub(super) fn sentence(answer: &WhyAnswer, now: DateTime<Utc>, context: &SentenceContext) -> String {
    let SentenceContext { assumption, denied_before, family, newest } = context;
    let on_record = answer.points.iter().any(|point| point.last_seen.is_some());
    let mut text = String::new();
    if !on_record {
        text = format!(
            "no packet from {} to {} is on record {}; by the stored policies{} ",
            answer.source.name,
            answer.destination.name,
            range(answer, now),
            if assumption.is_empty() { String::new() } else { format!(", {assumption},") }
        );
    }
    let deciding = answer.points.iter().find(|point| !point.hypothetical && point.verdict == answer.verdict);
    match (answer.verdict, deciding) {
        (Verdict::Denied, Some(point)) => {
            if !on_record {
                text += "it would be ";
            }
            text += &denied(answer, point);
            text += &aftermath(point, now, newest.as_ref());
        }
        (Verdict::Unknown, Some(point)) => {
            text += &format!("unknown at {}: {}", place(point), unknown_because(point));
            text += &seen(point, now);
        }
        (Verdict::Allowed, Some(_)) => {
            text += if on_record { "not policy: " } else { "it is not policy: " };
            text += &allowed(answer, now, newest.as_ref());
        }
        (_, None) => {
            text += "not policy: neither end is a pod that policies can select; look at the application, DNS or routing"
        }
    }
    if let Some(before) = denied_before {
        let were = if before.events == 1 { "was" } else { "were" };
        text += &format!("; before that, {} {were} denied, the last {}", events(before.events), ago(before.last, now));
    }
    if let Some(other) = answer.points.iter().find(|point| point.hypothetical && point.verdict == Verdict::Denied) {
        let verb = match newest {
            // The sentence has named that point already.
            Some(path) if path.verdict == Verdict::Denied && path.point == other.point => None,
            Some(path) if path.verdict == Verdict::Allowed => Some("would have denied"),
            _ => Some("would deny"),
        };
        if let Some(verb) = verb {
            text += &format!("; {} {verb} it too, by {}", place(other), names(&other.decided_by));
        }
    }
    text += &otherwise(answer, *family, now);
    text += &deleted(answer, on_record, now);
    if answer.points.iter().any(|point| point.identity_window_open) {
        text += "; who owned an address was changing just then, so the attribution may be off";
    }
    text += &match merged(&answer.gaps).len() {
        0 => String::new(),
        1 => "; a gap in the record touches this time".to_owned(),
        count => format!("; {count} gaps in the record touch this time"),
    };
    match answer.stale.as_slice() {
        [] => {}
        [only] => text += &format!("; may be out of date: {only}"),
        [first, rest @ ..] => text += &format!("; may be out of date: {first} (and {} more)", rest.len()),
    }
    text
}

/// `denied at destination ingress by db/default-deny (isolates db/pg; no rule matched); nearest: …`
fn denied(answer: &WhyAnswer, point: &WhyPoint) -> String {
    let subject = if point.point == SOURCE_EGRESS { &answer.source.name } else { &answer.destination.name };
    let place = place(point);
    let by = names(&point.decided_by);
    let mut text = match point.reason {
        Reason::IsolatedNoMatch => {
            let verb = if point.decided_by.len() == 1 { "isolates" } else { "isolate" };
            format!("denied at {place} by {by} ({verb} {subject}; no rule matched)")
        }
        Reason::ExplicitDeny | Reason::BaselineDeny => format!("denied at {place} by {by} (its rule denies)"),
        Reason::FailClosed => format!("denied at {place} by {by} (its rule could not be read whole, so it denies)"),
        Reason::SpoofedSource => format!("denied at {place}: the source address is not {subject}'s own"),
        Reason::PolicyNotReady => format!("denied at {place}: policy was not yet in force for {subject}"),
        Reason::OtherDrop => {
            let why = if point.drop_reason.is_empty() { "for an unknown reason" } else { &point.drop_reason };
            format!("dropped at {place}, not by policy: {why}")
        }
        Reason::AttributionUnknown => {
            format!("denied at {place}; by whom is not known: what attribution {} means is lost", point.attribution_id)
        }
        Reason::UnknownPod => {
            let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
            format!("denied at {place}{by}: no pod was known to own the other address yet")
        }
        other if by.is_empty() => format!("denied at {place} ({})", other.as_str().replace('_', " ")),
        other => format!("denied at {place} by {by} ({})", other.as_str().replace('_', " ")),
    };
    if let Some(nearest) = nearest(point) {
        let rule = nearest.rule_index.map(|index| format!(" rule {index}")).unwrap_or_default();
        let key = ObjectKey::new(&nearest.policy.namespace, &nearest.policy.name);
        text += &format!("; nearest: {key}{rule} — {}", nearest.detail);
    }
    if point.disposition == DispositionName::Forwarded.as_str() {
        let mode = if point.mode.is_empty() { ModeName::Observe.as_str() } else { &point.mode };
        text += &format!("; but forwarded: {} is in mode {mode}", point.node);
    }
    text
}

/// Other protocols and families with another verdict.
fn otherwise(answer: &WhyAnswer, family: Option<u8>, now: DateTime<Utc>) -> String {
    let each = answer.otherwise.iter().map(|other| {
        let over = match (other.protocol == answer.protocol, Some(other.family) == family) {
            (true, _) => format!("IPv{}", other.family),
            (false, true) => other.protocol.clone(),
            (false, false) => format!("{} on IPv{}", other.protocol, other.family),
        };
        let verdict = match other.verdict {
            Verdict::Unknown => "the verdict is unknown".to_owned(),
            verdict => format!("it was {verdict}"),
        };
        format!("; over {over} {verdict}: {}, the last {}", events(other.count), ago(other.last_seen, now))
    });
    each.collect()
}

/// Pods that were deleted since.
fn deleted(answer: &WhyAnswer, on_record: bool, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    for end in [&answer.source, &answer.destination] {
        let Some(time) = end.deleted else { continue };
        text += &format!("; {} was deleted at {} UTC, {}", end.name, time.format("%Y-%m-%d %H:%M:%S"), ago(time, now));
        if !on_record && time <= answer.to {
            text += ": this is what was in force before that";
        }
        if answer.source.name == answer.destination.name {
            break;
        }
    }
    text
}

/// When it was, whether the policies were changed or deleted since, and their verdict now.
fn aftermath(point: &WhyPoint, now: DateTime<Utc>, newest: Option<&PathVerdict>) -> String {
    let mut text = seen(point, now);
    for (since, verb) in [(Since::Deleted, "deleted"), (Since::Changed, "changed")] {
        let mut such: Vec<String> =
            point.decided_by.iter().filter(|decider| decider.since == since).map(name).collect();
        such.dedup();
        if !such.is_empty() {
            text += &format!("; {} {verb} since", joined(&such, if such.len() == 1 { "was" } else { "were" }));
        }
    }
    // It was not dropped by policy, so policies cannot tell whether it would be dropped now.
    if matches!(point.reason, Reason::SpoofedSource | Reason::OtherDrop) {
        return text;
    }
    let Some(newest) = newest else { return text };
    text += &match newest.verdict {
        Verdict::Denied if newest.point != point.point => {
            let (there, by) = (newest.point.replace('-', " "), by(&newest.decided_by));
            format!("; {} would allow it now, but {there} would deny it{by}", place(point))
        }
        Verdict::Denied if point.now_decided_by.is_empty() || point.decided_by.is_empty() => String::new(),
        Verdict::Denied => format!("; it would still be denied now{}", by(&point.now_decided_by)),
        Verdict::Allowed => format!("; it would be allowed now{}", by(&point.now_decided_by)),
        Verdict::Unknown => "; what would be said now is unknown".to_owned(),
    };
    text
}

/// `, by db/allow-api rule 0`; empty without deciders.
fn by(deciders: &[Decider]) -> String {
    if deciders.is_empty() { String::new() } else { format!(", by {}", names(deciders)) }
}

fn allowed(answer: &WhyAnswer, now: DateTime<Utc>, newest: Option<&PathVerdict>) -> String {
    let real = || answer.points.iter().filter(|point| !point.hypothetical);
    let mut deciders: Vec<String> = real().flat_map(|point| &point.decided_by).map(name).collect();
    deciders.dedup();
    let mut text = if deciders.is_empty() {
        let mut why: Vec<&str> = real().map(|point| why_allowed(point.reason)).collect();
        why.dedup();
        format!("allowed, for {}", why.join(", and "))
    } else {
        format!("allowed by {}", deciders.join(", "))
    };
    text += "; policy does not stop it: look at the application, DNS or routing";
    if let Some(last) = real().max_by_key(|point| point.last_seen) {
        text += &seen(last, now);
    }
    if let Some(newest) = newest.filter(|newest| newest.verdict == Verdict::Denied) {
        let place = newest.point.replace('-', " ");
        text += &format!("; but it would be denied now at {place}{}", by(&newest.decided_by));
    }
    if let Some(point) = real().find(|point| point.verdict_if_enforced == Some(Verdict::Denied)) {
        text += &format!("; {} would deny it if it were enforced", names(&point.staged));
    }
    text
}

fn why_allowed(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPolicy => "no policy isolates them",
        Reason::NodeLocalExempt => "it comes from the pod's own node",
        Reason::Reply => "it is a reply",
        Reason::Related => "it belongs to an allowed connection",
        Reason::SelfTraffic => "it is the pod's own traffic",
        Reason::EstablishedStale => "the connection is older than the policy",
        Reason::Midstream => "its beginning was not seen",
        _ => "policy says so",
    }
}

fn unknown_because(point: &WhyPoint) -> String {
    match point.reason {
        Reason::ServiceNotResolved => {
            "the destination is a Service's address, and its backend is not known there".into()
        }
        Reason::UnknownEndpoint => "who the endpoint is is not known".into(),
        Reason::AttributionUnknown => format!("what attribution {} means is lost", point.attribution_id),
        Reason::UnknownPod => "no pod was known to own the address yet".into(),
        other => other.as_str().replace('_', " "),
    }
}

/// The nearest miss among the rules of the policies that deny. Staged policies have near misses, too, but changing them
/// would allow nothing. `None` where no denying policy has a rule.
fn nearest(point: &WhyPoint) -> Option<&NearMiss> {
    let decides = |miss: &NearMiss| {
        let key = &miss.policy;
        point
            .decided_by
            .iter()
            .any(|decider| (&decider.kind, &decider.namespace, &decider.name) == (&key.kind, &key.namespace, &key.name))
    };
    NearMiss::nearest(point.near_misses.iter().filter(|miss| decides(miss)))
}

fn place(point: &WhyPoint) -> String {
    point.point.replace('-', " ")
}

/// `db/default-deny`, `db/allow-api rule 0`.
fn name(decider: &Decider) -> String {
    let key = ObjectKey::new(&decider.namespace, &decider.name);
    match decider.rule_index {
        Some(index) if decider.role != Role::Isolating.as_str() => match decider.rule_name.as_str() {
            "" => format!("{key} rule {index}"),
            name => format!("{key} rule {index} \"{name}\""),
        },
        _ => key.to_string(),
    }
}

fn names(deciders: &[Decider]) -> String {
    let mut names: Vec<String> = deciders.iter().map(name).collect();
    names.dedup();
    names.join(", ")
}

fn joined(names: &[String], verb: &str) -> String {
    format!("{} {verb}", names.join(", "))
}

fn seen(point: &WhyPoint, now: DateTime<Utc>) -> String {
    match point.last_seen {
        Some(last) if point.method != Method::Evaluated.as_str() && point.count > 1 => {
            format!("; last {}, {} in this time", ago(last, now), events(point.count))
        }
        Some(last) => format!("; {}", ago(last, now)),
        None => String::new(),
    }
}

fn events(count: u64) -> String {
    if count == 1 { "1 event".into() } else { format!("{count} events") }
}

/// `12 s ago`, `3 min ago`.
fn ago(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    length((now - time).num_seconds().max(0)) + " ago"
}

fn length(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn range(answer: &WhyAnswer, now: DateTime<Utc>) -> String {
    if (now - answer.to).num_seconds() < 5 {
        format!("in the last {}", length((answer.to - answer.from).num_seconds()))
    } else {
        let form = "%Y-%m-%d %H:%M:%S";
        format!("from {} to {} UTC", answer.from.format(form), answer.to.format(form))
    }
}
