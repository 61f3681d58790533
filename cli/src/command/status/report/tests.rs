use std::collections::BTreeMap;

use chrono::TimeDelta;
use netverdict_flowlog::answer::{CopyStatus, EventCounts, Loss, Problem};

use super::*;
use crate::command::status::findings::{keep_only, of};

fn now() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-05-01T03:00:00Z").unwrap().to_utc()
}

fn ago(seconds: i64) -> DateTime<Utc> {
    now() - TimeDelta::seconds(seconds)
}

fn collector(node: &str) -> CollectorStatus {
    CollectorStatus {
        node: node.to_owned(),
        version: "0.1.0".to_owned(),
        mode: "enforce".to_owned(),
        time: now(),
        started: Some(ago(4 * 86_400)),
        snapshot: 12,
        policy: Some(PolicyStatus { in_force: Some(ago(3_000)), ..PolicyStatus::default() }),
        endpoints: 23,
        unbound: Some(0),
        uncovered: Some(0),
        problems: Some(Vec::new()),
        flushed: Some(ago(40)),
        events: Some(EventCounts {
            read: BTreeMap::from([("denied".to_owned(), 40), ("flow".to_owned(), 60)]),
            recorded: 99,
            ..EventCounts::default()
        }),
        ..CollectorStatus::default()
    }
}

fn answering(status: CollectorStatus) -> CollectorAnswer {
    CollectorAnswer { url: format!("http://{}:9471/", status.node), status: Some(status), ..CollectorAnswer::default() }
}

fn service(collectors: Vec<CollectorAnswer>) -> ServiceStatus {
    ServiceStatus {
        version: "0.1.0".to_owned(),
        started: ago(7_200),
        time: Some(now()),
        collectors,
        ..ServiceStatus::default()
    }
}

fn problem(part: &str, unready: bool, text: &str, remedy: &str) -> Problem {
    Problem {
        part: part.to_owned(),
        unready,
        since: Some(ago(720)),
        text: text.to_owned(),
        remedy: remedy.to_owned(),
        ..Problem::default()
    }
}

fn told(status: &ServiceStatus, wide: bool) -> String {
    describe(status, &of(status, &[], now()), now(), wide, Paint::default())
}

#[test]
fn nodes_that_are_well_are_a_line_each_and_nothing_more() {
    let status = service(vec![answering(collector("n1")), answering(collector("n2"))]);
    assert!(of(&status, &[], now()).is_empty());
    assert_eq!(
        told(&status, false),
        "\
NODE  MODE     READY  POLICY   ENDPOINTS  UNBOUND  GAPS  VERSION  UP
n1    enforce  yes    current  23         0        0     0.1.0    4d
n2    enforce  yes    current  23         0        0     0.1.0    4d

Query service 0.1.0, up 2h
"
    );
}

#[test]
fn each_problem_is_a_sentence_of_its_node_and_a_remedy() {
    let mut full = collector("n1");
    full.policy.as_mut().unwrap().unpublished = Some(ago(180));
    full.problems = Some(vec![problem("publish", true, "map pairs is full with 8 entries", "raise --max-pairs")]);
    let mut stale = collector("n2");
    stale.policy.as_mut().unwrap().stale = Some(ago(720));
    stale.unbound = Some(3);
    let names = vec!["shop/web".to_owned(), "shop/api".to_owned()];
    stale.problems = Some(vec![
        problem("source", false, "kubernetes: cannot reach the API server", "make it reachable"),
        Problem { names, more: 1, ..problem("unbound", false, "interfaces that belong to no pod (3)", "compare them") },
    ]);
    stale.losses = vec![Loss {
        cause: "ring_full".to_owned(),
        events: 52,
        last: Some(ago(200)),
        detail: "the ring had no room; state a longer outage in --ring-seconds".to_owned(),
    }];
    let away = CollectorAnswer {
        url: "http://10.0.0.3:9471/".to_owned(),
        problem: Some("Connection refused".to_owned()),
        node: Some("n3".to_owned()),
        answered: Some(ago(300)),
        ..CollectorAnswer::default()
    };
    let never = CollectorAnswer {
        url: "http://10.0.0.4:9471/".to_owned(),
        problem: Some("its status cannot be read: expected value at line 1 column 1".to_owned()),
        ..CollectorAnswer::default()
    };
    let mut status = service(vec![never, away, answering(stale), answering(full)]);
    status.problems = vec![problem("store", true, "the data directory cannot be listed", "see to --data-dir")];
    assert!(keep_only(&mut status, &[]).is_empty());
    assert_eq!(
        told(&status, false),
        "\
NODE           MODE     READY    POLICY          ENDPOINTS  UNBOUND  GAPS         VERSION  UP
10.0.0.4:9471  -        unknown  -               -          -        -            -        -
n1             enforce  no       unpublished 3m  23         0        0            0.1.0    4d
n2             enforce  yes      stale 12m       23         3        52 (3m ago)  0.1.0    4d
n3             -        unknown  -               -          -        -            -        -

query service: the data directory cannot be listed (for 12m)
  see to --data-dir
10.0.0.4:9471: its collector does not answer at http://10.0.0.4:9471/: its status cannot be read: expected value at line 1 column 1
  see that netverdict-collector runs there, and that --collector and --collector-token-file of the query service fit it; what is pinned goes on judging, and the node's newest rows are missing from answers
n1: map pairs is full with 8 entries (for 12m)
  raise --max-pairs
n2: kubernetes: cannot reach the API server (for 12m)
  make it reachable
n2: interfaces that belong to no pod (3): shop/web, shop/api and 1 more (for 12m)
  compare them
n2: 52 events are not on record (ring_full), the last 3m ago
  the ring had no room; state a longer outage in --ring-seconds
n3: its collector does not answer at http://10.0.0.3:9471/: Connection refused; it last answered 5m ago
  see that netverdict-collector runs there, and that --collector and --collector-token-file of the query service fit it; what is pinned goes on judging, and the node's newest rows are missing from answers

Query service 0.1.0, up 2h
"
    );
}

