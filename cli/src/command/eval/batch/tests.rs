//! The shape of answers, which other programs rely on.

use serde_json::json;

use super::*;

fn run(input: &[u8]) -> (Vec<Value>, Vec<String>) {
    let (mut output, mut warnings) = (Vec::new(), Vec::new());
    answer_all(input, "cases", &mut output, &mut |text| warnings.push(text.to_owned())).unwrap();
    let lines = String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, warnings)
}

fn pod(namespace: &str, name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"pod": name}},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": address}]}})
}

fn host_pod() -> Value {
    let mut pod = pod("x", "host", "10.1.0.1");
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

fn policies() -> [Value; 2] {
    [
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": "allow"},
            "spec": {"podSelector": {}, "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"pod": "b"}}}], "ports": [{"port": 80}]}]}}),
    ]
}

fn case(flows: &Value) -> Vec<u8> {
    let mut objects = vec![pod("x", "a", "10.0.1.1"), pod("x", "b", "10.0.1.2"), pod("y", "a", "10.0.2.1"), host_pod()];
    objects.extend(policies());
    let mut line = json!({"id": "one", "objects": objects, "flows": flows}).to_string().into_bytes();
    line.push(b'\n');
    line
}

#[test]
fn a_denial_and_an_allow_in_full() {
    let flows = json!([
        {"source": {"pod": "y/a"}, "destination": {"pod": "x/a"}, "protocol": "TCP", "port": 80},
        {"source": {"pod": "x/b"}, "destination": {"ip": "10.0.1.1"}, "port": 80, "family": 4},
    ]);
    let open = json!({"point": "source-egress", "verdict": "allowed", "reason": "no_policy", "decided_by": [],
        "near_miss": [], "passed": [], "verdict_if_enforced": null});
    let policy = |name: &str, rule_index: Option<u32>| json!({"kind": "NetworkPolicy", "namespace": "x", "name": name, "rule_index": rule_index, "rule_name": ""});
    let (lines, warnings) = run(&case(&flows));
    assert_eq!(warnings, Vec::<String>::new());
    let near = &lines[0]["flows"][0]["points"][1]["near_miss"];
    let expected = json!([{"id": "one", "flows": [
        {"verdict": "denied", "points": [open, {"point": "destination-ingress", "verdict": "denied",
            "reason": "isolated_no_match", "decided_by": [policy("allow", None), policy("deny", None)],
            "near_miss": [
                {"kind": "NetworkPolicy", "namespace": "x", "name": "allow", "rule_index": 0, "failed": "peer",
                    "detail": near[0]["detail"]},
                {"kind": "NetworkPolicy", "namespace": "x", "name": "deny", "rule_index": null, "failed": "no_rules",
                    "detail": near[1]["detail"]},
            ],
            "passed": [], "verdict_if_enforced": null}]},
        {"verdict": "allowed", "points": [open, {"point": "destination-ingress", "verdict": "allowed",
            "reason": "rule_match", "decided_by": [policy("allow", Some(0))], "near_miss": [], "passed": [],
            "verdict_if_enforced": null}]},
    ]}]);
    assert_eq!(Value::Array(lines), expected);
}

#[test]
fn a_flow_that_cannot_be_evaluated_is_unknown_and_the_rest_go_on() {
    let good = json!({"source": {"pod": "y/a"}, "destination": {"pod": "x/a"}, "port": 80});
    let flows = json!([
        {"source": {"pod": "y/ghost"}, "destination": {"pod": "x/a"}, "port": 80},
        {"source": {"pod": "ghost"}, "destination": {"pod": "x/a"}, "port": 80},
        {"source": {"pod": "y/a", "ip": "10.0.2.1"}, "destination": {"pod": "x/a"}, "port": 80},
        {"source": {"pod": "y/a"}, "destination": {"pod": "x/a"}, "port": 65536},
        {"source": {"pod": "y/a"}, "destination": {"pod": "x/a"}, "port": 0},
        {"source": {"pod": "y/a"}, "destination": {"pod": "x/a"}, "protocol": "QUIC", "port": 80},
        {"source": {"pod": "y/a"}, "destination": {"ip": "10.0.1.1"}, "port": 80, "family": 6},
        {"source": {"ip": "::1"}, "destination": {"ip": "10.0.1.1"}, "port": 80},
        {"source": {"pod": "y/a"}, "dest": {"pod": "x/a"}},
        "y/a -> x/a",
        good,
    ]);
    let (lines, _) = run(&case(&flows));
    let answers = lines[0]["flows"].as_array().unwrap();
    for (answer, reason) in answers.iter().zip([
        "y/ghost is not in",
        "expected namespace/name",
        "source: expected {\"pod\"",
        "65536",
        "expected a number from 1 to 65535, found 0",
        "expected tcp, udp",
        "family is IPv6",
        "different address families",
        "the field `dest` is not known",
        "expected a flow",
    ]) {
        assert_eq!((&answer["verdict"], &answer["points"]), (&json!("unknown"), &json!([])), "{answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(reason)), "{answer} lacks {reason}");
    }
    assert_eq!(answers[10]["verdict"], "denied");
    assert_eq!(answers[10].get("error"), None);
}

#[test]
fn a_missing_address_is_told_where_a_verdict_hangs_on_it() {
    let six = pod("x", "six", "fd00::6");
    let deny = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "p"}, "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "egress": [{"action": "Deny", "to": [{"networks": ["203.0.113.0/24", "2001:db8::/32"]}]}]}});
    let flow = |family: Value| {
        let mut flow = json!({"source": {"pod": "x/six"}, "destination": {"pod": "y/six"}, "port": 80});
        if !family.is_null() {
            flow["family"] = family;
        }
        flow
    };
    let mut other = six.clone();
    other["metadata"]["namespace"] = json!("y");
    let objects = json!([six, other, deny]);
    let line = json!({"objects": objects, "flows": [flow(json!(4)), flow(json!(6)), flow(Value::Null)]}).to_string();
    let (lines, _) = run(format!("{line}\n").as_bytes());
    let flows = &lines[0]["flows"];
    assert_eq!(
        (&flows[0]["verdict"], &flows[0]["points"][0]["reason"]),
        (&json!("unknown"), &json!("unknown_endpoint"))
    );
    assert!(flows[0]["error"].as_str().is_some_and(|error| error.contains("IPv4 address of y/six")), "{flows}");
    assert_eq!((&flows[1]["verdict"], flows[1].get("error")), (&json!("allowed"), None));
    assert_eq!(flows[1], flows[2]);
}

#[test]
fn a_host_network_pod_is_no_subject() {
    let flows = json!([{"source": {"pod": "x/host"}, "destination": {"ip": "203.0.113.10"}, "port": 443}]);
    assert_eq!(run(&case(&flows)).0[0]["flows"], json!([{"verdict": "allowed", "points": []}]));
}

#[test]
fn a_bad_line_is_answered_and_the_rest_go_on() {
    let mut input = b"{\"id\": 7, \"flows\": 3}\n\n  \nnot json\n\xff\xfe\n[1]\n{\"id\": \"x\"}\n".to_vec();
    input.extend(case(&json!([])));
    let (lines, _) = run(&input);
    let errors: Vec<_> = lines.iter().filter_map(|line| line.get("error")).collect();
    assert_eq!(errors.len(), 5, "{lines:?}");
    assert_eq!(lines[0]["id"], 7);
    assert!(
        errors[0].as_str().unwrap().starts_with("line 1: flows: expected a list of flows, found 3"),
        "{}",
        errors[0]
    );
    assert!(errors[1].as_str().unwrap().starts_with("line 4: no JSON"), "{}", errors[1]);
    assert_eq!(lines[4]["id"], "x");
    assert_eq!(lines[5], json!({"id": "one", "flows": []}));
}

#[test]
fn objects_that_are_no_objects_are_told_and_left_out() {
    let line = json!({"id": 1, "objects": [3, {"kind": "Pod"}, pod("x", "a", "10.0.1.1")], "flows": [
        {"source": {"ip": "10.9.9.9"}, "destination": {"pod": "x/a"}, "port": 80}]});
    let (lines, warnings) = run(line.to_string().as_bytes());
    assert_eq!(lines[0]["flows"][0]["verdict"], "allowed");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("case 1: error: "), "{warnings:?}");
}

#[test]
fn a_key_that_stands_twice_is_refused_with_the_id_of_its_case() {
    let text = br#"{"id": 7, "objects": [{"spec": {"podSelector": {}, "podSelector": {}}}], "flows": []}"#;
    let (lines, _) = run(text);
    assert_eq!(lines[0], json!({"id": 7, "error": "line 1: column 69: the key \"podSelector\" stands twice"}));
}

#[test]
fn findings_say_which_of_the_objects_they_are_about() {
    let policy = &policies()[0];
    let line = json!({"id": 1, "objects": [pod("x", "a", "10.0.1.1"), policy, policy], "flows": []});
    let (lines, warnings) = run(line.to_string().as_bytes());
    let finding = &lines[0]["findings"][0];
    assert_eq!((&finding["code"], &finding["origin"]), (&json!("duplicate-object"), &json!("objects[1]")));
    assert!(warnings[0].contains("defined again in objects[2]"), "{warnings:?}");
}

#[test]
fn misspelt_parts_of_a_case_are_told() {
    let (lines, warnings) = run(br#"{"id": 1, "object": [], "flows": [], "flow": [], "note": "x"}"#);
    assert_eq!(lines[0], json!({"id": 1, "flows": []}));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let (lines, _) = run(br#"{"id": 1, "objects": {}, "flows": []}"#);
    assert_eq!(lines[0]["error"], "line 1: objects: expected a list of Kubernetes objects, found an empty object");
}

#[test]
fn an_unknown_without_points_says_why() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "x", "name": "s"},
        "spec": {"clusterIP": "10.96.0.7"}});
    let flow = |source: Value| json!({"source": source, "destination": {"ip": "10.96.0.7"}, "port": 80});
    let flows = [flow(json!({"ip": "203.0.113.1"})), flow(json!({"pod": "x/a"}))];
    let line = json!({"id": 1, "objects": [service, pod("x", "a", "10.0.1.1")], "flows": flows});
    let (lines, _) = run(line.to_string().as_bytes());
    let why = "a Service's address, whose backend is not known here";
    assert_eq!(lines[0]["flows"][0], json!({"verdict": "unknown", "points": [], "error": why}));
    assert_eq!(lines[0]["flows"][1]["points"][0]["reason"], "service_not_resolved");
}
