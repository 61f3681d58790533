//! One flow as a case asks for it. What is wrong with it is told by field, with what was expected and what was found.

use std::net::IpAddr;

use netverdict_policy::{End, Family, Flow, ObjectKey, Snapshot};
use serde_json::{Map, Value};

use crate::{command::eval::flow::flow_between, place::parse_protocol};

const FIELDS: [&str; 5] = ["source", "destination", "protocol", "port", "family"];
const END_REMEDY: &str = "{\"pod\": \"namespace/name\"} or {\"ip\": \"...\"}";
/// Characters of what was found that are repeated in an error.
const MOST_REPEATED: usize = 60;

/// What is absent, or null, is what is usual.
pub(super) fn flow(value: &Value, snapshot: &Snapshot) -> Result<Flow, String> {
    let Value::Object(fields) = value else {
        return Err(format!("expected a flow, an object with source and destination, found {}", found(value)));
    };
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!("the field {} is not known; a flow has {}", short(unknown), FIELDS.join(", ")));
    }
    let (source, destination) = (end(fields, "source")?, end(fields, "destination")?);
    let family = match given(fields, "family") {
        None => None,
        Some(value) => Some(match value.as_u64() {
            Some(4) => Family::V4,
            Some(6) => Family::V6,
            _ => return Err(format!("family: expected 4 or 6, found {}", found(value))),
        }),
    };
    let protocol = match given(fields, "protocol") {
        None => None,
        Some(Value::String(name)) => Some(parse_protocol(name).map_err(|error| format!("protocol: {error}"))?),
        Some(Value::Number(number)) => {
            Some(parse_protocol(&number.to_string()).map_err(|error| format!("protocol: {error}"))?)
        }
        Some(other) => return Err(format!("protocol: expected its name, found {}", found(other))),
    };
    let port = match given(fields, "port") {
        None => None,
        Some(value) => match value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0) {
            Some(port) => Some(port),
            None => return Err(format!("port: expected a number from 1 to 65535, found {}", found(value))),
        },
    };
    flow_between(snapshot, source, destination, protocol, port, family).map_err(|error| error.to_string())
}

fn given<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn end(fields: &Map<String, Value>, name: &str) -> Result<End, String> {
    let value = given(fields, name).ok_or_else(|| format!("{name} is missing; write {END_REMEDY}"))?;
    let only = value.as_object().filter(|end| end.len() == 1).and_then(|end| end.iter().next());
    match only {
        Some((kind, Value::String(text))) if kind == "pod" => pod(text).map_err(|error| format!("{name}.pod: {error}")),
        Some((kind, Value::String(text))) if kind == "ip" => {
            address(text).map_err(|error| format!("{name}.ip: {error}"))
        }
        _ => Err(format!("{name}: expected {END_REMEDY}, found {}", found(value))),
    }
}

fn pod(text: &str) -> Result<End, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(End::Pod(ObjectKey::new(namespace, name)))
        }
        _ => Err(format!("expected namespace/name, found {}", short(text))),
    }
}

fn address(text: &str) -> Result<End, String> {
    let unzoned = text.split_once('%').map(|(address, _)| address);
    match (text.parse::<IpAddr>(), unzoned) {
        (Ok(address), _) => Ok(End::Address(address)),
        (Err(_), Some(address)) if address.parse::<IpAddr>().is_ok() => {
            Err(format!("expected an IP address without a zone, found {}; write {address}", short(text)))
        }
        (Err(_), _) => Err(format!("expected an IP address, found {}", short(text))),
    }
}

pub(super) fn found(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {}", short(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(fields) => match fields.keys().next() {
            None => "an empty object".to_owned(),
            Some(_) => {
                let names: Vec<_> = fields.keys().take(5).map(|name| short(name)).collect();
                format!("an object with {}", names.join(", "))
            }
        },
        plain => plain.to_string(),
    }
}

/// Quoted as it was in the JSON, and no longer than a reader wants.
fn short(text: &str) -> String {
    match text.char_indices().nth(MOST_REPEATED) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use netverdict_policy::build::cluster;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_told_by_field_with_what_was_found() {
        let long = "x".repeat(1_000);
        let cut = format!("source.ip: expected an IP address, found `{}…`", "x".repeat(MOST_REPEATED));
        let snapshot = cluster().snapshot();
        for (field, value, expected) in [
            ("source", json!({"ip": "10.0.2"}), "source.ip: expected an IP address, found `10.0.2`"),
            (
                "source",
                json!({"ip": "fe80::1%eth0"}),
                "source.ip: expected an IP address without a zone, found `fe80::1%eth0`; write fe80::1",
            ),
            ("source", json!({"ip": long}), cut.as_str()),
            ("source", json!({}), &format!("source: expected {END_REMEDY}, found an empty object")),
            (
                "destination",
                json!({"pod": "x/a", "ip": "10.0.0.1"}),
                &format!("destination: expected {END_REMEDY}, found an object with `ip`, `pod`"),
            ),
            ("destination", json!({"pod": "a"}), "destination.pod: expected namespace/name, found `a`"),
            ("destination", json!(null), &format!("destination is missing; write {END_REMEDY}")),
            ("port", json!(65536), "port: expected a number from 1 to 65535, found 65536"),
            ("port", json!("http"), "port: expected a number from 1 to 65535, found the text `http`"),
            ("family", json!("4"), "family: expected 4 or 6, found the text `4`"),
            ("protocol", json!(["TCP"]), "protocol: expected its name, found a list"),
            ("prot", json!("TCP"), &format!("the field `prot` is not known; a flow has {}", FIELDS.join(", "))),
        ] {
            let mut asked = json!({"source": {"ip": "10.0.2.1"}, "destination": {"ip": "10.0.1.1"}, "port": 80});
            asked[field] = value;
            assert_eq!(flow(&asked, &snapshot).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_protocol_is_a_name_in_any_case_or_a_number() {
        let snapshot = cluster().snapshot();
        for protocol in [json!("tcp"), json!("TCP"), json!(6), json!("6"), json!(null)] {
            let asked = json!({"source": {"ip": "10.0.2.1"}, "destination": {"ip": "10.0.1.1"}, "protocol": protocol});
            assert_eq!(flow(&asked, &snapshot).unwrap().protocol, netverdict_policy::model::Protocol::TCP);
        }
    }
}
