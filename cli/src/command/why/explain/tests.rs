//! The text of an answer.

use netverdict_flowlog::answer::Gap;
use netverdict_policy::{FailedDimension, Reason, Verdict, model::PolicyKey};

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn pod(name: &str, address: &str, label: &str) -> WhyEnd {
    WhyEnd {
        name: name.to_owned(),
        kind: "pod".to_owned(),
        addresses: vec![address.to_owned()],
        labels: [("app".to_owned(), label.to_owned())].into(),
        deleted: None,
        candidates: vec![],
    }
}

fn decider(name: &str, rule_index: Option<u32>, since: Since) -> Decider {
    Decider {
        kind: "NetworkPolicy".to_owned(),
        namespace: "db".to_owned(),
        name: name.to_owned(),
        uid: String::new(),
        generation: 2,
        content_hash: String::new(),
        tier: "network_policy".to_owned(),
        rule_index,
        rule_name: String::new(),
        action: String::new(),
        role: if rule_index.is_some() { "decided" } else { "isolating" }.to_owned(),
        text: "kind: NetworkPolicy\nmetadata:\n  name: x\n".to_owned(),
        revision: None,
        since,
    }
}

fn point(name: &str, verdict: Verdict, reason: Reason) -> WhyPoint {
    WhyPoint {
        point: name.to_owned(),
        verdict,
        verdict_if_enforced: None,
        disposition: "dropped".to_owned(),
        reason,
        drop_reason: String::new(),
        method: "enforced".to_owned(),
        confidence: "exact".to_owned(),
        mode: "enforce".to_owned(),
        decided_by: vec![],
        passed: vec![],
        staged: vec![],
        near_misses: vec![],
        snapshot: 12,
        attribution_id: 1,
        last_seen: Some(at("2026-05-01T11:59:48Z")),
        first_seen: Some(at("2026-05-01T11:00:00Z")),
        count: 3,
        now: Some(verdict),
        now_decided_by: vec![],
        node: "n1".to_owned(),
        hypothetical: false,
        identity_window_open: false,
        mistaken_for: None,
    }
}

fn denied() -> WhyAnswer {
    let mut egress = point("source-egress", Verdict::Allowed, Reason::NoPolicy);
    egress.disposition = "forwarded".to_owned();
    egress.count = 1;
    let mut ingress = point("destination-ingress", Verdict::Denied, Reason::IsolatedNoMatch);
    ingress.decided_by =
        vec![decider("allow-api", None, Since::Changed), decider("default-deny", None, Since::Unchanged)];
    ingress.near_misses = vec![NearMiss {
        policy: PolicyKey {
            kind: "NetworkPolicy".to_owned(),
            namespace: "db".to_owned(),
            name: "allow-api".to_owned(),
        },
        rule_index: Some(0),
        failed: FailedDimension::Peer,
        detail: "pod label app=web is not app=api".to_owned(),
    }];
    WhyAnswer {
        sentence: "denied at destination ingress by db/allow-api and db/default-deny".to_owned(),
        verdict: Verdict::Denied,
        source: pod("shop/web", "10.0.1.2", "web"),
        destination: pod("db/pg", "10.0.2.2", "pg"),
        port: Some(5432),
        protocol: "TCP".to_owned(),
        points: vec![egress, ingress],
        now: None,
        otherwise: vec![],
        gaps: vec![],
        stale: vec![],
        from: at("2026-05-01T11:00:00Z"),
        to: at("2026-05-01T12:00:00Z"),
    }
}

fn check(answer: &WhyAnswer, wide: bool, expected: &str) {
    assert_eq!(explain(answer, wide, at("2026-05-01T12:00:00Z"), Paint::default()), expected);
}

#[test]
fn a_denial_names_who_isolates_and_the_near_miss() {
    check(
        &denied(),
        false,
        "\
denied at destination ingress by db/allow-api and db/default-deny

  source       shop/web  10.0.1.2  app=web
  destination  db/pg  10.0.2.2  app=pg  port 5432/TCP

source egress: allowed, no policy selects it in this direction
  seen         12 s ago (2026-05-01T11:59:48.000Z), forwarded on node n1
  now          the same

destination ingress: denied, isolated, and no rule matches
  isolated by  NetworkPolicy db/allow-api, generation 2, changed since
  isolated by  NetworkPolicy db/default-deny, generation 2, unchanged since
  near miss    db/allow-api rule 0: pod label app=web is not app=api
  seen         12 s ago (2026-05-01T11:59:48.000Z), 3 times since 2026-05-01T11:00:00.000Z, dropped on node n1
  now          the same
",
    );
}

