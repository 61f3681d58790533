//! The references of options and metrics are made from what the programs say.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

use netverdict_tests::golden::check;
use xtask::command::root;

use crate::node::Node;

const METRICS: &str = "docs/metrics.md";
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

/// A family without samples is not served: this test learns of such metrics by the sources.
#[test]
fn every_metric_is_in_the_reference() {
    let node = Node::started("observe");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 26_000..26_010);
    node.wait_for(
        10,
        "select coalesce(sum(count), 0) from flows where lane = 'denied' and source_port between 26000 and 26009",
    );
    let query = node.query.as_ref().expect("the query service");
    let page = fs::read_to_string(root().join(METRICS)).unwrap_or_default();
    let mut lines = BTreeSet::new();
    for address in [node.admin(), query.address("http").expect("an address")] {
        let text = metrics(address);
        let described: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
        assert!(described.len() > 5, "{text}");
        for (name, help) in described {
            let types = format!("# TYPE {name} ");
            let kind = text.lines().find_map(|line| line.strip_prefix(&types)).unwrap_or("unknown");
            let total = if kind == "counter" { "_total" } else { "" };
            lines.insert(format!("| `{name}{total}` | {kind} | {} |", help.trim_end_matches('.')));
        }
    }
    let is_served = |line: &str| lines.iter().any(|served| name_of(served) == name_of(line));
    let others: BTreeSet<_> = page.lines().filter(|line| line.starts_with("| `") && !is_served(line)).collect();
    let sources = sources();
    for line in &others {
        let name = name_of(line).trim_start_matches("netverdict_");
        let parts: Vec<&str> = name.split('_').collect();
        // A prefix, the name, and a suffix for the unit and the type.
        let is_registered = (1..parts.len())
            .flat_map(|start| (start + 1..=parts.len()).map(move |end| (start, end)))
            .any(|(start, end)| sources.contains(&format!("\"{}\"", parts[start..end].join("_"))));
        assert!(is_registered, "{METRICS} names {name}, which no service registers");
    }
    let mut found = "# Metrics\n\nWhat `/metrics` of both services has, in OpenMetrics; held true by the suite `pipeline`. A metric with labels is there \
                     once it\nhas a sample. Those of the watch of a cluster are in [kubernetes.md](kubernetes.md#metrics).\n\n\
                     | metric | type | |\n|---|---|---|\n"
        .to_owned();
    let all: BTreeSet<_> = lines.iter().map(String::as_str).chain(others).collect();
    all.iter().for_each(|line| found.push_str(&format!("{line}\n")));
    check(METRICS, &found, REMEDY);
}

/// Of a line of the reference.
fn name_of(line: &str) -> &str {
    line.trim_start_matches("| `").split('`').next().unwrap_or_default()
}

/// The code of the services.
fn sources() -> String {
    let (mut text, mut folders) =
        (String::new(), ["collector/src", "query/src", "service/src"].map(|path| root().join(path)).to_vec());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                text.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
    }
    text
}

fn metrics(address: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("connected");
    write!(connection, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("asked");
    let mut page = String::new();
    connection.read_to_string(&mut page).expect("an answer");
    page
}
