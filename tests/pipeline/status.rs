//! `netverdict status` names the problems of each node, each with its remedy.

use std::{fs, process::Command};

use serde_json::Value;
use xtask::services::{Serving, wait};

use crate::node::{NODE, Node, PATIENCE};

/// Exit code where something is not well.
const NOT_WELL: i32 = 5;

#[test]
fn each_problem_is_named_with_its_remedy_and_gone_once_it_is_mended() {
    let mut node = Node::started("enforce");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 29_000..29_010);
    node.wait_for(10, "select count(*) from flows where lane = 'denied' and source_port between 29000 and 29009");
    // Links of this machine that are no pod's are its own matter.
    let before = findings(&node);
    assert!(before.iter().all(|(part, _)| part == "services"), "{before:?}");
    let (_, text) = status(&node, &[]);
    let line = line_of(&text, NODE);
    assert!(line.starts_with(&format!("{NODE}  enforce")) && line.contains("  current  3"), "{text}");

    node.write_manifest("broken.yaml", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: [\n");
    let late = node.topology.pod("shop/late").expect("a pod");
    node.place.announce(&late).expect("announced: the pod starts not ready");
    let mut text = String::new();
    let told = ["broken.yaml", "repair the object", "shop/late", "compare it with the pods of this node"];
    wait("status names both problems and their remedies", PATIENCE, || {
        let (code, output) = status(&node, &[]);
        text = output;
        Ok(code == NOT_WELL && told.iter().all(|expected| text.contains(expected)))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {text}"));
    assert!(line_of(&text, NODE).contains("incomplete"), "{text}");
    assert_eq!(line_of(&text, NODE).split_whitespace().nth(5), Some("1"), "one is unbound: {text}");

    fs::remove_file(node.place.manifests().join("broken.yaml")).expect("removed");
    node.write_cluster();
    wait("all is well again", PATIENCE, || Ok(findings(&node) == before)).expect("well");
    assert_eq!(status(&node, &["-o", "wide"]).0, if before.is_empty() { 0 } else { NOT_WELL });
    let counted = json(&node)["collectors"][0]["status"]["events"].clone();
    let read: u64 = counted["read"].as_object().expect("lanes").values().filter_map(Value::as_u64).sum();
    assert!(read >= 10 && counted["recorded"].as_u64() >= Some(10), "{counted}");
}

#[test]
fn a_node_that_does_not_answer_is_told_with_its_name_and_the_others_are_shown() {
    let mut node = Node::new();
    node.start_collector("enforce", &[]);
    node.wait_until_attached();
    // A second collector that has never been there: its port is free.
    let collectors = format!("http://{},http://127.0.0.1:9", node.rows());
    let command: Command = node.place.query(Some(&collectors), "127.0.0.1:0", "127.0.0.1:0");
    node.query = Some(Serving::start(&node.place, "query", command).expect("the query service serves"));
    let (code, text) = status(&node, &[]);
    assert_eq!(code, NOT_WELL);
    assert!(line_of(&text, NODE).contains("enforce"), "{text}");
    assert!(
        text.contains("127.0.0.1:9: its collector does not answer at http://127.0.0.1:9/: Connection refused"),
        "{text}"
    );

    node.kill_collector();
    let mut text = String::new();
    wait("status says that the node's collector is away", PATIENCE, || {
        text = status(&node, &[NODE]).1;
        Ok(text.contains(&format!("{NODE}: its collector does not answer")))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {text}"));
    assert!(text.contains("it last answered") && text.contains("what is pinned goes on judging"), "{text}");
    assert!(!text.contains("127.0.0.1:9:"), "only the node that was asked for: {text}");
}

/// Exit code and standard output of `netverdict status`.
fn status(node: &Node, arguments: &[&str]) -> (i32, String) {
    let arguments = [&["status"][..], arguments].concat();
    let output = node.netverdict(&arguments).output().expect("an answer");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let code = output.status.code().expect("an exit code");
    assert!([0, NOT_WELL].contains(&code), "{code}: {}", String::from_utf8_lossy(&output.stderr));
    (code, text)
}

fn json(node: &Node) -> Value {
    serde_json::from_str(&status(node, &["-o", "json"]).1).expect("JSON")
}

/// Part and text of each.
fn findings(node: &Node) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let answer = json(node);
    let findings = answer["findings"].as_array().expect("findings");
    findings.iter().map(|finding| (text(&finding["part"]), text(&finding["text"]))).collect()
}

fn line_of<'a>(text: &'a str, node: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(node)).unwrap_or_else(|| panic!("no line of {node} in {text}"))
}
