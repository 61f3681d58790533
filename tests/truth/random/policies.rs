//! Manifests of random policies for the nine pods, with few names, ports and addresses, so that rules often match.

use serde_json::{Value, json};

use crate::chance::Chance;

/// Ports inside and outside of the policies' ranges.
pub(super) const PORTS: [u16; 9] = [1, 53, 79, 80, 81, 90, 8085, 8090, 65_535];
const NAMES: [&str; 2] = ["web", "dns"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
/// CIDR blocks, each with exceptions inside it.
const BLOCKS: [(&str, &[&str]); 9] = [
    ("0.0.0.0/0", &["V4NET.0/24", "203.0.113.0/25"]),
    ("V4NET.0/24", &["V4NET.12/30", "V4NET.10/32"]),
    ("V4NET.8/29", &["V4NET.13/32"]),
    ("203.0.113.0/24", &["203.0.113.7/32"]),
    ("203.0.113.7/32", &[]),
    ("::/0", &["V6NET::/64", "2001:db8::/32"]),
    ("V6NET::/64", &["V6NET::c/126", "V6NET::a/128"]),
    ("V6NET::8/125", &["V6NET::d/128"]),
    ("2001:db8::/64", &["2001:db8::7/128"]),
];

/// Alternates between namespaced and cluster-wide policies.
pub(super) fn policy(chance: &mut Chance, name: &str) -> Value {
    let mut policy = if chance.once_in(2) { network_policy(chance, name) } else { ordered_policy(chance, name) };
    if chance.once_in(5) {
        policy["metadata"]["annotations"] = json!({"netverdict.io/mode": "audit"});
    }
    policy
}

/// A manifest of one of the three namespaces, with labels that policies may or may not select.
pub(super) fn namespace(chance: &mut Chance) -> Value {
    let name = *chance.pick(&["x", "y", "z"]);
    let mut labels = json!({"ns": name, "kubernetes.io/metadata.name": name});
    if chance.once_in(2) {
        labels["tier"] = json!(chance.pick(&["front", "back"]));
    }
    let annotations = if chance.once_in(8) { json!({"netverdict.io/mode": "audit"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace",
           "metadata": {"name": name, "labels": labels, "annotations": annotations}})
}

fn network_policy(chance: &mut Chance, name: &str) -> Value {
    let mut spec = json!({"podSelector": pods(chance)});
    let directions = [("ingress", "from"), ("egress", "to")];
    for (direction, side) in directions {
        if chance.once_in(2) {
            let rules: Vec<Value> = (0..chance.below(3)).map(|_| network_rule(chance, side)).collect();
            spec[direction] = json!(rules);
        }
    }
    match chance.below(4) {
        0 => spec["policyTypes"] = json!(["Ingress"]),
        1 => spec["policyTypes"] = json!(["Egress"]),
        2 => spec["policyTypes"] = json!(["Ingress", "Egress"]),
        _ => {}
    }
    let namespace = chance.pick(&["x", "y", "z"]);
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
           "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}")}, "spec": spec})
}

fn network_rule(chance: &mut Chance, side: &str) -> Value {
    let mut rule = json!({});
    if !chance.once_in(5) {
        rule[side] = json!((0..=chance.below(2)).map(|_| network_peer(chance)).collect::<Vec<_>>());
    }
    if chance.once_in(2) {
        rule["ports"] = json!((0..=chance.below(2)).map(|_| network_port(chance)).collect::<Vec<_>>());
    }
    rule
}

fn network_peer(chance: &mut Chance) -> Value {
    match chance.below(5) {
        0 => json!({"podSelector": pods(chance)}),
        1 => json!({"namespaceSelector": namespaces(chance)}),
        2 => json!({"namespaceSelector": namespaces(chance), "podSelector": pods(chance)}),
        _ => {
            let (cidr, exceptions) = chance.pick(&BLOCKS);
            let except: Vec<_> = exceptions.iter().filter(|_| chance.once_in(2)).collect();
            json!({"ipBlock": {"cidr": cidr, "except": except}})
        }
    }
}

