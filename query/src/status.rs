//! The state of the service and of all collectors, as `GET /v1/status` gives it: who answers with what, who does not and
//! why, how far the copies are, and which files cannot be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    FORMAT_VERSION,
    answer::{
        CollectorAnswer, CollectorStatus, CopyStatus, MOST_LISTED, MirrorStatus, Problem, ServiceStatus, SkippedFile,
    },
};
use netverdict_service::{
    endpoint_url::without_credentials,
    health::{Effect, HealthRegistry, PartReport},
};

use crate::{Executor, last_answers::LastAnswer};

/// Most files that are listed; the rest is counted.
const MOST_FILES: usize = 100;

/// Asks all collectors at once. One that does not answer in time is reported as that.
pub(crate) async fn of(executor: &Executor, health: &HealthRegistry, started: DateTime<Utc>) -> ServiceStatus {
    let collectors = executor.store().collectors();
    let (_, unknown) = collectors.addresses().await;
    let statuses = collectors.statuses().await;
    let answers = statuses.iter().map(|(url, status)| {
        let copies = collectors.copies().and_then(|copies| copies.of(url));
        answer(without_credentials(url.as_str()), status, collectors.last_answers.of(url), copies)
    });
    let answers = present(answers.collect());
    let mirror =
        collectors.copies().map(|copies| MirrorStatus { limit: copies.limit(), removed_until: copies.removed_until() });
    let skipped = executor.store().unreadable();
    ServiceStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        format_version: FORMAT_VERSION,
        started,
        time: Some(Utc::now()),
        problems: problems(&health.reports().await, unknown, &skipped, &answers),
        collectors: answers,
        mirror,
        skipped_files: listed(skipped),
        stale: collectors.problems().await,
    }
}

/// A collector's answer, or what was known of it last.
fn answer(
    url: String,
    status: &Result<CollectorStatus, String>,
    last: Option<LastAnswer>,
    copies: Option<CopyStatus>,
) -> CollectorAnswer {
    let known = CollectorAnswer { url, copies, ..CollectorAnswer::default() };
    match (status, last) {
        (Ok(status), _) => CollectorAnswer { status: Some(status.clone()), ..known },
        (Err(problem), Some(LastAnswer { node, time })) => {
            CollectorAnswer { problem: Some(problem.clone()), node: Some(node), answered: Some(time), ..known }
        }
        (Err(problem), None) => CollectorAnswer { problem: Some(problem.clone()), ..known },
    }
}

/// Without addresses that do not answer and whose node answers at another one: its collector was replaced.
fn present(mut answers: Vec<CollectorAnswer>) -> Vec<CollectorAnswer> {
    let nodes: BTreeSet<String> =
        answers.iter().filter_map(|answer| answer.status.as_ref()).map(|status| status.node.clone()).collect();
    let is_elsewhere = |answer: &CollectorAnswer| answer.node.as_ref().is_some_and(|node| nodes.contains(node));
    answers.retain(|answer| answer.status.is_some() || !is_elsewhere(answer));
    answers
}

/// Problems of the service itself, each with its remedy.
fn problems(
    reports: &[PartReport],
    unknown: Vec<String>,
    skipped: &[(String, String)],
    answers: &[CollectorAnswer],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for PartReport { part, effect, problems: texts } in reports {
        let unready = *effect == Effect::Unready;
        problems.extend(texts.iter().take(MOST_LISTED).map(|text| Problem {
            unready,
            ..problem(part, text, "see that --data-dir is there and that the service may read it")
        }));
    }
    let of_dns = "see that the Service of the collectors is there and that DNS answers for its name";
    problems.extend(unknown.iter().take(MOST_LISTED).map(|text| problem("collectors", text, of_dns)));
    if answers.is_empty() && unknown.is_empty() {
        let text = "no collector is known: rows are visible once they are in files, and no node tells its state";
        problems.push(problem("collectors", &text, "name the collectors' rows ports with --collector"));
    }
    for (node, urls) in twice(answers) {
        let text =
            format!("{} collectors say that they are node {node}, so rows of theirs may count twice", urls.len());
        let remedy = "give each node its own --node, and name each collector once with --collector";
        let more = urls.len().saturating_sub(MOST_LISTED) as u64;
        let names = urls.into_iter().take(MOST_LISTED).map(str::to_owned).collect();
        problems.push(Problem { names, more, ..problem("collectors", &text, remedy) });
    }
    if !skipped.is_empty() {
        let text = format!("{} files of the record cannot be read and are left out", skipped.len());
        let remedy = "restore them from another copy or remove them; the reasons are in skipped_files (-o json)";
        let names = skipped.iter().take(MOST_LISTED).map(|(file, _)| file.clone()).collect();
        let more = skipped.len().saturating_sub(MOST_LISTED) as u64;
        problems.push(Problem { names, more, ..problem("store", &text, remedy) });
    }
    problems
}

