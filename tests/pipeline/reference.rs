//! The references of options and metrics are made from what the programs say.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

use netverdict_tests::golden::check;

use crate::node::Node;

const REMEDY: &str = "look at the change";
/// The programs, and the commands of each whose options are its own.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("netverdict-collector", &["", "replay"]),
    ("netverdict-query", &[""]),
    (
        "netverdict",
        &[
            "",
            "why",
            "flows",
            "sql",
            "status",
            "eval",
            "lint",
            "doctor",
            "probe",
            "probe status",
            "probe detach",
            "probe await-nodes",
            "completion",
        ],
    ),
    ("netverdict-cni", &["install", "uninstall"]),
];

#[test]
fn every_option_is_in_the_reference() {
    let node = Node::new();
    let mut page = "# Options\n\nWhat `--help` says, made by the suite `pipeline`. A variable counts where its option is not given.\n\
                    `kubectl verdict` is `netverdict`.\n"
        .to_owned();
    for (program, commands) in PROGRAMS {
        page.push_str(&format!("\n## {program}\n"));
        for command in commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            let mut help: Command = node.place.program(program);
            // Help shows the values of variables.
            let output = help.args(&words).arg("--help").env_clear().output().expect("it starts");
            assert!(output.status.success(), "{program} {command} --help: {output:?}");
            if !words.is_empty() {
                page.push_str(&format!("\n### {program} {command}\n"));
            }
            let text = String::from_utf8(output.stdout).expect("text");
            let text: Vec<&str> = text.lines().map(str::trim_end).collect();
            page.push_str(&format!("\n```text\n{}\n```\n", text.join("\n")));
        }
    }
    check("docs/options.md", &page, REMEDY);
}

#[test]
fn every_metric_is_in_the_reference() {
    let node = Node::started("observe");
    let query = node.query.as_ref().expect("the query service");
    let mut page = "# Metrics\n\nMade by the suite `pipeline` from `/metrics` of both services, in OpenMetrics. Those of the watch of a \
                    cluster are in\n[kubernetes.md](kubernetes.md#metrics).\n"
        .to_owned();
    for (title, address) in [("Collector", node.admin()), ("Query service", query.address("http").expect("an address"))]
    {
        page.push_str(&format!("\n## {title}\n\n| metric | type | |\n|---|---|---|\n"));
        let text = metrics(address);
        let described: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
        assert!(described.len() > 5, "{text}");
        for (name, help) in described {
            let types = format!("# TYPE {name} ");
            let kind = text.lines().find_map(|line| line.strip_prefix(&types)).unwrap_or("unknown");
            let total = if kind == "counter" { "_total" } else { "" };
            page.push_str(&format!("| `{name}{total}` | {kind} | {} |\n", help.trim_end_matches('.')));
        }
    }
    check("docs/metrics.md", &page, REMEDY);
}

fn metrics(address: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("connected");
    write!(connection, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("asked");
    let mut page = String::new();
    connection.read_to_string(&mut page).expect("an answer");
    page
}
