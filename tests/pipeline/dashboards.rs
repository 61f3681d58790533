//! Every panel's query of every dashboard runs, with Grafana's macros expanded as Grafana's PostgreSQL data source does.

use std::{fs, path::Path};

use serde_json::Value;

use crate::node::Node;

#[test]
fn every_panel_has_an_answer() {
    let node = Node::started("enforce");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 27_000..27_010);
    node.wait_for(10, "select count(*) from denials where source_port >= 27000");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards");
    let mut ran = 0;
    for entry in fs::read_dir(&folder).expect("dashboards").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a dashboard");
        let dashboard: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for panel in dashboard["panels"].as_array().expect("panels") {
            let title = panel["title"].as_str().expect("a title");
            assert!(
                panel["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{title} does not say what it shows"
            );
            for target in panel["targets"].as_array().expect("targets") {
                let statement = expanded(target["rawSql"].as_str().expect("a query"));
                assert!(!statement.contains("$__"), "{title} has a macro that is not expanded here: {statement}");
                let answer = node.place.netverdict(node.query(), &["sql", "-o", "json", &statement]);
                let answer = answer.unwrap_or_else(|error| panic!("{title}: {statement}: {error:#}"));
                if title.starts_with("Latest denials") {
                    assert!(answer.contains("db/allow-web, db/default-deny"), "{title} names no policies: {answer}");
                }
                ran += 1;
            }
        }
    }
    assert!(ran >= 7, "only {ran} queries were found");
}

/// `$__timeFilter(x)` and `$__timeGroupAlias(x, '1m')` for a day around now.
fn expanded(statement: &str) -> String {
    let mut text = statement.to_owned();
    while let Some(start) = text.find("$__timeFilter(") {
        let end = start + text[start..].find(')').expect("a closing bracket");
        let column = &text[start + "$__timeFilter(".len()..end];
        let filter = format!("{column} BETWEEN '2000-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'");
        text.replace_range(start..=end, &filter);
    }
    text.replace("$__timeGroupAlias(time, '1m')", "floor(extract(epoch from time)/60)*60 AS \"time\"")
}
