use netverdict_policy::{Confidence, Reason, Role, model::Tier};
use serde_json::{Value, json};

use super::*;

/// The receipt of all batches here, in seconds since 1970; the window of [`flow`] ends a minute before.
const RECEIVED: i64 = 1_786_000_360;

/// A denial at the end of a tier, as the emitter writes it.
fn flow() -> Value {
    json!({
        "Key": {
            "source_name": "client-*", "source_namespace": "ns-a", "source_type": 1,
            "dest_name": "server-*", "dest_namespace": "ns-b", "dest_type": 1, "dest_port": 8080,
            "dest_service_name": "server", "dest_service_namespace": "ns-b", "dest_service_port_name": "http",
            "dest_service_port": 80, "proto": "tcp", "reporter": 2, "action": 2,
            "policies": {
                "enforced_policies": [{
                    "kind": 10, "tier": "default", "action": 2, "rule_index": -1,
                    "trigger": {"kind": 6, "namespace": "ns-b", "name": "only-frontend", "tier": "default"}
                }],
                "pending_policies": [
                    {"kind": 3, "namespace": "ns-b", "name": "staged-open", "tier": "default", "action": 1}
                ]
            }
        },
        "start_time": 1_786_000_000, "end_time": 1_786_000_300,
        "source_labels": ["app=client"], "dest_labels": ["app=server", "x"],
        "packets_in": 3, "bytes_in": 180, "num_connections_started": 3
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut flow = flow();
    change(&mut flow);
    flow
}

fn with_policies(enforced: Value, action: i64) -> Value {
    with(|flow| {
        flow["Key"]["policies"] = json!({ "enforced_policies": enforced });
        flow["Key"]["action"] = action.into();
    })
}

fn lines(body: &[u8]) -> Vec<ForeignRecord> {
    let batch = ForeignBatch { receiver: Receiver::Goldmane, ingest_ns: RECEIVED * NANOSECONDS, bytes: body.to_vec() };
    records(&batch).collect()
}

fn line(flow: &Value) -> ForeignRecord {
    let mut lines = lines(flow.to_string().as_bytes());
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

fn observed(flow: &Value) -> Observation {
    match line(flow) {
        ForeignRecord::Flow(observation) => observation,
        other => panic!("no observation: {other:?}"),
    }
}

fn decision(flow: &Value) -> netverdict_policy::Decision {
    match observed(flow).decider {
        Decider::Reported(report) => report.decision.clone(),
        Decider::Tables { .. } => panic!("not ours"),
    }
}

fn refused(flow: &Value) -> Unreadable {
    match read(flow.to_string().as_bytes(), RECEIVED) {
        Err(unreadable) => unreadable,
        Ok(read) => panic!("not refused: {read:?}"),
    }
}

/// Role, policy, rule index.
fn named(decision: &netverdict_policy::Decision) -> Vec<(Role, String, Option<u32>)> {
    let one = |r: &netverdict_policy::Reference| (r.role, r.policy.to_string(), r.rule_index);
    decision.references.iter().map(one).collect()
}

fn claimed(observation: &Observation) -> (ClaimedEnd, ClaimedEnd) {
    match &observation.ends {
        Ends::Claimed(ends) => (ends.source.clone(), ends.destination.clone()),
        Ends::Owners(owners) => panic!("no owners here: {owners:?}"),
    }
}

#[test]
fn denial_at_the_end_of_a_tier_names_the_trigger_as_isolating() {
    let observation = observed(&flow());
    assert_eq!((observation.first_ns, observation.last_ns), (1_786_000_000_000_000_000, 1_786_000_300_000_000_000));
    let FlowTuple { direction, source, destination_port, protocol, family, .. } = observation.flow;
    assert_eq!((direction, destination_port, protocol, family), (Direction::Ingress, 8080, 6, 0));
    assert!(source.is_unspecified());
    assert_eq!(observation.outcome.verdict, Verdict::Denied);
    assert_eq!(observation.outcome.disposition, DispositionName::Dropped);
    let expected = Volume { packets: 3, bytes: 180, reply_packets: 0, reply_bytes: 0, count: 3 };
    assert_eq!(observation.volume, expected);

    let decision = decision(&flow());
    assert_eq!((decision.reason, decision.tier), (Reason::IsolatedNoMatch, Some(Tier::NetworkPolicy)));
    assert_eq!(decision.verdict_if_enforced, Some(Verdict::Allowed));
    assert_eq!(
        named(&decision),
        [
            (Role::Isolating, "NetworkPolicy ns-b/only-frontend".to_owned(), None),
            (Role::Staged, "StagedNetworkPolicy ns-b/staged-open".to_owned(), Some(0)),
        ]
    );
    assert_eq!(decision.confidence, Confidence::Ambiguous, "it may be the staged policy's verdict");
}

#[test]
fn ends_are_as_claimed_and_a_generated_name_is_no_pod() {
    let (source, destination) = claimed(&observed(&flow()));
    assert_eq!((source.kind, source.pod.as_str(), source.workload.as_str()), (EndpointKind::Pod, "", "client-*"));
    assert_eq!(source.labels, [("app".to_owned(), "client".to_owned())].into());
    assert_eq!((destination.service.as_str(), destination.service_port.as_str()), ("ns-b/server", "http"));

    let host = with(|flow| {
        flow["Key"]["source_type"] = 2.into();
        flow["Key"]["source_name"] = "node-1".into();
        flow["Key"]["source_namespace"] = "-".into();
        flow["Key"]["dest_type"] = 4.into();
        flow["Key"]["dest_name"] = "pub".into();
        flow["Key"]["dest_namespace"] = "-".into();
        flow["Key"]["dest_service_name"] = "-".into();
    });
    let (source, destination) = claimed(&observed(&host));
    assert_eq!((source.kind, source.node.as_str(), source.namespace.as_str()), (EndpointKind::Node, "node-1", ""));
    assert_eq!((destination.kind, destination.service.as_str()), (EndpointKind::External, ""));

    let pod_and_set = with(|flow| {
        flow["Key"]["source_name"] = "web-0".into();
        flow["Key"]["dest_type"] = 3.into();
        flow["Key"]["dest_name"] = "partners".into();
        flow["Key"]["dest_namespace"] = "".into();
    });
    let (source, destination) = claimed(&observed(&pod_and_set));
    assert_eq!((source.pod.as_str(), source.workload.as_str()), ("web-0", ""));
    assert_eq!((destination.kind, destination.workload_kind.as_str()), (EndpointKind::Unknown, "GlobalNetworkSet"));
    assert_eq!(destination.workload, "partners");
}

#[test]
fn absent_fields_are_zero_not_unknown() {
    let allow =
        with_policies(json!([{"kind": 6, "namespace": "ns-b", "name": "open", "tier": "default", "action": 1}]), 1);
    let decision = decision(&allow);
    assert_eq!(named(&decision), [(Role::Decided, "NetworkPolicy ns-b/open".to_owned(), Some(0))]);
    assert_eq!((decision.reason, decision.confidence), (Reason::RuleMatch, Confidence::Partial));
    assert_eq!(decision.verdict_if_enforced, None);
}

#[test]
fn passes_come_before_the_rule_that_decides() {
    let enforced = json!([
        {"kind": 11, "name": "first", "tier": "kube-admin", "action": 3, "policy_index": 0, "rule_index": 4},
        {"kind": 10, "tier": "tier1", "action": 3, "rule_index": -1, "policy_index": 1,
         "trigger": {"kind": 2, "name": "tier1.gnp", "tier": "tier1"}},
        {"kind": 2, "name": "deny.with.dots", "tier": "kube-baseline", "action": 2, "policy_index": 2, "rule_index": 7}
    ]);
    let decision = decision(&with_policies(enforced, 2));
    assert_eq!(
        named(&decision),
        [
            (Role::Passed, "ClusterNetworkPolicy first".to_owned(), Some(4)),
            (Role::Passed, "GlobalNetworkPolicy tier1.gnp".to_owned(), None),
            (Role::Decided, "GlobalNetworkPolicy deny.with.dots".to_owned(), Some(7)),
        ]
    );
    assert_eq!((decision.reason, decision.tier), (Reason::BaselineDeny, Some(Tier::Baseline)));
}

#[test]
fn profile_allows_where_no_policy_selects() {
    let enforced = json!([{"kind": 9, "name": "kns.ns-b", "tier": "__PROFILE__", "action": 1, "policy_index": 1}]);
    let decision = decision(&with_policies(enforced, 1));
    assert_eq!(named(&decision), [(Role::Default, "Profile kns.ns-b".to_owned(), Some(0))]);
    assert_eq!((decision.reason, decision.tier), (Reason::NoPolicy, None));
}

#[test]
fn end_of_a_tier_without_trigger_names_the_tier() {
    let enforced = json!([{"kind": 10, "tier": "security", "action": 2, "rule_index": -1}]);
    let decision = decision(&with_policies(enforced, 2));
    assert_eq!(named(&decision), [(Role::Default, "Tier security".to_owned(), None)]);
    // And the form of before, in which the policy itself stands at index −1.
    let enforced =
        json!([{"kind": 1, "namespace": "n", "name": "p", "tier": "security", "action": 2, "rule_index": -1}]);
    let decision = self::decision(&with_policies(enforced, 2));
    assert_eq!(named(&decision), [(Role::Isolating, "CalicoNetworkPolicy n/p".to_owned(), None)]);
}

#[test]
fn action_that_decides_nothing_leaves_the_verdict_unknown() {
    for action in [0, 3] {
        let decision = decision(&with(|flow| flow["Key"]["action"] = action.into()));
        assert_eq!((decision.verdict, decision.reason), (Verdict::Unknown, Reason::AttributionUnknown));
    }
}

#[test]
fn action_that_is_not_the_last_policys_is_ambiguous() {
    let enforced = json!([{"kind": 6, "namespace": "n", "name": "p", "tier": "default", "action": 1}]);
    assert_eq!(decision(&with_policies(enforced, 2)).confidence, Confidence::Ambiguous);
}

#[test]
fn policies_are_kept_verbatim() {
    let text = r#"{"Key":{"proto":"17","reporter":1,"action":1,"policies":{ "enforced_policies" : [] }},"start_time":1786000000,"end_time":1786000300,"bytes_out":9}"#;
    let Some(ForeignRecord::Flow(observation)) = lines(text.as_bytes()).pop() else { panic!("not read") };
    let Decider::Reported(report) = &observation.decider else { panic!("not ours") };
    assert_eq!(&*report.verbatim, r#"{ "enforced_policies" : [] }"#);
    assert_eq!(report.decision.reason, Reason::AttributionUnknown, "allowed, and no policy is named");
    assert_eq!(observation.volume, Volume { packets: 0, bytes: 9, reply_packets: 0, reply_bytes: 0, count: 1 });
    assert_eq!(observation.flow.protocol, 17);
}

#[test]
fn flow_without_traffic_is_no_row() {
    let empty = with(|flow| {
        for statistic in ["packets_in", "bytes_in", "num_connections_started"] {
            flow.as_object_mut().unwrap().remove(statistic);
        }
    });
    assert!(matches!(line(&empty), ForeignRecord::Empty));
}

#[test]
fn key_of_a_flow_does_not_hang_on_statistics_labels_or_the_order_of_fields() {
    let cursor = |flow: &Value| match observed(flow).origin {
        Origin::Foreign { cursor, .. } => cursor,
        Origin::Probe { .. } => panic!("not ours"),
    };
    let first = cursor(&flow());
    assert!(first.to_string().starts_with("1786000000-1786000300-"), "{first}");
    assert_eq!(first, cursor(&with(|flow| flow["packets_in"] = 9.into())));
    assert_eq!(first, cursor(&with(|flow| flow["source_labels"] = json!([]))));
    let text =
        flow().to_string().replace("\"rule_index\":-1,", "").replace("\"kind\":10,", "\"rule_index\":-1,\"kind\":10,");
    assert_eq!(first, cursor(&serde_json::from_str(&text).unwrap()));
    for (field, value) in [("source_name", json!("other-*")), ("dest_port", json!(81)), ("action", json!(1))] {
        assert_ne!(first, cursor(&with(|flow| flow["Key"][field] = value)), "{field}");
    }
    assert_ne!(first, cursor(&with(|flow| flow["Key"]["policies"]["pending_policies"] = json!([]))));
    assert_ne!(first, cursor(&with(|flow| flow["start_time"] = 1_786_000_100.into())));
}

#[test]
fn bad_lines_are_refused_alone_with_their_cause() {
    let good = flow().to_string();
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES));
    let body = [&good, "", "{", "[1,2]", "{}", &long, &good, "\u{e4}"].join("\n");
    let found = lines(body.as_bytes());
    let labels: Vec<_> = found
        .iter()
        .map(|line| match line {
            ForeignRecord::Flow(_) => "flow",
            ForeignRecord::Empty => "empty",
            ForeignRecord::Unreadable { label, .. } => label,
        })
        .collect();
    assert_eq!(labels, ["flow", "json", "json", "key", "length", "flow", "json"]);
}

#[test]
fn value_outside_its_list_is_refused_by_field() {
    let code = |field, found: &str| Unreadable::Code { field, found: found.to_owned() };
    assert_eq!(refused(&with(|flow| flow["Key"]["reporter"] = 0.into())), code("reporter", "0"));
    assert_eq!(refused(&with(|flow| flow["Key"]["action"] = 4.into())), code("action", "4"));
    assert_eq!(refused(&with(|flow| flow["Key"]["proto"] = "carrier".into())), code("proto", "carrier"));
    assert_eq!(refused(&with(|flow| flow["Key"]["dest_port"] = 65_536.into())), code("dest_port", "65536"));
    assert!(matches!(refused(&with(|flow| flow["bytes_in"] = (-1).into())), Unreadable::Json { .. }));
    assert!(matches!(refused(&with(|flow| flow["Key"]["action"] = "Deny".into())), Unreadable::Json { .. }));
    let enforced = json!([{"kind": 1, "name": "p", "action": 1, "rule_index": -2}]);
    assert_eq!(refused(&with_policies(enforced, 1)), code("policies.rule_index", "-2"));
}

#[test]
fn window_must_be_near_its_receipt() {
    let at = |start: i64, end: i64| with(|flow| (flow["start_time"], flow["end_time"]) = (start.into(), end.into()));
    for (start, end) in [
        (0, 0),
        (1_786_000_300, 1_786_000_000),
        (RECEIVED, i64::MAX),
        (i64::MIN, i64::MAX),
        (RECEIVED + AHEAD - 100, RECEIVED + AHEAD + 200),
        (RECEIVED - BACK - 300, RECEIVED - BACK),
    ] {
        assert!(matches!(refused(&at(start, end)), Unreadable::Window { .. }), "{start} to {end}");
    }
    observed(&at(RECEIVED - BACK + 1, RECEIVED - BACK + 301));
}

#[test]
fn deep_nesting_and_arbitrary_bytes_are_refused_without_a_panic() {
    let deep = format!("{{\"Key\":{{\"policies\":{}1{}}}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(lines(deep.as_bytes())[..], [ForeignRecord::Unreadable { .. }]));
    let triggers = format!("{}{{}}{}", "{\"trigger\":".repeat(10_000), "}".repeat(10_000));
    let nested = format!("{{\"Key\":{{\"policies\":{{\"enforced_policies\":[{triggers}]}}}}}}");
    assert!(matches!(lines(nested.as_bytes())[..], [ForeignRecord::Unreadable { .. }]));
    let good = flow().to_string().into_bytes();
    for at in 0..good.len() {
        for byte in [0, b'"', b'{', b'9', 0xff] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            lines(&bytes);
        }
        lines(&good[..at]);
    }
}
