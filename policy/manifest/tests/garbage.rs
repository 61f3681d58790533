//! Arbitrary input: no panic, no silence, and never an accept that is not written in it.

use std::collections::BTreeMap;

use netverdict_manifest::{
    Finding, Object, Origin, Reading, Severity, code, lint, object_from_value, read, snapshot, text,
};
use netverdict_policy::model::{Action, Direction, Peer, PolicyKey, PortMatch, Rule};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence},
};
use serde_json::{Map, Value, json};

/// `cases` of a property; an environment with time to spare sets `PROPTEST_CASES` instead.
fn config(cases: u32) -> Config {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { cases };
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as _);
    Config { cases, failure_persistence, max_shrink_iters: 2_000, ..Config::default() }
}

/// Valid objects of every kind, with every field that a rule may have.
fn valid() -> Vec<Value> {
    let ordered = |kind: &str, version: &str, spec: Value| json!({"apiVersion": format!("policy.networking.k8s.io/{version}"), "kind": kind, "metadata": {"name": "default"}, "spec": spec});
    let subject = json!({"pods": {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}}});
    let peers = json!([{"namespaces": {"matchLabels": {"team": "b"}}}, {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}}]);
    vec![
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "x"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": "front"}}}, {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}], "ports": [{"port": 80, "protocol": "TCP"}, {"port": "web"}]},
                    {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
                ],
                "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 5000, "endPort": 6000, "protocol": "UDP"}]}],
            },
        }),
        ordered(
            "ClusterNetworkPolicy",
            "v1alpha2",
            json!({
                "tier": "Admin", "priority": 10, "subject": subject,
                "ingress": [{"name": "one", "action": "Accept", "from": peers, "protocols": [{"tcp": {"destinationPort": {"number": 80}}}, {"destinationNamedPort": "web"}]}, {"action": "Deny", "from": peers}],
                "egress": [
                    {"action": "Accept", "to": [{"networks": ["10.0.0.0/8"]}, {"domainNames": ["*.example.com"]}, {"nodes": {"matchLabels": {"zone": "z"}}}], "protocols": [{"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}]},
                    {"action": "Pass", "to": [{"networks": ["192.168.0.0/16"]}]},
                ],
            }),
        ),
        ordered(
            "AdminNetworkPolicy",
            "v1alpha1",
            json!({
                "priority": 10, "subject": subject,
                "ingress": [{"name": "one", "action": "Allow", "from": peers, "ports": [{"portNumber": {"protocol": "TCP", "port": 80}}, {"namedPort": "web"}]}],
                "egress": [{"action": "Allow", "to": peers, "ports": [{"portRange": {"protocol": "UDP", "start": 1, "end": 9}}]}],
            }),
        ),
        ordered(
            "BaselineAdminNetworkPolicy",
            "v1alpha1",
            json!({
                "subject": {"namespaces": {"matchLabels": {"team": "a"}}},
                "ingress": [{"action": "Allow", "from": peers}, {"action": "Deny", "from": peers}],
            }),
        ),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "x", "labels": {"app": "web"}, "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]},
            "spec": {"nodeName": "n1", "hostNetwork": false, "containers": [{"ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"}]}], "initContainers": [{"restartPolicy": "Always", "ports": []}]},
            "status": {"phase": "Running", "podIP": "10.0.1.1", "podIPs": [{"ip": "10.0.1.1"}]}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "annotations": {"netverdict.io/gateway-addresses": "10.0.1.254"}}, "spec": {"podCIDRs": ["10.0.1.0/24"]}, "status": {"addresses": [{"type": "InternalIP", "address": "10.1.0.1"}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "x"}, "spec": {"clusterIPs": ["10.96.0.1"], "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"team": "a"}}}),
    ]
}

/// Every place below a value, as the keys that lead to it.
fn places(value: &Value, here: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => return,
    };
    for (key, child) in children {
        here.push(key);
        all.push(here.clone());
        places(child, here, all);
        here.pop();
    }
}

fn parent<'v>(value: &'v mut Value, place: &[String]) -> &'v mut Value {
    place[..place.len() - 1].iter().fold(value, |value, key| match value {
        Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
        other => &mut other[key.as_str()],
    })
}

fn replace(value: &mut Value, place: &[String], by: Value) {
    let last = place.last().unwrap();
    match parent(value, place) {
        Value::Array(items) => items[last.parse::<usize>().unwrap()] = by,
        other => other[last.as_str()] = by,
    }
}

fn rename(value: &mut Value, place: &[String], to: &str) {
    let map = parent(value, place).as_object_mut().unwrap();
    let child = map.remove(place.last().unwrap()).unwrap();
    map.insert(to.to_owned(), child);
}

/// Values that mean nothing in any field of a policy's specification but the names of rules and of ordered tiers' ports.
fn garbage() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(-1)),
        Just(json!(true)),
        Just(json!(1.5)),
        Just(json!(u64::MAX)),
        Just(json!("a b")),
        Just(json!("\u{0}")),
        Just(json!("10.0.0.0/9/9")),
        Just(json!("x".repeat(300))),
        Just(json!({"zz": 1})),
        Just(json!([[1], {"zz": null}])),
        Just(json!([[null]])),
    ]
}

/// Any value at all.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["TCP", "Accept", "10.0.0.0/8", "::/0", "In", "*.x.y", "Ingress", "80", "default"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let keys = prop::sample::select(vec![
            "podSelector",
            "namespaceSelector",
            "ipBlock",
            "cidr",
            "except",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "from",
            "to",
            "ports",
            "port",
            "protocol",
            "endPort",
            "namespaces",
            "pods",
            "zz",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..4).prop_map(|entries| Value::Object(
                entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()
            )),
        ]
    })
}

