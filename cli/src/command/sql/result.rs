//! Rows of an SQL result as a table, as CSV (RFC 4180), or as JSON objects.

use std::collections::HashMap;

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use netverdict_flowlog::answer::SqlAnswer;
use serde_json::{Map, Value};

use crate::terminal::plain;

/// With borders, numbers to the right, and the count of rows below.
pub(super) fn table(answer: &SqlAnswer) -> String {
    let count = match answer.rows.len() {
        1 => "1 row".to_owned(),
        count => format!("{count} rows"),
    };
    if answer.columns.is_empty() {
        return format!("{count}\n");
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(answer.columns.iter().map(|column| plain(&column.name).into_owned()));
    for row in &answer.rows {
        table.add_row(row.iter().map(|value| plain(&cell(value, "")).into_owned()));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if answer.rows.iter().any(|row| row.get(index).is_some_and(Value::is_number)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n{count}\n")
}

/// Null is an empty field, as PostgreSQL's COPY writes it.
pub(super) fn csv(answer: &SqlAnswer) -> String {
    let mut text = String::new();
    let mut line = |fields: &mut dyn Iterator<Item = String>| {
        for (index, field) in fields.enumerate() {
            if index > 0 {
                text.push(',');
            }
            if field.contains([',', '"', '\n', '\r']) {
                text.push('"');
                text.push_str(&field.replace('"', "\"\""));
                text.push('"');
            } else {
                text.push_str(&field);
            }
        }
        text.push_str("\r\n");
    };
    line(&mut answer.columns.iter().map(|column| column.name.clone()));
    for row in &answer.rows {
        line(&mut row.iter().map(|value| cell(value, "")));
    }
    text
}

/// One object per row; of columns with the same name, the second is called `name_2`.
pub(super) fn objects(answer: &SqlAnswer) -> Vec<Map<String, Value>> {
    let mut seen = HashMap::<&str, usize>::new();
    let names: Vec<_> = answer
        .columns
        .iter()
        .map(|column| {
            let count = seen.entry(&column.name).or_default();
            *count += 1;
            if *count == 1 { column.name.clone() } else { format!("{}_{count}", column.name) }
        })
        .collect();
    answer.rows.iter().map(|row| names.iter().cloned().zip(row.iter().cloned()).collect()).collect()
}

fn cell(value: &Value, null: &str) -> String {
    match value {
        Value::Null => null.to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use netverdict_flowlog::answer::SqlColumn;
    use serde_json::json;

    use super::*;

    fn answer() -> SqlAnswer {
        let column = |name: &str| SqlColumn { name: name.to_owned(), r#type: "text".to_owned() };
        SqlAnswer {
            columns: vec![column("pod"), column("count"), column("pod")],
            rows: vec![
                vec![json!("shop/web"), json!(12), json!("a \"b\", c")],
                vec![json!(null), json!(3), json!(["x", 1])],
            ],
            gaps: vec![],
            stale: vec![],
            truncated: false,
        }
    }

    #[test]
    fn a_table_has_borders_and_a_count() {
        assert_eq!(
            table(&answer()),
            "\
┌──────────┬───────┬──────────┐
│ pod      ┆ count ┆ pod      │
╞══════════╪═══════╪══════════╡
│ shop/web ┆    12 ┆ a \"b\", c │
│          ┆     3 ┆ [\"x\",1]  │
└──────────┴───────┴──────────┘
2 rows
"
        );
    }

    #[test]
    fn csv_quotes_what_has_to_be_quoted() {
        assert_eq!(csv(&answer()), "pod,count,pod\r\nshop/web,12,\"a \"\"b\"\", c\"\r\n,3,\"[\"\"x\"\",1]\"\r\n");
    }

    #[test]
    fn objects_lose_no_column() {
        let rows = objects(&answer());
        assert_eq!(Value::from(rows[0].clone()), json!({"pod": "shop/web", "count": 12, "pod_2": "a \"b\", c"}));
    }
}
