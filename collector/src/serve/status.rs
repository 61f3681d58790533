//! The state of the collector, as its health and metrics have it. Every list is bounded, and says how much it leaves out.

use netverdict_flowlog::answer::{CollectorStatus, MOST_LISTED, PolicyStatus, Problem};
use netverdict_service::health::Effect;

use crate::{
    clock,
    health::{Health, Part, Present, Trouble},
    input::Session,
    metrics::Metrics,
    store::Store,
};

/// Most characters of a problem's text: a parser's error may hold what it could not read.
const MOST_TEXT: usize = 1_000;

pub(super) fn of(session: &Session, store: &Store, health: &Health, metrics: &Metrics) -> CollectorStatus {
    let Session { node, boot_id, mode, fresh: _, time_ns } = session;
    CollectorStatus {
        node: node.to_string(),
        boot_id: boot_id.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: mode.as_str().to_owned(),
        time: clock::at(clock::now_ns()),
        started: Some(clock::at(*time_ns)),
        segment: store.segment(),
        newest: store.newest(),
        flushed: metrics.flushed_at(),
        snapshot: unsigned(metrics.snapshot.get()),
        policy: Some(PolicyStatus {
            in_force: metrics.in_force_at(),
            stale: metrics.stale_since(),
            unpublished: health.present(Part::Publish).map(|present| present.since),
        }),
        source_errors: lines(health, &[Part::Source]),
        publish_errors: lines(health, &[Part::Publish, Part::Attach, Part::Unbound]),
        endpoints: unsigned(metrics.endpoints.get()),
        unbound: Some(unsigned(metrics.unbound.get())),
        uncovered: Some(unsigned(metrics.uncovered.get())),
        problems: Some(problems(health)),
        events: Some(metrics.event_counts()),
        losses: metrics.losses(),
    }
}

/// Problems as services of older versions read them.
fn lines(health: &Health, parts: &[Part]) -> Vec<String> {
    let mut lines: Vec<String> = parts.iter().flat_map(|part| health.of(*part)).collect();
    let rest = lines.len().saturating_sub(MOST_LISTED);
    lines.truncate(MOST_LISTED);
    lines.iter_mut().for_each(|line| *line = cut(line));
    if rest > 0 {
        lines.push(format!("and {rest} more"));
    }
    lines
}

fn problems(health: &Health) -> Vec<Problem> {
    Part::ALL.iter().filter_map(|part| Some((*part, health.present(*part)?))).flat_map(of_part).collect()
}

fn of_part((part, present): (Part, Present)) -> Vec<Problem> {
    let Present { since, troubles } = present;
    let problem = |text: String, remedy: String| Problem {
        part: part.as_str().to_owned(),
        unready: part.effect() == Effect::Unready,
        since: Some(since),
        text,
        remedy,
        names: Vec::new(),
        more: 0,
    };
    let rest = troubles.len().saturating_sub(MOST_LISTED);
    let listed = troubles.into_iter().take(MOST_LISTED).map(|Trouble { text, remedy, names }| {
        let remedy = if remedy.is_empty() { part.remedy().to_owned() } else { remedy };
        let more = names.len().saturating_sub(MOST_LISTED) as u64;
        let names = names.iter().take(MOST_LISTED).map(|name| cut(name)).collect();
        Problem { names, more, ..problem(cut(&text), remedy) }
    });
    let mut listed: Vec<Problem> = listed.collect();
    if rest > 0 {
        listed.push(problem(format!("{rest} more problems of this part"), "its /readyz lists all of them".to_owned()));
    }
    listed
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn unsigned(gauge: i64) -> u64 {
    u64::try_from(gauge).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_problems_are_a_few_and_a_number() {
        let health = Health::default();
        health.set(Part::Source, (0..1_000).map(|number| format!("{number}.yaml is broken")).collect());
        let listed = problems(&health);
        assert_eq!((listed.len(), listed[MOST_LISTED].text.as_str()), (21, "980 more problems of this part"));
        assert!(listed.iter().all(|problem| !problem.unready && !problem.remedy.is_empty()), "{listed:?}");
        assert_eq!(lines(&health, &[Part::Source]).last().unwrap(), "and 980 more");
    }

    #[test]
    fn many_names_and_long_texts_are_cut_and_counted() {
        let health = Health::default();
        let names = (0..25).map(|number| format!("shop/web-{number}")).collect();
        let unbound = Trouble { text: "é".repeat(5_000), remedy: "compare them".to_owned(), names };
        health.set_named(Part::Unbound, vec![unbound]);
        let [problem] = problems(&health).try_into().unwrap();
        assert_eq!((problem.names.len(), problem.more, problem.remedy.as_str()), (20, 5, "compare them"));
        assert_eq!(problem.text.chars().count(), MOST_TEXT + 1);
    }

    #[test]
    fn attaching_and_publishing_are_told_apart_and_each_has_its_remedy() {
        let health = Health::default();
        for part in Part::ALL {
            health.set(part, vec!["it does not work".to_owned()]);
        }
        let listed = problems(&health);
        let parts: Vec<_> = listed.iter().map(|problem| problem.part.as_str()).collect();
        assert_eq!(parts, ["start", "source", "publish", "attach", "unbound", "services", "log", "store"]);
        assert!(listed.iter().all(|problem| !problem.remedy.is_empty() && problem.since.is_some()), "{listed:?}");
    }
}