#[test]
fn wide_prints_the_policies_as_they_stood() {
    let mut answer = denied();
    answer.points.remove(0);
    answer.points[0].decided_by.truncate(1);
    answer.points[0].near_misses.clear();
    answer.points[0].decided_by[0].uid = "41092141".to_owned();
    answer.points[0].decided_by[0].revision = Some(Revision {
        resource_version: "812".to_owned(),
        author: "argocd".to_owned(),
        changed: Some(at("2026-05-01T11:20:00Z")),
        created: Some(at("2026-03-01T08:00:00Z")),
        origin: "api".to_owned(),
        node: "n1".to_owned(),
        in_force: at("2026-05-01T11:20:00.040Z"),
    });
    check(
        &answer,
        true,
        "\
denied at destination ingress by db/allow-api and db/default-deny

  source       shop/web  10.0.1.2  app=web
  destination  db/pg  10.0.2.2  app=pg  port 5432/TCP

destination ingress: denied, isolated, and no rule matches
  isolated by  NetworkPolicy db/allow-api, generation 2, changed since
  seen         12 s ago (2026-05-01T11:59:48.000Z), 3 times since 2026-05-01T11:00:00.000Z, dropped on node n1
  now          the same
  --- allow-api as it stood
    # uid 41092141, resourceVersion 812, written by argocd at 2026-05-01T11:20:00.000Z, made at 2026-03-01T08:00:00.000Z, \
read from api, in force on node n1 since 2026-05-01T11:20:00.040Z
    kind: NetworkPolicy
    metadata:
      name: x
",
    );
}

#[test]
fn what_was_only_evaluated_says_so_and_gaps_are_listed() {
    let mut answer = denied();
    answer.points.remove(0);
    let ingress = &mut answer.points[0];
    ingress.decided_by.truncate(1);
    ingress.near_misses.clear();
    ingress.last_seen = None;
    ingress.method = "evaluated".to_owned();
    ingress.now = Some(Verdict::Allowed);
    ingress.now_decided_by = vec![decider("allow-web", Some(1), Since::Unknown)];
    ingress.hypothetical = true;
    answer.gaps = vec![Gap {
        node: "n1".to_owned(),
        lane: "denied".to_owned(),
        endpoint: String::new(),
        cause: "ring_full".to_owned(),
        lost_events: 7,
        from: at("2026-05-01T11:30:00Z"),
        to: at("2026-05-01T11:30:02Z"),
        detail: "make the ring larger".to_owned(),
    }];
    check(
        &answer,
        false,
        "\
denied at destination ingress by db/allow-api and db/default-deny

  source       shop/web  10.0.1.2  app=web
  destination  db/pg  10.0.2.2  app=pg  port 5432/TCP

destination ingress: denied, isolated, and no rule matches
  hypothetical no packet gets here, for the other end denies it first
  isolated by  NetworkPolicy db/allow-api, generation 2, changed since
  seen         no packet on record; the policies of snapshot 12 were evaluated
  now          would be allowed, by NetworkPolicy db/allow-web rule 1, generation 2

known to be missing in this time:
  ring full on node n1, 7 events lost of the denied lane, 2026-05-01T11:30:00.000Z to 2026-05-01T11:30:02.000Z: make the ring larger
",
    );
}

#[test]
fn a_malformed_packet_is_not_blamed_on_policy() {
    let mut answer = denied();
    answer.points.remove(0);
    answer.points[0].drop_reason = "malformed".to_owned();
    let text = explain(&answer, false, at("2026-05-01T12:00:00Z"), Paint::default());
    assert!(text.contains("destination ingress: dropped as malformed, not by policy\n"), "{text}");
    assert!(!text.contains("isolated by"), "{text}");
}