/// Nodes that more than one collector answers for, with their addresses.
fn twice(answers: &[CollectorAnswer]) -> BTreeMap<&str, Vec<&str>> {
    let mut by_node = BTreeMap::<&str, Vec<&str>>::new();
    for answer in answers {
        if let Some(status) = &answer.status {
            by_node.entry(&status.node).or_default().push(&answer.url);
        }
    }
    by_node.retain(|_, urls| urls.len() > 1);
    by_node
}

fn problem(part: &str, text: &dyn Display, remedy: &str) -> Problem {
    Problem { part: part.to_owned(), text: text.to_string(), remedy: remedy.to_owned(), ..Problem::default() }
}

fn listed(skipped: Vec<(String, String)>) -> Vec<SkippedFile> {
    let rest = skipped.len().saturating_sub(MOST_FILES);
    let mut files: Vec<_> =
        skipped.into_iter().take(MOST_FILES).map(|(file, reason)| SkippedFile { file, reason }).collect();
    if rest > 0 {
        files.push(SkippedFile { file: String::new(), reason: format!("{rest} more") });
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(node: &str) -> CollectorStatus {
        CollectorStatus { node: node.to_owned(), ..CollectorStatus::default() }
    }

    #[test]
    fn a_collector_that_answers_is_told_as_it_is_and_another_with_its_node_and_the_reason() {
        let last = || Some(LastAnswer { node: "n2".to_owned(), time: DateTime::UNIX_EPOCH });
        let well = answer("http://a".to_owned(), &Ok(answered("n1")), last(), None);
        assert_eq!((well.status.map(|status| status.node), well.problem), (Some("n1".to_owned()), None));
        let away = answer("http://b".to_owned(), &Err("Connection refused".to_owned()), last(), None);
        assert!(away.status.is_none());
        assert_eq!((away.node.as_deref(), away.problem.as_deref()), (Some("n2"), Some("Connection refused")));
        let never = answer("http://c".to_owned(), &Err("nothing within 2s".to_owned()), None, None);
        assert_eq!((never.node, never.answered), (None, None));
    }

    #[test]
    fn the_former_address_of_a_collector_that_answers_elsewhere_is_left_out() {
        let away = |url: &str, node: &str| CollectorAnswer {
            url: url.to_owned(),
            problem: Some("nothing within 2s".to_owned()),
            node: Some(node.to_owned()),
            ..CollectorAnswer::default()
        };
        let there = CollectorAnswer { status: Some(answered("n1")), ..CollectorAnswer::default() };
        let left = present(vec![away("http://former", "n1"), there, away("http://b", "n2")]);
        let urls: Vec<_> = left.iter().map(|answer| answer.url.as_str()).collect();
        assert_eq!(urls, ["", "http://b"]);
    }

    #[test]
    fn problems_of_the_service_have_remedies_and_are_bounded() {
        let reports =
            [PartReport { part: "store", effect: Effect::Unready, problems: vec!["cannot be listed".to_owned()] }];
        let skipped: Vec<_> = (0..250).map(|number| (format!("{number}.parquet"), "damaged".to_owned())).collect();
        let told = problems(&reports, vec!["the collectors of x are not known".to_owned()], &skipped, &[]);
        assert_eq!(told.len(), 3);
        assert!(told[0].unready && !told[1].unready);
        assert!(told.iter().all(|problem| !problem.remedy.is_empty()), "{told:?}");
        assert_eq!((told[2].names.len(), told[2].more), (MOST_LISTED, 230));
        let files = listed(skipped);
        assert_eq!((files.len(), files[MOST_FILES].reason.as_str()), (101, "150 more"));
    }

    #[test]
    fn two_collectors_of_one_node_are_a_problem() {
        let at = |url: &str, node: &str| CollectorAnswer {
            url: url.to_owned(),
            status: Some(answered(node)),
            ..CollectorAnswer::default()
        };
        let told = problems(&[], Vec::new(), &[], &[at("http://a", "n1"), at("http://b", "n2"), at("http://c", "n1")]);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].names, ["http://a", "http://c"]);
        assert!(told[0].text.contains("node n1") && told[0].remedy.contains("--node"), "{told:?}");
    }

    #[test]
    fn a_service_without_collectors_says_so() {
        let told = problems(&[], Vec::new(), &[], &[]);
        assert!(
            told[0].text.starts_with("no collector is known") && told[0].remedy.contains("--collector"),
            "{told:?}"
        );
        let one = CollectorAnswer::default();
        assert!(problems(&[], Vec::new(), &[], &[one]).is_empty());
    }
}
