//! An answer of `why` as text: the sentence, then the facts behind it. Pure: the time is an argument.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use netverdict_flowlog::answer::{Decider, Revision, Since, WhyAnswer, WhyEnd, WhyPoint};
use netverdict_policy::NearMiss;

use crate::{
    moment::{ago, stamp},
    terminal::{Paint, plain, plain_lines},
    wording::{gap_lines, near_miss_detail, near_miss_name, reason_text},
};

/// Pods on a node's network that are named in one line.
const MOST_CANDIDATES: usize = 5;

/// Several lines, ending with a newline.
pub(super) fn explain(answer: &WhyAnswer, wide: bool, now: DateTime<Utc>, paint: Paint) -> String {
    let mut text = format!("{}\n\n", paint.bold(&paint.verdict(answer.verdict, &plain(&answer.sentence))));
    let _ = writeln!(text, "  source       {}", end(&answer.source));
    let _ = writeln!(text, "  destination  {}{}", end(&answer.destination), port(answer));
    for point in &answer.points {
        text.push('\n');
        explain_point(&mut text, point, wide, now, paint);
    }
    if !answer.gaps.is_empty() {
        let _ = writeln!(text, "\n{}", paint.yellow("known to be missing in this time:"));
        for line in gap_lines(&answer.gaps) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn end(end: &WhyEnd) -> String {
    let mut text = plain(&end.name).into_owned();
    if end.kind != "pod" {
        let _ = write!(text, " ({})", plain(&end.kind));
    }
    // An end without a name is its address already.
    for address in end.addresses.iter().filter(|address| **address != end.name) {
        let _ = write!(text, "  {}", plain(address));
    }
    for (key, value) in &end.labels {
        let _ = write!(text, "  {}={}", plain(key), plain(value));
    }
    if !end.candidates.is_empty() {
        let named: Vec<_> = end.candidates.iter().take(MOST_CANDIDATES).map(|name| plain(name)).collect();
        let _ = write!(text, "  or a pod on its network: {}", named.join(", "));
        if end.candidates.len() > MOST_CANDIDATES {
            let _ = write!(text, " and {} more", end.candidates.len() - MOST_CANDIDATES);
        }
    }
    text
}

fn port(answer: &WhyAnswer) -> String {
    match (answer.port, answer.protocol.as_str()) {
        (None, "") => String::new(),
        (None, protocol) => format!("  {}", plain(protocol)),
        (Some(port), "") => format!("  port {port}"),
        (Some(port), protocol) => format!("  port {port}/{}", plain(protocol)),
    }
}

fn explain_point(text: &mut String, point: &WhyPoint, wide: bool, now: DateTime<Utc>, paint: Paint) {
    let verdict = paint.verdict(point.verdict, point.verdict.as_str());
    let reason = if point.drop_reason.is_empty() {
        reason_text(point.reason)
    } else {
        return explain_not_policy(text, point, now, paint);
    };
    let _ = writeln!(text, "{}: {verdict}, {reason}", point_name(&point.point));
    let mut line = |label: &str, words: &str| {
        let _ = writeln!(text, "  {label:<12} {words}");
    };
    if point.hypothetical {
        line("hypothetical", "no packet gets here, for the other end denies it first");
    }
    for decider in &point.passed {
        line("passed on by", &decider_line(decider));
    }
    for decider in &point.decided_by {
        line(if decider.role == "isolating" { "isolated by" } else { "decided by" }, &decider_line(decider));
    }
    for near in &point.near_misses {
        line("near miss", &near_miss_line(near));
    }
    if let Some(verdict) = point.verdict_if_enforced {
        line("if enforced", &format!("{verdict}: what is in audit mode would decide so"));
    }
    for decider in &point.staged {
        line("staged", &decider_line(decider));
    }
    line("seen", &seen(point, now));
    if let Some(now_verdict) = point.now {
        line("now", &now_line(point, now_verdict));
    }
    if point.identity_window_open {
        line("careful", "who owned an address was not certain at that moment");
    }
    if let Some(taken) = &point.mistaken_for {
        line("careful", &format!("the other end was taken for {}, which did not have the address then", plain(taken)));
    }
    match point.confidence.as_str() {
        "" | "exact" => {}
        "ambiguous" => line("careful", "Kubernetes leaves the order of equal priorities open, and they disagree here"),
        confidence => line("careful", &format!("the attribution is {}", plain(confidence))),
    }
    if wide {
        for decider in point.passed.iter().chain(&point.decided_by).chain(&point.staged) {
            policy_text(text, decider, paint);
        }
    }
}

/// A packet that was dropped before policies were evaluated.
fn explain_not_policy(text: &mut String, point: &WhyPoint, now: DateTime<Utc>, paint: Paint) {
    let reason = paint.yellow(&plain(&point.drop_reason));
    let _ = writeln!(text, "{}: dropped as {reason}, not by policy", point_name(&point.point));
    let _ = writeln!(text, "  {:<12} {}", "seen", seen(point, now));
}

fn point_name(point: &str) -> String {
    plain(point).replace('-', " ")
}

/// Kind, name, rule, and whether the policy was changed or deleted since.
fn decider_line(decider: &Decider) -> String {
    let mut line = format!("{} ", decider.kind);
    if !decider.namespace.is_empty() {
        let _ = write!(line, "{}/", decider.namespace);
    }
    line.push_str(&decider.name);
    if let Some(index) = decider.rule_index {
        let _ = write!(line, " rule {index}");
    }
    if !decider.rule_name.is_empty() {
        let _ = write!(line, " \"{}\"", decider.rule_name);
    }
    if !decider.action.is_empty() && decider.role != "decided" && decider.role != "passed" {
        let _ = write!(line, " ({})", decider.action);
    }
    if decider.generation > 0 {
        let _ = write!(line, ", generation {}", decider.generation);
    }
    line.push_str(match decider.since {
        Since::Unchanged => ", unchanged since",
        Since::Changed => ", changed since",
        Since::Deleted => ", deleted since",
        Since::Unknown => "",
    });
    plain(&line).into_owned()
}

fn near_miss_line(near: &NearMiss) -> String {
    let name = near_miss_name(near);
    plain(&format!("{name}: {}", near_miss_detail(near))).into_owned()
}

fn seen(point: &WhyPoint, now: DateTime<Utc>) -> String {
    let Some(last) = point.last_seen else {
        return match point.snapshot {
            0 => "no packet on record; the policies were evaluated".to_owned(),
            snapshot => format!("no packet on record; the policies of snapshot {snapshot} were evaluated"),
        };
    };
    let mut line = format!("{} ({})", ago(last, now), stamp(last));
    if point.count > 1 {
        let _ = write!(line, ", {} times", point.count);
        if let Some(first) = point.first_seen.filter(|first| *first != last) {
            let _ = write!(line, " since {}", stamp(first));
        }
    }
    if !point.disposition.is_empty() {
        let _ = write!(line, ", {}", plain(&point.disposition));
    }
    if !point.node.is_empty() {
        let _ = write!(line, " on node {}", plain(&point.node));
    }
    if !point.mode.is_empty() && point.mode != "enforce" {
        let _ = write!(line, " ({} mode)", plain(&point.mode));
    }
    line
}

fn now_line(point: &WhyPoint, verdict: netverdict_policy::Verdict) -> String {
    let deciders: Vec<_> = point.now_decided_by.iter().map(decider_line).collect();
    match (verdict == point.verdict, deciders.is_empty()) {
        (true, true) => "the same".to_owned(),
        (true, false) => format!("{verdict} as well, but by {}", deciders.join("; ")),
        (false, true) => format!("would be {verdict}"),
        (false, false) => format!("would be {verdict}, by {}", deciders.join("; ")),
    }
}

fn policy_text(text: &mut String, decider: &Decider, paint: Paint) {
    let title = paint.dim(&format!("--- {} as it stood", plain(&decider.name)));
    let _ = writeln!(text, "  {title}");
    if let Some(revision) = &decider.revision {
        let _ = writeln!(text, "    # {}", plain(&revision_line(decider, revision)));
    }
    if decider.text.is_empty() {
        text.push_str("    not on record\n");
    }
    for line in plain_lines(&decider.text).lines() {
        let _ = writeln!(text, "    {line}");
    }
}

/// Which state it was, who wrote it, and since when it was in force: as a comment above the text.
fn revision_line(decider: &Decider, revision: &Revision) -> String {
    let Revision { resource_version, author, changed, created, origin, node, in_force } = revision;
    let mut line = format!("uid {}", decider.uid);
    if !resource_version.is_empty() {
        let _ = write!(line, ", resourceVersion {resource_version}");
    }
    match (author.as_str(), changed) {
        ("", _) => {}
        (author, None) => _ = write!(line, ", written by {author}"),
        (author, Some(changed)) => _ = write!(line, ", written by {author} at {}", stamp(*changed)),
    }
    if let Some(created) = created {
        let _ = write!(line, ", made at {}", stamp(*created));
    }
    if !origin.is_empty() {
        let _ = write!(line, ", read from {origin}");
    }
    let _ = write!(line, ", in force on node {node} since {}", stamp(*in_force));
    line
}

#[cfg(test)]
mod tests;
