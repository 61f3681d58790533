//! Label selectors: reads them, and matches them against labels.

use std::collections::BTreeSet;

use crate::{
    fields::{Field, Fields, Read, quoted},
    finding::{Invalid, code},
    label,
};
use netverdict_policy::model::{Labels, NamespaceScope, Operator, Requirement, Selector};

/// A selector that is present, empty or not. The meaning of an absent one depends on the field.
pub(crate) fn selector(field: Field<'_>) -> Read<Selector> {
    let mut fields = Fields::of(field)?;
    let mut requirements = Vec::new();
    if let Some(labels) = fields.object("matchLabels")? {
        for (key, value) in labels.entries() {
            check_key(key, &value.path)?;
            let operator = Operator::In(BTreeSet::from([label_value(&value)?]));
            requirements.push(Requirement { key: key.clone(), operator });
        }
    }
    if let Some(expressions) = fields.list("matchExpressions")? {
        for expression in expressions.iter() {
            requirements.push(requirement(expression)?);
        }
    }
    fields.finish()?;
    requirements.sort();
    requirements.dedup();
    Ok(Selector { requirements })
}

/// As [`selector`]; an absent one selects everything.
pub(crate) fn selector_or_all(fields: &mut Fields<'_>, name: &'static str) -> Read<Selector> {
    fields.field(name).map_or_else(|| Ok(Selector::default()), selector)
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

/// The namespaces whose labels match.
pub(crate) fn selected(selector: Selector) -> NamespaceScope {
    NamespaceScope::Selected(selector)
}

fn requirement(field: Field<'_>) -> Read<Requirement> {
    let mut fields = Fields::of(field)?;
    let key = fields.required_text("key")?;
    check_key(key, &fields.path("key"))?;
    let operator = fields.required_text("operator")?;
    let operator_path = fields.path("operator");
    let values_path = fields.path("values");
    let mut values = BTreeSet::new();
    if let Some(list) = fields.list("values")? {
        for value in list.iter() {
            values.insert(label_value(&value)?);
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
            let message = format!("expected an operator, found {}", quoted(operator));
            return refuse(operator_path, message, "use In, NotIn, Exists or DoesNotExist");
        }
    };
    Ok(Requirement { key: key.to_owned(), operator })
}

fn check_key(key: &str, path: &str) -> Read<()> {
    if label::is_key(key) {
        return Ok(());
    }
    let message = format!("expected a label key, found {}", quoted(key));
    let remedy = "use [prefix/]name with letters, digits, '-', '_' and '.'";
    Err(Box::new(Invalid::new(code::INVALID_SELECTOR, path, message, remedy)))
}

fn label_value(field: &Field<'_>) -> Read<String> {
    let value = field.text()?;
    if label::is_value(value) {
        return Ok(value.to_owned());
    }
    let message = format!("expected a label value, found {}", field.describe());
    let remedy = "use up to 63 letters, digits, '-', '_' and '.'";
    Err(Box::new(Invalid::new(code::INVALID_SELECTOR, &field.path, message, remedy)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Read<Selector> {
        selector(Field::new(&value, "s", None))
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