fn network_port(chance: &mut Chance) -> Value {
    let mut port = json!({"protocol": chance.pick(&PROTOCOLS)});
    match chance.below(4) {
        0 => {}
        1 => port["port"] = json!(chance.pick(&NAMES)),
        2 => port["port"] = json!(chance.pick(&PORTS)),
        _ => (port["port"], port["endPort"]) = range(chance),
    }
    port
}

fn ordered_policy(chance: &mut Chance, name: &str) -> Value {
    let mut spec = json!({
        "tier": chance.pick(&["Admin", "Admin", "Baseline"]),
        "priority": chance.below(4),
        "subject": scope(chance),
    });
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        let rules: Vec<Value> = (0..chance.below(4)).map(|_| ordered_rule(chance, side)).collect();
        spec[direction] = json!(rules);
    }
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
           "metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec})
}

fn ordered_rule(chance: &mut Chance, side: &str) -> Value {
    // An API server refuses named ports beside peers that are not pods.
    let only_pods = side == "from" || chance.once_in(2);
    let peers: Vec<Value> = (0..=chance.below(2)).map(|_| ordered_peer(chance, only_pods)).collect();
    let mut rule = json!({"action": chance.pick(&["Accept", "Deny", "Pass"]), side: peers});
    if chance.once_in(2) {
        rule["name"] = json!("named");
    }
    if chance.once_in(2) {
        rule["protocols"] = json!((0..=chance.below(2)).map(|_| ordered_port(chance, only_pods)).collect::<Vec<_>>());
    }
    rule
}

fn ordered_peer(chance: &mut Chance, only_pods: bool) -> Value {
    match chance.below(4) {
        0 if !only_pods => json!({"nodes": {}}),
        1 if !only_pods => json!({"networks": [chance.pick(&BLOCKS).0, chance.pick(&BLOCKS).0]}),
        _ => scope(chance),
    }
}

fn ordered_port(chance: &mut Chance, names: bool) -> Value {
    let protocol = chance.pick(&PROTOCOLS).to_lowercase();
    match chance.below(4) {
        0 if names => json!({"destinationNamedPort": chance.pick(&NAMES)}),
        1 => json!({protocol: {"destinationPort": {"number": chance.pick(&PORTS)}}}),
        2 => {
            let (start, end) = range(chance);
            json!({protocol: {"destinationPort": {"range": {"start": start, "end": end}}}})
        }
        _ => json!({protocol: {}}),
    }
}

fn scope(chance: &mut Chance) -> Value {
    if chance.once_in(2) {
        json!({"namespaces": namespaces(chance)})
    } else {
        json!({"pods": {"namespaceSelector": namespaces(chance), "podSelector": pods(chance)}})
    }
}

fn range(chance: &mut Chance) -> (Value, Value) {
    let first = chance.below(PORTS.len() - 1);
    let last = first + 1 + chance.below(PORTS.len() - 1 - first);
    (json!(PORTS[first]), json!(PORTS[last]))
}

fn pods(chance: &mut Chance) -> Value {
    selector(chance, &[("pod", &["a", "b", "c"]), ("canary", &["true"])])
}

fn namespaces(chance: &mut Chance) -> Value {
    selector(chance, &[("ns", &["x", "y", "z"]), ("tier", &["front", "back"])])
}

fn selector(chance: &mut Chance, labels: &[(&str, &[&str])]) -> Value {
    let (key, values) = *chance.pick(labels);
    let value = chance.pick(values);
    match chance.below(7) {
        0 => json!({}),
        1 => json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]}),
        2 => json!({"matchExpressions": [{"key": key, "operator": "Exists"}]}),
        3 => json!({"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]}),
        4 => json!({"matchExpressions": [{"key": key, "operator": "In", "values": values}]}),
        _ => json!({"matchLabels": {key: value}}),
    }
}