#[expect(clippy::result_large_err, reason = "as the function that it calls")]
fn object(value: &Value) -> Result<Object, Finding> {
    object_from_value(value.clone(), Origin::Api)
}

/// Reads every part of objects; only a panic can fail here.
fn exercise(objects: &[Object], mut findings: Vec<Finding>) -> Reading {
    let reading = snapshot(objects);
    findings.extend(reading.findings.clone());
    findings.extend(lint(&reading));
    for finding in &findings {
        assert!(code::ALL.iter().any(|(code, _)| *code == finding.code), "{finding}");
        assert!(finding.to_string().len() < 4_000, "{finding}");
        serde_json::to_string(finding).unwrap();
    }
    reading
}

/// The recorded text of an object reads back as that object.
fn stores(object: &Object) {
    let stored = text(object);
    let (again, findings) = read(&stored, "stored");
    assert_eq!(findings, [], "{stored}");
    assert_eq!(again[0].content_hash, object.content_hash, "{stored}");
}

type Accepts = BTreeMap<(PolicyKey, Direction, u32), (Option<Vec<Peer>>, Option<Vec<PortMatch>>)>;

/// The rules that may accept packets.
fn accepts(reading: &Reading) -> Accepts {
    let rules = reading
        .snapshot
        .policies
        .values()
        .flat_map(|policy| policy.rules.iter().map(|rule| (policy.key.clone(), rule)));
    let opens = |rule: &Rule| rule.action == Action::Accept && rule.fault.is_none();
    rules
        .filter(|(_, rule)| opens(rule))
        .map(|(key, rule)| ((key, rule.direction, rule.index), (rule.peers.clone(), rule.ports.clone())))
        .collect()
}

/// Fewer peers are fine (N-9); other additions are not.
fn only_narrower(before: &Accepts, after: &Accepts) -> bool {
    after.iter().all(|(rule, (peers, ports))| {
        let Some((peers_before, ports_before)) = before.get(rule) else { return false };
        let fewer = match (peers_before, peers) {
            (Some(before), Some(after)) => after.iter().all(|peer| before.contains(peer)),
            (before, after) => before == after,
        };
        fewer && ports_before == ports
    })
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn any_text_is_read_without_a_panic(text in prop_oneof![
        ".{0,200}",
        "[-:{}\\[\\],&*!|>'\"%@`#\n\t a-z0-9~<=?]{0,200}",
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]) {
        let (objects, findings) = read(&text, "f");
        exercise(&objects, findings);
    }
}

proptest! {
    #![proptest_config(config(1_000))]

    #[test]
    fn a_damaged_manifest_does_not_affect_others(kind in 0..8usize, cut in any::<prop::sample::Index>(), noise in "[-:{}\\[\\],&*!|>'\"%\n\t a-z0-9]{0,6}") {
        let objects: Vec<Object> = valid().iter().map(|value| object(value).unwrap()).collect();
        let mut damaged = text(&objects[kind]);
        let mut at = cut.index(damaged.len() + 1);
        while !damaged.is_char_boundary(at) { at -= 1; }
        damaged.insert_str(at, &noise);
        let whole = text(&objects[(kind + 1) % objects.len()]);
        let (read_objects, findings) = read(&format!("{whole}---\n{damaged}\n---\n{whole}"), "f");
        prop_assert!(read_objects.len() >= 2);
        prop_assert_eq!(&read_objects[0].content_hash, &read_objects[read_objects.len() - 1].content_hash);
        exercise(&read_objects, findings);
    }
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn any_value_in_any_place_is_read_without_a_panic(kind in 0..8usize, place in any::<prop::sample::Index>(), by in anything()) {
        let mut value = valid().swap_remove(kind);
        let mut all = Vec::new();
        places(&value, &mut Vec::new(), &mut all);
        let place: &Vec<String> = place.get(&all);
        replace(&mut value, place, by);
        match object(&value) {
            Ok(object) => {
                stores(&object);
                exercise(&[object], Vec::new());
            }
            Err(finding) => prop_assert_eq!(finding.code, code::INVALID_OBJECT),
        }
    }
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn garbage_in_a_policy_is_reported_and_opens_nothing(kind in 0..4usize, place in any::<prop::sample::Index>(), by in prop::option::of(garbage())) {
        let original = valid().swap_remove(kind);
        let before = exercise(&[object(&original).unwrap()], Vec::new());
        prop_assert_eq!(&before.findings.iter().filter(|finding| finding.severity == Severity::Error).count(), &0);
        let mut all = Vec::new();
        places(&original["spec"], &mut vec!["spec".to_owned()], &mut all);
        all.push(vec!["spec".to_owned()]);
        // Label keys are the user's own words, and so are the names of rules, and of ports where an API server takes any.
        let is_name = |name: &String| name == "name" || by.as_ref().is_some_and(Value::is_string) && name.ends_with("amedPort");
        all.retain(|place| match by {
            None => place.len() > 1 && place[place.len() - 2] != "matchLabels" && place.last().is_some_and(|last| last.parse::<usize>().is_err()),
            Some(_) => place.last().is_none_or(|last| !is_name(last)),
        });
        let place: &Vec<String> = place.get(&all);
        let mut value = original.clone();
        match by {
            Some(by) => replace(&mut value, place, by),
            None => rename(&mut value, place, "zz"),
        }
        let after = exercise(&[object(&value).unwrap()], Vec::new());
        prop_assert!(after.findings.iter().any(|finding| finding.severity == Severity::Error), "silence about {}", value);
        prop_assert!(only_narrower(&accepts(&before), &accepts(&after)), "{}", value);
    }
}
