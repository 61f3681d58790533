//! Label selectors: reads them, and says which labels they match.

use std::collections::BTreeSet;

use netverdict_policy::model::{Labels, NamespaceScope, Operator, Requirement, Selector};
use serde_json::Value;

use crate::{
    fields::{Fields, Read, describe, quoted, text, wrong_type},
    finding::{Invalid, code},
    label,
};

/// A selector that is there, empty or not. An absent one means different things in different places.
pub(crate) fn selector(value: &Value, path: String) -> Read<Selector> {
    let mut fields = Fields::of(value, path)?;
    let mut requirements = Vec::new();
    let labels_path = fields.path("matchLabels");
    match fields.value("matchLabels") {
        None => {}
        Some(Value::Object(labels)) => {
            for (key, value) in labels {
                let path = format!("{labels_path}[{}]", quoted(key));
                check_key(key, &path)?;
                let value = text(value, path.clone())?;
                check_value(value, &path)?;
                let operator = Operator::In(BTreeSet::from([value.to_owned()]));
                requirements.push(Requirement { key: key.clone(), operator });
            }
        }
        Some(other) => return Err(wrong_type(labels_path, "a mapping", other)),
    }
    if let Some(expressions) = fields.list("matchExpressions")? {
        for (path, value) in expressions.iter() {
            requirements.push(requirement(value, path)?);
        }
    }
    fields.finish()?;
    requirements.sort();
    requirements.dedup();
    Ok(Selector { requirements })
}

/// As [`selector`]; absent and null mean everything.
pub(crate) fn selector_or_all(fields: &mut Fields<'_>, name: &'static str) -> Read<Selector> {
    let path = fields.path(name);
    fields.value(name).map_or_else(|| Ok(Selector::default()), |value| selector(value, path))
}

/// Whether all requirements hold (N-11).
pub(crate) fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements.iter().all(|requirement| {
        let value = labels.get(&requirement.key);
        match &requirement.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    })
}

/// Every pod of the namespaces that match.
pub(crate) fn selected(selector: Selector) -> NamespaceScope {
    NamespaceScope::Selected(selector)
}

fn requirement(value: &Value, path: String) -> Read<Requirement> {
    let mut fields = Fields::of(value, path)?;
    let key = fields.required_text("key")?;
    check_key(key, &fields.path("key"))?;
    let operator = fields.required_text("operator")?;
    let operator_path = fields.path("operator");
    let values_path = fields.path("values");
    let mut values = BTreeSet::new();
    if let Some(list) = fields.list("values")? {
        for (path, value) in list.iter() {
            let value = text(value, path.clone())?;
            check_value(value, &path)?;
            values.insert(value.to_owned());
        }
    }
    fields.finish()?;
    let refuse = |path: String, message: String, remedy: &str| {
        Err(Box::new(Invalid::new(code::INVALID_SELECTOR, path, message, remedy)))
    };
    let operator = match (operator, values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        ("In" | "NotIn", true) => {
            return refuse(values_path, format!("{operator} has no values"), "name at least one value");
        }
        ("Exists" | "DoesNotExist", false) => {
            return refuse(values_path, format!("{operator} has values"), "remove the values");
        }
        _ => {
            let message = format!("{} is no operator", quoted(operator));
            return refuse(operator_path, message, "use In, NotIn, Exists or DoesNotExist");
        }
    };
    Ok(Requirement { key: key.to_owned(), operator })
}

fn check_key(key: &str, path: &str) -> Read<()> {
    if label::is_key(key) {
        return Ok(());
    }
    let message = format!("{} is no label key", quoted(key));
    let remedy = "use [prefix/]name with letters, digits, '-', '_' and '.'";
    Err(Box::new(Invalid::new(code::INVALID_SELECTOR, path, message, remedy)))
}

fn check_value(value: &str, path: &str) -> Read<()> {
    if label::is_value(value) {
        return Ok(());
    }
    let message = format!("{} is no label value", describe(&Value::String(value.to_owned())));
    let remedy = "use up to 63 letters, digits, '-', '_' and '.'";
    Err(Box::new(Invalid::new(code::INVALID_SELECTOR, path, message, remedy)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Read<Selector> {
        selector(&value, "s".into())
    }

    #[test]
    fn labels_and_expressions_are_all_required_in_sorted_order() {
        let one = read(
            json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}),
        );
        let other = read(json!({"matchExpressions": [
            {"key": "c", "operator": "Exists"},
            {"key": "b", "operator": "In", "values": ["2"]},
            {"key": "a", "operator": "In", "values": ["1", "1"]},
        ]}));
        assert_eq!(one.unwrap(), other.unwrap());
        assert_eq!(read(json!({})).unwrap(), Selector::default());
        assert_eq!(read(json!({"matchLabels": null, "matchExpressions": []})).unwrap(), Selector::default());
    }

    #[test]
    fn what_an_api_server_refuses_is_refused() {
        for (value, field) in [
            (json!({"matchLabel": {"a": "b"}}), "s.matchLabel"),
            (json!({"matchLabels": {"a": 1}}), "s.matchLabels[\"a\"]"),
            (json!({"matchLabels": {"a b": "c"}}), "s.matchLabels[\"a b\"]"),
            (json!({"matchLabels": {"a": "b c"}}), "s.matchLabels[\"a\"]"),
            (json!({"matchLabels": ["a"]}), "s.matchLabels"),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}),
                "s.matchExpressions[0].operator",
            ),
            (json!({"matchExpressions": [{"key": "a", "operator": "In"}]}), "s.matchExpressions[0].values"),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
                "s.matchExpressions[0].values",
            ),
            (json!({"matchExpressions": [{"operator": "Exists"}]}), "s.matchExpressions[0].key"),
            (json!({"matchExpressions": [null]}), "s.matchExpressions[0]"),
            (json!("app=web"), "s"),
        ] {
            assert_eq!(read(value.clone()).unwrap_err().field, field, "{value}");
        }
    }
}
