//! A record of format 1, written by the collector of that time: the answers of the service are those of the service of that
//! time (`tests/fixtures/format-1`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use crate::world::{Served, World};

#[derive(Deserialize)]
struct Expected {
    sql: Vec<Statement>,
    why: Vec<Asked>,
    flows: Vec<Asked>,
}

#[derive(Deserialize)]
struct Statement {
    /// As it was asked then.
    statement: String,
    /// The same under the names of today.
    #[serde(default)]
    now: Option<String>,
    /// Old name to new name of columns of the answer.
    #[serde(default)]
    renamed: BTreeMap<String, String>,
    /// Columns of the answer that did not exist.
    #[serde(default)]
    added: Vec<String>,
    answer: Value,
}

#[derive(Deserialize)]
struct Asked {
    question: BTreeMap<String, String>,
    answer: Value,
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/format-1")
}

fn expected() -> Expected {
    let text = std::fs::read_to_string(fixture().join("answers.json")).expect("answers of that time");
    serde_json::from_str(&text).expect("answers as they are described")
}

async fn served() -> (World, Served) {
    let world = World::of_files(&fixture().join("data")).await;
    let served = world.serve().await;
    (world, served)
}

/// Fields that answers have got since.
const ADDED: [&str; 3] = ["revision", "candidates", "mistaken_for"];

/// Without values that depend on when and by whom it is asked: ages, and a follower's cursor. Without later additions.
fn timeless(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_kept = |name: &str| name != "cursor" && !ADDED.contains(&name);
            let fields = fields.into_iter().filter(|(name, _)| is_kept(name));
            fields.map(|(name, value)| (name, timeless(value))).collect()
        }
        Value::Array(values) => values.into_iter().map(timeless).collect(),
        Value::String(text) => Value::String(ageless(&text)),
        value => value,
    }
}

/// `5 min ago` as `… ago`.
fn ageless(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    let is_age = |words: &[&str]| {
        let [number, unit, ago] = words else { return false };
        number.bytes().all(|byte| byte.is_ascii_digit())
            && ["s", "min", "h", "d"].contains(unit)
            && ago.trim_end_matches([';', ',', '.']) == "ago"
    };
    while let Some(at) = words.windows(3).position(is_age) {
        words.splice(at..at + 2, ["…"]);
    }
    words.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_have_the_answers_of_format_1() {
    let (_world, served) = served().await;
    for Statement { statement, now, renamed, added, answer } in expected().sql {
        let asked = now.as_ref().unwrap_or(&statement);
        let (status, found) = served.sql(asked).await;
        assert_eq!(status, 200, "{asked}: {found}");
        let names = |answer: &Value| -> Vec<String> {
            let columns = answer["columns"].as_array().expect("columns");
            columns.iter().map(|column| column["name"].as_str().expect("a name").to_owned()).collect()
        };
        let then: Vec<String> =
            names(&answer).into_iter().map(|name| renamed.get(&name).cloned().unwrap_or(name)).collect();
        let kept: Vec<(usize, String)> =
            names(&found).into_iter().enumerate().filter(|(_, name)| !added.contains(name)).collect();
        assert_eq!(kept.iter().map(|(_, name)| name).collect::<Vec<_>>(), then.iter().collect::<Vec<_>>(), "{asked}");
        assert_eq!(kept.len() + added.len(), names(&found).len(), "{asked}");
        let types = |answer: &Value, index: usize| answer["columns"][index]["type"].clone();
        for (index, (place, name)) in kept.iter().enumerate() {
            assert_eq!(types(&found, *place), types(&answer, index), "type of {name}: {asked}");
        }
        let rows = |answer: &Value| answer["rows"].as_array().expect("rows").clone();
        let cells = |row: Value| kept.iter().map(|(index, _)| row[index].clone()).collect::<Value>();
        let found_rows: Vec<Value> = rows(&found).into_iter().map(cells).collect();
        assert_eq!(found_rows, rows(&answer), "{asked}");
        for field in ["gaps", "stale", "truncated"] {
            assert_eq!(found[field], answer[field], "{field} of {asked}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_have_the_answers_of_format_1() {
    let (_world, served) = served().await;
    let Expected { why, flows, .. } = expected();
    for (kind, asked) in [("why", why), ("flows", flows)] {
        for Asked { question, answer } in asked {
            let request = served.client().get(format!("{}/v1/{kind}", served.http)).query(&question);
            let response = served.raw(served.authorized(request)).await;
            let status = response.status().as_u16();
            let found: Value = response.json().await.expect("JSON");
            let found = match status {
                200 => found,
                status => serde_json::json!({ "status": status, "error": found }),
            };
            assert_eq!(timeless(found), timeless(answer), "{kind} {question:?}");
        }
    }
}

#[test]
fn ages_are_told_from_other_words() {
    assert_eq!(ageless("last 22 min ago, 3 events; 5 h ago; 7 ago"), "last … ago, 3 events; … ago; 7 ago");
}
