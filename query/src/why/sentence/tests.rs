use std::collections::BTreeMap;

use chrono::TimeDelta;
use netverdict_flowlog::answer::{Gap, WhyEnd};
use netverdict_policy::model::PolicyKey;

use super::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

fn end(name: &str) -> WhyEnd {
    WhyEnd { name: name.into(), kind: "pod".into(), addresses: Vec::new(), labels: BTreeMap::new() }
}

fn decider(name: &str, rule: Option<u32>) -> Decider {
    let role = if rule.is_some() { Role::Decided } else { Role::Isolating };
    Decider {
        kind: "NetworkPolicy".into(),
        namespace: "db".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        generation: 1,
        content_hash: String::new(),
        tier: "network_policy".into(),
        rule_index: rule,
        rule_name: String::new(),
        action: String::new(),
        role: role.as_str().into(),
        text: String::new(),
        since: Since::Unchanged,
    }
}

fn miss(name: &str, rule: Option<u32>, failed: FailedDimension, detail: &str) -> NearMiss {
    let policy = PolicyKey { kind: "NetworkPolicy".into(), namespace: "db".into(), name: name.into() };
    NearMiss { policy, rule_index: rule, failed, detail: detail.into() }
}

fn point(name: &str, verdict: Verdict, reason: Reason, decided_by: Vec<Decider>) -> WhyPoint {
    WhyPoint {
        point: name.into(),
        verdict,
        verdict_if_enforced: None,
        disposition: "dropped".into(),
        reason,
        drop_reason: String::new(),
        method: "enforced".into(),
        confidence: "exact".into(),
        mode: "enforce".into(),
        decided_by,
        passed: Vec::new(),
        staged: Vec::new(),
        near_misses: Vec::new(),
        snapshot: 1,
        attribution_id: 7,
        last_seen: Some(now() - TimeDelta::seconds(12)),
        first_seen: Some(now() - TimeDelta::seconds(12)),
        count: 1,
        now: Some(verdict),
        now_decided_by: Vec::new(),
        node: "node-1".into(),
        hypothetical: false,
        identity_window_open: false,
    }
}

fn answer(verdict: Verdict, points: Vec<WhyPoint>) -> WhyAnswer {
    WhyAnswer {
        sentence: String::new(),
        verdict,
        source: end("shop/web"),
        destination: end("db/pg"),
        port: Some(5432),
        protocol: "TCP".into(),
        points,
        gaps: Vec::new(),
        stale: Vec::new(),
        from: now() - TimeDelta::minutes(15),
        to: now(),
    }
}

fn check(answer: &WhyAnswer, expected: &str) {
    assert_eq!(sentence(answer, now(), "", None), expected);
}

fn denied() -> WhyPoint {
    let mut point = point(
        "destination-ingress",
        Verdict::Denied,
        Reason::IsolatedNoMatch,
        vec![decider("allow-api", None), decider("default-deny", None)],
    );
    point.near_misses = vec![
        miss("allow-api", Some(0), FailedDimension::Peer, "pod label app=web is not app=api"),
        miss("default-deny", None, FailedDimension::NoRules, "it has no rule"),
    ];
    point
}

#[test]
fn a_denial_names_who_isolates_and_the_nearest_rule() {
    check(
        &answer(Verdict::Denied, vec![denied()]),
        "denied at destination ingress by db/allow-api, db/default-deny (isolate db/pg; no rule matched); nearest: \
         db/allow-api rule 0 — pod label app=web is not app=api; 12 s ago",
    );
}

#[test]
fn a_denial_tells_what_has_changed_since() {
    let mut point = denied();
    point.count = 3;
    point.near_misses.clear();
    point.decided_by[1].since = Since::Deleted;
    point.now = Some(Verdict::Allowed);
    point.now_decided_by = vec![decider("allow-api", Some(1))];
    check(
        &answer(Verdict::Denied, vec![point]),
        "denied at destination ingress by db/allow-api, db/default-deny (isolate db/pg; no rule matched); last 12 s ago, \
         3 events in this time; db/default-deny was deleted since; it would be allowed now, by db/allow-api rule 1",
    );
}

#[test]
fn a_denial_that_was_only_observed_says_so() {
    let mut point = denied();
    point.near_misses.clear();
    point.disposition = "forwarded".into();
    point.mode = "observe".into();
    check(
        &answer(Verdict::Denied, vec![point]),
        "denied at destination ingress by db/allow-api, db/default-deny (isolate db/pg; no rule matched); but forwarded: \
         node-1 is in mode observe; 12 s ago",
    );
}

#[test]
fn what_policy_allows_is_not_policy() {
    let egress = point("source-egress", Verdict::Allowed, Reason::NoPolicy, Vec::new());
    let ingress =
        point("destination-ingress", Verdict::Allowed, Reason::RuleMatch, vec![decider("allow-api", Some(0))]);
    check(
        &answer(Verdict::Allowed, vec![egress.clone(), ingress]),
        "not policy: allowed by db/allow-api rule 0; policy does not stop it: look at the application, DNS or routing; 12 s ago",
    );
    check(
        &answer(Verdict::Allowed, vec![egress]),
        "not policy: allowed, for no policy isolates them; policy does not stop it: look at the application, DNS or \
         routing; 12 s ago",
    );
}

#[test]
fn without_a_packet_the_sentence_says_that_none_was_seen() {
    let mut point = denied();
    point.near_misses.clear();
    (point.method, point.last_seen, point.count, point.disposition) = ("evaluated".into(), None, 0, String::new());
    let mut answer = answer(Verdict::Denied, vec![point]);
    check(
        &answer,
        "no packet from shop/web to db/pg is on record in the last 15 min; by the stored policies it would be denied at \
         destination ingress by db/allow-api, db/default-deny (isolate db/pg; no rule matched)",
    );
    answer.stale = vec!["collector http://c does not answer".into(), "x".into()];
    answer.gaps = vec![Gap {
        node: "node-1".into(),
        lane: String::new(),
        endpoint: String::new(),
        cause: "unclean_stop".into(),
        lost_events: 0,
        from: now(),
        to: now(),
        detail: String::new(),
    }];
    let text = sentence(&answer, now(), "", None);
    assert!(text.ends_with(
        "; a gap in the record touches this time; may be out of date: collector http://c does not answer (and 1 more)"
    ));
}

#[test]
fn the_end_that_was_not_reached_is_told_apart() {
    let egress = point("source-egress", Verdict::Denied, Reason::ExplicitDeny, vec![decider("no-egress", Some(2))]);
    let mut ingress = denied();
    ingress.hypothetical = true;
    check(
        &answer(Verdict::Denied, vec![egress, ingress]),
        "denied at source egress by db/no-egress rule 2 (its rule denies); 12 s ago; destination ingress would deny it too, \
         by db/allow-api, db/default-deny",
    );
}

#[test]
fn denials_before_an_allowed_attempt_are_mentioned() {
    let point = point("destination-ingress", Verdict::Allowed, Reason::RuleMatch, vec![decider("allow-api", Some(0))]);
    let before = DeniedBefore { events: 4, last: now() - TimeDelta::minutes(5) };
    let text = sentence(&answer(Verdict::Allowed, vec![point]), now(), "", Some(before));
    assert!(text.ends_with("; before that, 4 events were denied, the last 5 min ago"), "{text}");
}
