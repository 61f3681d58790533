//! The state of the nodes as text: a line a node, then the problems with their remedies, then the service itself. Pure: the
//! time is an argument.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use netverdict_flowlog::answer::{CollectorAnswer, CollectorStatus, MirrorStatus, PolicyStatus, ServiceStatus};

use super::findings::{Finding, name};
use crate::{
    moment::{span, stamp},
    table::{Cell, Columns},
    terminal::{Paint, plain},
};

const HEADER: [&str; 9] = ["NODE", "MODE", "READY", "POLICY", "ENDPOINTS", "UNBOUND", "GAPS", "VERSION", "UP"];
const WIDE: [&str; 8] = ["UNCOVERED", "SNAPSHOT", "IN FORCE", "READ", "RECORDED", "FLUSHED", "COPIED", "ADDRESS"];
/// For what is not known, or not told by an older version.
const NONE: &str = "-";

pub(super) fn describe(
    status: &ServiceStatus,
    findings: &[Finding],
    now: DateTime<Utc>,
    wide: bool,
    paint: Paint,
) -> String {
    let mut text = String::new();
    if !status.collectors.is_empty() {
        let header = if wide { [HEADER.as_slice(), WIDE.as_slice()].concat() } else { HEADER.to_vec() };
        let rows: Vec<_> = status.collectors.iter().map(|answer| row(answer, now, wide)).collect();
        text = Columns::table(&header, &rows, paint) + "\n";
    }
    for finding in findings {
        describe_finding(&mut text, finding, paint);
    }
    if !findings.is_empty() {
        text.push('\n');
    }
    text + &service(status, now)
}

fn row(answer: &CollectorAnswer, now: DateTime<Utc>, wide: bool) -> Vec<Cell> {
    let name = Cell::new(name(answer));
    let copied = answer.copies.as_ref().and_then(|copies| copies.complete);
    let ago = |time: Option<DateTime<Utc>>, now: DateTime<Utc>| {
        Cell::new(time.map_or_else(|| NONE.to_owned(), |time| span(now - time)))
    };
    let address = || Cell::new(answer.url.as_str());
    let Some(status) = &answer.status else {
        let unknown = Cell::painted("unknown", |paint, text| paint.yellow(text));
        let mut row = vec![name, Cell::new(NONE), unknown];
        row.resize(HEADER.len(), Cell::new(NONE));
        if wide {
            row.resize(HEADER.len() + WIDE.len() - 2, Cell::new(NONE));
            row.extend([ago(copied, now), address()]);
        }
        return row;
    };
    let number = |number: Option<u64>| Cell::new(number.map_or_else(|| NONE.to_owned(), |number| number.to_string()));
    let mut row = vec![
        name,
        Cell::new(status.mode.as_str()),
        ready(status),
        policy(status),
        Cell::new(status.endpoints.to_string()),
        number(status.unbound),
        gaps(status),
        Cell::new(status.version.as_str()),
        ago(status.started, status.time),
    ];
    if wide {
        let in_force = status.policy.as_ref().and_then(|policy| policy.in_force);
        let read = status.events.as_ref().map(|events| events.read.values().sum());
        row.extend([
            number(status.uncovered),
            Cell::new(status.snapshot.to_string()),
            ago(in_force, status.time),
            number(read),
            number(status.events.as_ref().map(|events| events.recorded)),
            ago(status.flushed, status.time),
            ago(copied, now),
            address(),
        ]);
    }
    row
}

/// An older version does not tell which of its problems matter.
fn ready(status: &CollectorStatus) -> Cell {
    match &status.problems {
        None => Cell::painted("unknown", |paint, text| paint.yellow(text)),
        Some(problems) if problems.iter().any(|problem| problem.unready) => {
            Cell::painted("no", |paint, text| paint.red(text))
        }
        Some(_) => Cell::new("yes"),
    }
}

fn policy(status: &CollectorStatus) -> Cell {
    let Some(PolicyStatus { in_force, stale, unpublished }) = &status.policy else { return Cell::new(NONE) };
    let since = |what: &str, since: &DateTime<Utc>| format!("{what} {}", span(status.time - *since));
    let text = match (in_force, stale, unpublished) {
        (None, _, _) => "none".to_owned(),
        (_, Some(stale), _) => since("stale", stale),
        (_, _, Some(unpublished)) => since("unpublished", unpublished),
        _ if !status.source_errors.is_empty() => "incomplete".to_owned(),
        _ => return Cell::new("current"),
    };
    Cell::painted(text, |paint, text| paint.yellow(text))
}

fn gaps(status: &CollectorStatus) -> Cell {
    match (status.lost(), status.losses.iter().filter_map(|loss| loss.last).max()) {
        (0, _) => Cell::new("0"),
        (lost, None) => Cell::painted(lost.to_string(), |paint, text| paint.yellow(text)),
        (lost, Some(last)) => {
            let text = format!("{lost} ({} ago)", span(status.time - last));
            Cell::painted(text, |paint, text| paint.yellow(text))
        }
    }
}

/// Each problem, and its remedy on the next line.
fn describe_finding(text: &mut String, finding: &Finding, paint: Paint) {
    let Finding { node, problem, age } = finding;
    let node = node.as_deref().unwrap_or("query service");
    let node = if problem.unready { paint.red(&plain(node)) } else { paint.yellow(&plain(node)) };
    let _ = write!(text, "{node}: {}", plain(&problem.text));
    if !problem.names.is_empty() {
        let _ = write!(text, ": {}", plain(&problem.names.join(", ")));
    }
    if problem.more > 0 {
        let _ = write!(text, " and {} more", problem.more);
    }
    if let Some(age) = age {
        let _ = write!(text, " (for {})", span(*age));
    }
    text.push('\n');
    if !problem.remedy.is_empty() {
        let _ = writeln!(text, "  {}", plain(&problem.remedy));
    }
}

fn service(status: &ServiceStatus, now: DateTime<Utc>) -> String {
    let mut text = format!("Query service {}, up {}", plain(&status.version), span(now - status.started));
    if let Some(MirrorStatus { limit, removed_until }) = &status.mirror {
        let _ = write!(text, ", copies take up to {} GiB", limit >> 30);
        if let Some(until) = removed_until {
            let _ = write!(text, " and have no flows before {}", stamp(*until));
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests;