#[test]
fn wide_tells_of_files_copies_and_events() {
    let copies = CopyStatus { complete: Some(ago(7)), problem: None };
    let mut status = service(vec![CollectorAnswer { copies: Some(copies), ..answering(collector("n1")) }]);
    status.mirror = Some(MirrorStatus { limit: 50 << 30, removed_until: Some(ago(86_400)) });
    assert_eq!(
        told(&status, true),
        "\
NODE  MODE     READY  POLICY   ENDPOINTS  UNBOUND  GAPS  VERSION  UP  UNCOVERED  SNAPSHOT  IN FORCE  READ  RECORDED  FLUSHED  COPIED  ADDRESS
n1    enforce  yes    current  23         0        0     0.1.0    4d  0          12        50m       100   99        40s      7s      http://n1:9471/

Query service 0.1.0, up 2h, copies take up to 50 GiB and have no flows before 2026-04-30T03:00:00.000Z
"
    );
}

#[test]
fn an_old_loss_stays_in_the_table_and_is_no_problem_any_more() {
    let mut status = collector("n1");
    status.losses = vec![Loss { events: 52, last: Some(ago(7_200)), ..Loss::default() }];
    let status = service(vec![answering(status)]);
    assert!(of(&status, &[], now()).is_empty());
    assert!(told(&status, false).contains("52 (2h ago)"), "{}", told(&status, false));
}

#[test]
fn copies_that_do_not_come_are_a_problem_and_late_ones_too() {
    for (copies, expected) in [
        (CopyStatus { complete: Some(ago(20)), problem: None }, None),
        (CopyStatus { complete: None, problem: None }, None),
        (CopyStatus { complete: Some(ago(600)), problem: None }, Some("more slowly than they are written")),
        (
            CopyStatus { complete: Some(ago(60)), problem: Some("the record was changed".to_owned()) },
            Some("was changed"),
        ),
    ] {
        let status = service(vec![CollectorAnswer { copies: Some(copies.clone()), ..answering(collector("n1")) }]);
        let findings = of(&status, &[], now());
        let text = findings.first().map(|finding| finding.problem.text.clone());
        match (expected, &text) {
            (None, None) => {}
            (Some(expected), Some(text)) => assert!(text.contains(expected), "{text}"),
            _ => panic!("{copies:?}: {text:?}"),
        }
    }
}

#[test]
fn nodes_are_chosen_by_name_and_one_that_nobody_knows_is_a_problem() {
    let mut status = service(vec![answering(collector("n2")), answering(collector("n1"))]);
    let unknown = keep_only(&mut status, &["n2".to_owned(), "n9".to_owned()]);
    assert_eq!(status.collectors.iter().map(name).collect::<Vec<_>>(), ["n2"]);
    let findings = of(&status, &unknown, now());
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].node.as_deref(), Some("n9"));
    assert!(!findings[0].problem.remedy.is_empty());
}

#[test]
fn an_older_collector_shows_what_it_tells() {
    let old = CollectorStatus {
        policy: None,
        unbound: None,
        problems: None,
        started: None,
        source_errors: vec!["a.yaml is broken".to_owned()],
        ..collector("n1")
    };
    let text = told(&service(vec![answering(old)]), false);
    assert!(text.contains("n1    enforce  unknown  -       23         -        0     0.1.0    -\n"), "{text}");
    assert!(text.contains("n1: a.yaml is broken\n  read /readyz of its collector"), "{text}");
}

#[test]
fn what_a_node_says_cannot_move_the_cursor() {
    let mut odd = collector("n1\x1b[2J");
    odd.problems = Some(vec![problem("source", false, "a\nn2: all is lost", "b\x07")]);
    let text = told(&service(vec![answering(odd)]), false);
    assert!(!text.contains(['\x1b', '\x07']) && !text.contains("\nn2: "), "{text}");
}
