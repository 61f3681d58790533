//! The chart and its documentation say the same: its values, each described and typed, and the collector's rights.

use std::fs;

use netverdict_tests::golden::check;
use serde_json::Value;

use crate::sources::root;

const CHART: &str = "deploy/helm/netverdict";

#[test]
fn collectors_have_the_rights_that_the_documentation_names() {
    let rules = |path: &str| {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let role = text.split("kind: ClusterRole\n").nth(1).unwrap_or_else(|| panic!("{path} has no ClusterRole"));
        let (_, rules) =
            role.split_once("rules:\n").unwrap_or_else(|| panic!("the ClusterRole of {path} has no rules"));
        rules.split("---").next().unwrap_or_default().to_owned()
    };
    assert_eq!(rules(&format!("{CHART}/templates/collector.yaml")), rules("docs/kubernetes.md"));
}

#[test]
fn every_value_is_described_and_typed() {
    let text = fs::read_to_string(root().join(CHART).join("values.yaml")).expect("the chart's values");
    let schema = fs::read_to_string(root().join(CHART).join("values.schema.json")).expect("their types");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let values = described(&text);
    assert!(values.len() > 40, "only {} values are found", values.len());
    let mut page = "# Values of the chart\n\nMade from `deploy/helm/netverdict/values.yaml` and `values.schema.json` by the suite \
                    `tidy`.\n\n| value | default | |\n|---|---|---|\n"
        .to_owned();
    for Described { path, default, about } in &values {
        let name = path.join(".");
        let typed = path.iter().fold(&schema, |schema, part| &schema["properties"][part.as_str()]);
        assert!(typed["type"].is_string(), "{name} has no type in values.schema.json");
        assert!(!about.is_empty(), "{name} has no description in values.yaml");
        let default = if default.is_empty() { "\"\"" } else { default };
        page.push_str(&format!("| `{name}` | `{default}` | {} |\n", about.replace('|', "\\|")));
    }
    let mut typed = Vec::new();
    leaves(&schema, &mut Vec::new(), &mut typed);
    // Helm gives it to every chart.
    typed.retain(|path| path != "global");
    let mut named: Vec<String> = values.iter().map(|value| value.path.join(".")).collect();
    named.sort();
    typed.sort();
    assert_eq!(typed, named, "values.schema.json and values.yaml name the same values");
    check("docs/values.md", &page, "look at the change");
}

/// A value that has no values below it.
struct Described {
    path: Vec<String>,
    default: String,
    about: String,
}

/// Each value of the file with the comment above it. What is nested is indented by two spaces a step.
fn described(text: &str) -> Vec<Described> {
    let (mut values, mut parents, mut about): (Vec<_>, Vec<String>, String) = Default::default();
    for line in text.lines() {
        let words = line.trim_start();
        if let Some(comment) = words.strip_prefix("# ") {
            about = format!("{about} {comment}").trim().to_owned();
            continue;
        }
        let Some((key, rest)) = words.split_once(':') else {
            about.clear();
            continue;
        };
        let depth = (line.len() - words.len()) / 2;
        parents.truncate(depth);
        let path: Vec<String> = parents.iter().cloned().chain([key.to_owned()]).collect();
        match rest.trim() {
            "" => parents.push(key.to_owned()),
            default => values.push(Described { path, default: default.trim_matches('"').to_owned(), about }),
        }
        about = String::new();
    }
    values
}

fn leaves(schema: &Value, path: &mut Vec<String>, found: &mut Vec<String>) {
    let closed = schema["additionalProperties"] == false && schema["properties"].get("requests").is_none();
    match schema["properties"].as_object().filter(|_| closed) {
        Some(properties) => {
            for (name, property) in properties {
                path.push(name.clone());
                leaves(property, path, found);
                path.pop();
            }
        }
        None => found.push(path.join(".")),
    }
}
