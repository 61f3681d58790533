//! Problems of the query service and of each node, found in its status. Pure: the time is an argument.

use chrono::{DateTime, TimeDelta, Utc};
use netverdict_flowlog::answer::{CollectorAnswer, CollectorStatus, CopyStatus, Loss, Problem, ServiceStatus};
use reqwest::Url;
use serde::Serialize;

use crate::moment::span;

/// How long a loss of events counts as a problem.
const RECENT: TimeDelta = TimeDelta::hours(1);
/// Copies are made every ten seconds. Longer than this without all of a node's files is told.
const COPIES_WITHIN: TimeDelta = TimeDelta::minutes(5);

/// A problem of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// `None`: of the query service.
    pub(super) node: Option<String>,
    #[serde(flatten)]
    pub(super) problem: Problem,
    /// How long it has been there, by the clock of who told it.
    #[serde(skip)]
    pub(super) age: Option<TimeDelta>,
}

/// The node's name, as far as it is known; or else the collector's address.
pub(super) fn name(answer: &CollectorAnswer) -> String {
    let node = answer.status.as_ref().map(|status| &status.node).or(answer.node.as_ref());
    node.cloned().unwrap_or_else(|| match Url::parse(&answer.url) {
        Ok(url) => url.authority().to_owned(),
        Err(_) => answer.url.clone(),
    })
}

/// Leaves out other nodes than these, if there are any, and sorts. Returns those of `nodes` that nothing is known of.
pub(super) fn keep_only(status: &mut ServiceStatus, nodes: &[String]) -> Vec<String> {
    status.collectors.sort_by_key(name);
    if nodes.is_empty() {
        return Vec::new();
    }
    status.collectors.retain(|answer| nodes.contains(&name(answer)));
    let is_known = |node: &String| status.collectors.iter().any(|answer| name(answer) == *node);
    nodes.iter().filter(|node| !is_known(node)).cloned().collect()
}

/// All findings: of the service, and of each node in the order of the answer. Empty: all is well.
pub(super) fn of(status: &ServiceStatus, unknown: &[String], now: DateTime<Utc>) -> Vec<Finding> {
    let of_service = status.problems.iter().map(|problem| Finding {
        node: None,
        age: problem.since.map(|since| now - since),
        problem: problem.clone(),
    });
    let of_unknown = unknown.iter().map(|node| {
        let text = "the query service knows no collector of this node";
        let remedy = "see that a collector runs there, and that --collector of the query service names it";
        finding(node, problem("collectors", text.to_owned(), remedy))
    });
    of_service.chain(of_unknown).chain(status.collectors.iter().flat_map(|answer| of_node(answer, now))).collect()
}

fn of_node(answer: &CollectorAnswer, now: DateTime<Utc>) -> Vec<Finding> {
    let node = name(answer);
    let Some(status) = &answer.status else { return vec![finding(&node, away(answer, now))] };
    let of_health = status.all_problems().into_iter().map(|problem| Finding {
        node: Some(node.clone()),
        age: problem.since.map(|since| status.time - since),
        problem,
    });
    let lost = status.losses.iter().filter_map(|loss| lost(loss, status));
    let copies = answer.copies.as_ref().and_then(|copies| uncopied(copies, now));
    of_health.chain(lost.chain(copies).map(|problem| finding(&node, problem))).collect()
}

/// Its collector does not answer.
fn away(answer: &CollectorAnswer, now: DateTime<Utc>) -> Problem {
    let reason = answer.problem.as_deref().unwrap_or("no reason is given");
    let last = answer.answered.map(|last| format!("; it last answered {} ago", span(now - last)));
    let text = format!("its collector does not answer at {}: {reason}{}", answer.url, last.unwrap_or_default());
    let remedy = "see that netverdict-collector runs there, and that --collector and --collector-token-file of the query \
                  service fit it; what is pinned goes on judging, and the node's newest rows are missing from answers";
    Problem { unready: true, since: answer.answered, ..problem("collector", text, remedy) }
}

/// `None` where it is long ago.
fn lost(loss: &Loss, status: &CollectorStatus) -> Option<Problem> {
    let Loss { cause, events, last, detail } = loss;
    let ago = last.map(|last| status.time - last);
    if *events == 0 || ago.is_some_and(|ago| ago >= RECENT) {
        return None;
    }
    let last = ago.map_or_else(String::new, |ago| format!(", the last {} ago", span(ago)));
    let text = format!("{events} events are not on record ({cause}){last}");
    Some(problem("gaps", text, detail))
}

/// `None` where all files of the node are here, or were a moment ago.
fn uncopied(copies: &CopyStatus, now: DateTime<Utc>) -> Option<Problem> {
    let CopyStatus { complete, problem: reason } = copies;
    let is_late = complete.is_some_and(|complete| now - complete >= COPIES_WITHIN);
    let reason = match reason {
        Some(reason) => reason.as_str(),
        None if is_late => "they are copied more slowly than they are written",
        None => return None,
    };
    let last = complete.map(|complete| format!("; all of them were here {} ago", span(now - complete)));
    let text = format!("its files are not all copied: {reason}{}", last.unwrap_or_default());
    let remedy = "answers lack them, and they are lost with the node's disk; see the query service's log";
    Some(problem("mirror", text, remedy))
}

fn problem(part: &str, text: String, remedy: &str) -> Problem {
    Problem { part: part.to_owned(), text, remedy: remedy.to_owned(), ..Problem::default() }
}

/// Its text tells its age.
fn finding(node: &str, problem: Problem) -> Finding {
    Finding { node: Some(node.to_owned()), problem, age: None }
}
