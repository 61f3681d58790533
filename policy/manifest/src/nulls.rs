//! Null items and labels of NetworkPolicy, which an API server stores as the empty value of their type.
//!
//! Kinds of custom resources do not use this: their schema refuses or drops such nulls.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{
    fields::quoted,
    finding::{Invalid, Report, code},
};

/// The specification of a NetworkPolicy as an API server stores it, with a warning for each null that becomes an empty value.
/// Fields that are null stay, since they count as absent.
pub(crate) fn filled<'v>(spec: &'v Value, path: &str, report: &mut Report) -> Cow<'v, Value> {
    if !has_null(spec) {
        return Cow::Borrowed(spec);
    }
    let mut spec = spec.clone();
    fill(&mut spec, "", path, report);
    Cow::Owned(spec)
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(map) => map.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// `name` is the name of the field that holds the value.
fn fill(value: &mut Value, name: &str, path: &str, report: &mut Report) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = match name {
                    "matchLabels" => format!("{path}[{}]", quoted(key)),
                    _ => format!("{path}.{key}"),
                };
                match (name, &value) {
                    ("matchLabels", Value::Null) => replace(value, Value::String(String::new()), path, report),
                    _ => fill(value, key, &path, report),
                }
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter_mut().enumerate() {
                let path = format!("{path}[{index}]");
                match (name, &value) {
                    ("ingress" | "egress" | "ports", Value::Null) => {
                        replace(value, Value::Object(Map::new()), path, report);
                    }
                    ("values", Value::Null) => replace(value, Value::String(String::new()), path, report),
                    _ => fill(value, "", &path, report),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn replace(value: &mut Value, with: Value, path: String, report: &mut Report) {
    let message = format!("found null, which an API server reads as {with}");
    report.warning(Invalid::new(code::WRONG_TYPE, path, message, "write what is meant"));
    *value = with;
}
