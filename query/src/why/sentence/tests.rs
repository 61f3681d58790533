use std::collections::BTreeMap;

use chrono::TimeDelta;
use netverdict_flowlog::answer::{Gap, WhyEnd, WhyOtherwise};
use netverdict_policy::{FailedDimension, model::PolicyKey};

use super::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

fn end(name: &str) -> WhyEnd {
    WhyEnd {
        name: name.into(),
        kind: "pod".into(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        deleted: None,
        candidates: Vec::new(),
    }
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
        revision: None,
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
        mistaken_for: None,
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
        now: None,
        otherwise: Vec::new(),
        gaps: Vec::new(),
        stale: Vec::new(),
        from: now() - TimeDelta::minutes(15),
        to: now(),
    }
}

fn check(answer: &WhyAnswer, expected: &str) {
    assert_eq!(sentence(answer, now(), &SentenceContext::default()), expected);
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
fn a_rule_of_a_staged_policy_is_never_the_nearest() {
    let mut point = denied();
    point.near_misses.push(miss("trial", Some(0), FailedDimension::Port, "port 80 is not 81"));
    let text = sentence(&answer(Verdict::Denied, vec![point]), now(), &SentenceContext::default());
    assert!(text.contains("; nearest: db/allow-api rule 0 — "), "{text}");
}

#[test]
fn a_denial_tells_what_has_changed_since() {
    let mut point = denied();
    point.count = 3;
    point.near_misses.clear();
    point.decided_by[1].since = Since::Deleted;
    point.now = Some(Verdict::Allowed);
    point.now_decided_by = vec![decider("allow-api", Some(1))];
    let text =
        sentence(&answer(Verdict::Denied, vec![point]), now(), &newest(Verdict::Allowed, "source-egress", vec![]));
    assert_eq!(
        text,
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
    let text = sentence(&answer, now(), &SentenceContext::default());
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
    let beside = SentenceContext { denied_before: Some(before), ..SentenceContext::default() };
    let text = sentence(&answer(Verdict::Allowed, vec![point]), now(), &beside);
    assert!(text.ends_with("; before that, 4 events were denied, the last 5 min ago"), "{text}");
}

/// Context with the newest state's verdict.
fn newest(verdict: Verdict, point: &str, decided_by: Vec<Decider>) -> SentenceContext {
    SentenceContext {
        newest: Some(PathVerdict { verdict, point: point.into(), decided_by }),
        ..SentenceContext::default()
    }
}

#[test]
fn what_would_be_now_is_told_of_both_ends_together() {
    let mut egress = point("source-egress", Verdict::Denied, Reason::ExplicitDeny, vec![decider("no-egress", Some(2))]);
    egress.decided_by[0].since = Since::Deleted;
    egress.now = Some(Verdict::Allowed);
    let mut ingress = denied();
    ingress.hypothetical = true;
    let answer = answer(Verdict::Denied, vec![egress, ingress]);
    let told = "denied at source egress by db/no-egress rule 2 (its rule denies); 12 s ago; db/no-egress rule 2 \
                was deleted since";
    let now_denied = newest(Verdict::Denied, "destination-ingress", vec![decider("default-deny", None)]);
    assert_eq!(
        sentence(&answer, now(), &now_denied),
        format!("{told}; source egress would allow it now, but destination ingress would deny it, by db/default-deny")
    );
    assert_eq!(
        sentence(&answer, now(), &newest(Verdict::Allowed, "source-egress", vec![])),
        format!(
            "{told}; it would be allowed now; destination ingress would have denied it too, by db/allow-api, db/default-deny"
        )
    );
}

#[test]
fn what_policies_did_not_drop_they_do_not_allow_now() {
    for reason in [Reason::SpoofedSource, Reason::OtherDrop] {
        let mut point = point("source-egress", Verdict::Denied, reason, Vec::new());
        point.now = Some(Verdict::Allowed);
        let answer = answer(Verdict::Denied, vec![point]);
        let text = sentence(&answer, now(), &newest(Verdict::Allowed, "source-egress", vec![]));
        assert!(!text.contains("it would"), "{text}");
    }
}

#[test]
fn other_protocols_and_pods_that_are_gone_are_mentioned() {
    let mut answer = answer(Verdict::Denied, vec![denied()]);
    answer.points[0].near_misses.clear();
    let other = |protocol: &str, family, verdict| WhyOtherwise {
        protocol: protocol.into(),
        family,
        verdict,
        count: 2,
        last_seen: now() - TimeDelta::seconds(30),
    };
    answer.otherwise = vec![other("TCP", 6, Verdict::Allowed), other("UDP", 4, Verdict::Allowed)];
    answer.otherwise.push(other("UDP", 6, Verdict::Unknown));
    answer.source.deleted = Some(now() - TimeDelta::minutes(5));
    let beside = SentenceContext { family: Some(4), ..SentenceContext::default() };
    let text = sentence(&answer, now(), &beside);
    assert!(
        text.ends_with(
            "; over IPv6 it was allowed: 2 events, the last 30 s ago; over UDP it was allowed: 2 events, the last 30 s ago; \
             over UDP on IPv6 the verdict is unknown: 2 events, the last 30 s ago; shop/web was deleted at \
             2027-01-15 07:55:00 UTC, 5 min ago"
        ),
        "{text}"
    );
}
