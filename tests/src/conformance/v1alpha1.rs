//! ClusterNetworkPolicy v1alpha2, translated to AdminNetworkPolicy and BaselineAdminNetworkPolicy v1alpha1.

use serde_json::{Map, Value, json};

/// Objects of other kinds stay as they are.
pub(super) fn translated(mut object: Value) -> Value {
    if object["kind"] != "ClusterNetworkPolicy" {
        return object;
    }
    object["apiVersion"] = json!("policy.networking.k8s.io/v1alpha1");
    let is_admin = object["spec"]["tier"] == "Admin";
    object["kind"] = json!(if is_admin { "AdminNetworkPolicy" } else { "BaselineAdminNetworkPolicy" });
    let Some(spec) = object["spec"].as_object_mut() else { return object };
    spec.remove("tier");
    if !is_admin {
        spec.remove("priority");
    }
    spec.values_mut().for_each(select_namespaces);
    for direction in ["ingress", "egress"] {
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
        rules.into_iter().flatten().filter_map(Value::as_object_mut).for_each(translate_rule);
    }
    object
}

/// Writes the namespace selector, which today's `pods` may leave out.
fn select_namespaces(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(select_namespaces),
        Value::Object(fields) => {
            if fields.contains_key("podSelector") {
                fields.entry("namespaceSelector").or_insert_with(|| json!({}));
            }
            fields.values_mut().for_each(select_namespaces);
        }
        _ => {}
    }
}

fn translate_rule(rule: &mut Map<String, Value>) {
    if rule.get("action").is_some_and(|action| action == "Accept") {
        rule.insert("action".into(), json!("Allow"));
    }
    if let Some(Value::Array(protocols)) = rule.remove("protocols") {
        rule.insert("ports".into(), protocols.iter().map(port).collect());
    }
}

fn port(protocol: &Value) -> Value {
    if let Some(name) = protocol.get("destinationNamedPort") {
        return json!({"namedPort": name});
    }
    let (name, fields) = protocol.as_object().and_then(|fields| fields.iter().next()).expect("one protocol");
    let name = name.to_uppercase();
    let port = &fields["destinationPort"];
    match port.get("range") {
        Some(range) => json!({"portRange": {"protocol": name, "start": range["start"], "end": range["end"]}}),
        None => json!({"portNumber": {"protocol": name, "port": port["number"]}}),
    }
}
