use super::*;
use crate::{Origin, object_from_value};

const POD: &str = r#"{
  "apiVersion": "v1", "kind": "Pod",
  "metadata": {
    "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "generateName": "web-",
    "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web", "pod-template-hash": "abc"},
    "annotations": {"kubernetes.io/config.hash": "h", "cni.example/status": "long"},
    "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-abc", "controller": true, "uid": "r"}]
  },
  "spec": {
    "nodeName": "n1", "serviceAccountName": "shop", "hostNetwork": false, "volumes": [{"name": "v"}],
    "containers": [{"name": "a", "image": "a", "env": [], "ports": [{"name": "http", "containerPort": 80}]}, {"name": "b"}],
    "initContainers": [{"name": "c", "image": "c"}]
  },
  "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready"}]}
}"#;

fn trimmed(text: &str) -> Value {
    let mut value = serde_json::from_str(text).unwrap();
    trim(&mut value);
    value
}

fn object(value: Value) -> Object {
    object_from_value(value, Origin::Api).unwrap()
}

#[test]
fn a_trimmed_pod_reads_as_the_whole_one() {
    let whole = object(serde_json::from_str(POD).unwrap());
    let short = object(trimmed(POD));
    assert_eq!(crate::pod(&short), crate::pod(&whole));
    let text = short.value.to_string();
    for gone in ["resourceVersion", "conditions", "volumes", "image", "managedFields", "cni.example", "initContainers"]
    {
        assert!(!text.contains(gone), "{gone} is kept: {text}");
    }
    assert!(text.contains("config.hash"), "{text}");
}

#[test]
fn a_finished_pod_keeps_its_own_times_and_one_that_runs_no_states_of_containers() {
    let status = |phase: &str, state: &str| {
        let status = format!(
            r#""status": {{"phase": "{phase}", "startTime": "2026-05-01T11:20:00Z", "podIP": "10.0.0.1", "containerStatuses":
               [{{"name": "a", "containerID": "long", "state": {{{state}}}}}, {{"name": "b", "state": {{{state}}}}}],
               "initContainerStatuses": [{{"name": "c", "state": {{"terminated": {{"finishedAt": "2026-05-01T11:20:00Z"}}}}}}]}}"#
        );
        format!("{}{status}}}", POD.split("\"status\"").next().unwrap())
    };
    let ended = r#""terminated": {"exitCode": 0, "finishedAt": "2026-05-01T11:20:01Z"}"#;
    for (text, expected) in [
        (status("Succeeded", ended), Some(1_777_634_401)),
        // It may be restarted.
        (status("Running", ended), None),
        (status("Running", r#""running": {"startedAt": "2026-05-01T11:20:01Z"}"#), None),
    ] {
        let short = object(trimmed(&text));
        let (pod, findings) = crate::pod(&short);
        let pod = pod.unwrap();
        assert_eq!((pod.started, pod.ended, findings.len()), (Some(1_777_634_400), expected, 0));
        assert_eq!(crate::pod(&object(serde_json::from_str(&text).unwrap())).0, Some(pod));
        let kept = short.value.to_string();
        assert!(!kept.contains("long") && !kept.contains("exitCode") && !kept.contains("startedAt"), "{kept}");
    }
    // Before it has an address, its start time is not read.
    let pending = status("Pending", "").replace(r#""podIP": "10.0.0.1", "#, "");
    assert_eq!(crate::pod(&object(trimmed(&pending))).0.unwrap().started, None);
}

#[test]
fn heartbeats_change_nothing() {
    let node = |heartbeat: &str| {
        trimmed(&format!(
            r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "n1", "resourceVersion": "{heartbeat}",
                "annotations": {{"netverdict.io/gateway-addresses": "10.0.0.1", "volumes.example": "{heartbeat}"}}}},
                "spec": {{"podCIDR": "10.0.0.0/24", "providerID": "x"}},
                "status": {{"addresses": [{{"type": "InternalIP", "address": "192.0.2.1"}}],
                "conditions": [{{"lastHeartbeatTime": "{heartbeat}"}}]}}}}"#
        ))
    };
    assert_eq!(node("1"), node("2"));
    let (node, findings) = crate::node(&object(node("1")));
    let node = node.unwrap();
    assert_eq!((node.addresses.len(), node.pod_ranges.len(), findings.len()), (2, 1, 0));
}

#[test]
fn a_policy_keeps_its_specification_and_who_changed_it_last() {
    let spec = r#"{"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}"#;
    let text = format!(
        r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "status": {{"conditions": []}},
            "metadata": {{"name": "a", "namespace": "db", "resourceVersion": "9", "generation": 3,
              "annotations": {{"{LAST_APPLIED}": "{{}}"}},
              "managedFields": [
                {{"manager": "kubectl", "time": "2026-01-01T00:00:00Z", "fieldsV1": {{"f:spec": {{"f:ingress": {{}}}}}}}},
                {{"manager": "argocd", "time": "2026-01-02T00:00:00Z", "fieldsV1": {{"f:spec": {{"f:podSelector": {{}}}}}}}},
                {{"manager": "labeller", "time": "2026-01-03T00:00:00Z", "fieldsV1": {{"f:metadata": {{"f:labels": {{}}}}}}}},
                {{"manager": "controller", "time": "2026-01-04T00:00:00Z", "subresource": "status", "fieldsV1": {{"f:status": {{}}}}}}
              ]}},
            "spec": {spec}}}"#
    );
    let (whole, short) = (object(serde_json::from_str(&text).unwrap()), object(trimmed(&text)));
    assert_eq!(short.value["spec"], serde_json::from_str::<Value>(spec).unwrap());
    assert_eq!(short.content_hash, whole.content_hash);
    assert_eq!((&*short.resource_version, short.generation), ("9", 3));
    let change = LastChange { manager: "argocd", time: "2026-01-02T00:00:00Z" };
    assert_eq!((last_change(&whole), last_change(&short)), (Some(change), Some(change)));
    let kept = short.value.to_string();
    assert!(!kept.contains("f:ingress") && !kept.contains("last-applied") && !kept.contains("status"), "{kept}");
}

#[test]
fn an_audit_annotation_is_a_change_that_has_an_author() {
    let text = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a", "managedFields": [
        {"manager": "kubectl", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}},
        {"manager": "kubectl-annotate", "time": "2026-01-05T00:00:00Z",
         "fieldsV1": {"f:metadata": {"f:annotations": {"f:netverdict.io/mode": {}}}}}]}, "spec": {}}"#;
    assert_eq!(last_change(&object(trimmed(text))).map(|change| change.manager), Some("kubectl-annotate"));
}

#[test]
fn fields_of_a_wrong_type_are_still_seen() {
    let text =
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": 7}, "spec": {"containers": 7}}"#;
    assert!(object_from_value(trimmed(text), Origin::Api).is_err());
    for text in ["7", "[]", r#"{"apiVersion": 1, "kind": [], "metadata": 3}"#, r#"{"kind": "Pod", "apiVersion": "v1"}"#]
    {
        trimmed(text);
    }
}
