//! Direction of imports, as `ARCHITECTURE.md` draws it: direct ones by `cargo metadata`, linkage by `cargo tree`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use crate::sources::root;

/// Which crates of the house each crate may name. Tests, benches and xtask may name any.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("netverdict-abi", &[]),
    ("netverdict-policy", &[]),
    ("netverdict-manifest", &["netverdict-policy"]),
    ("netverdict-flowlog", &["netverdict-policy"]),
    ("netverdict-cluster", &["netverdict-manifest", "netverdict-policy"]),
    ("netverdict-service", &[]),
    ("netverdict-probe", &["netverdict-abi", "netverdict-policy"]),
    (
        "netverdict-collector",
        &[
            "netverdict-abi",
            "netverdict-cluster",
            "netverdict-flowlog",
            "netverdict-manifest",
            "netverdict-policy",
            "netverdict-probe",
            "netverdict-service",
        ],
    ),
    ("netverdict-cni", &["netverdict-policy", "netverdict-probe"]),
    ("netverdict-query", &["netverdict-flowlog", "netverdict-manifest", "netverdict-policy", "netverdict-service"]),
    (
        "netverdict",
        &["netverdict-cluster", "netverdict-flowlog", "netverdict-manifest", "netverdict-policy", "netverdict-probe"],
    ),
];

/// Packages that must never be linked into a crate, by any path.
const NEVER_LINKED: &[(&str, &[&str], &str)] = &[
    ("netverdict-policy", &["tokio", "kube", "arrow", "aya", "chrono"], "the engine is pure"),
    ("netverdict-manifest", &["tokio", "kube", "arrow", "aya"], "it reads values, wherever they come from"),
    ("netverdict-cluster", &["arrow", "aya", "datafusion"], "the command line and the collector both link it"),
    ("netverdict-collector", &["datafusion", "sqlparser", "pgwire"], "it runs privileged, so it stays small"),
    ("netverdict-cni", &["arrow", "kube", "reqwest", "clap"], "a kubelet starts it for every pod, so it stays small"),
    ("netverdict-query", &["aya", "kube", "rtnetlink"], "it holds no privilege"),
    ("netverdict-service", &["arrow", "datafusion", "kube", "aya"], "it knows nothing of flows, SQL or Kubernetes"),
    ("xtask", &["arrow", "datafusion", "aya", "tokio"], "a fresh clone builds it first"),
];

#[test]
fn crates_name_only_those_below_them() {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("cargo metadata prints JSON");
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let of_the_house = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string())
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        imports.insert(package["name"].as_str().expect("name").to_owned(), of_the_house.collect());
    }
    for (name, allowed) in MAY_IMPORT {
        let found = imports.remove(*name).unwrap_or_else(|| panic!("there is no crate {name}"));
        let forbidden: Vec<_> = found.iter().filter(|import| !allowed.contains(&import.as_str())).collect();
        assert!(forbidden.is_empty(), "{name} imports {forbidden:?}; it may import {allowed:?}");
    }
    let free: BTreeSet<_> = ["netverdict-tests", "netverdict-benches", "xtask"].map(str::to_owned).into();
    let unknown: Vec<_> = imports.keys().filter(|name| !free.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are new: give them a place in ARCHITECTURE.md, an ADR, and a row here");
}

#[test]
fn what_must_not_be_linked_is_not() {
    for (name, forbidden, why) in NEVER_LINKED {
        let tree = cargo(&["tree", "-p", name, "--prefix", "none", "-e", "normal", "--offline", "--format", "{p}"]);
        let linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert!(linked.contains(name), "cargo tree says nothing of {name}");
        let found: Vec<_> = forbidden.iter().filter(|crate_name| linked.contains(**crate_name)).collect();
        assert!(found.is_empty(), "{name} links {found:?}, but {why}");
    }
}

/// The crates of the workspace and their folders.
pub(crate) fn packages() -> BTreeMap<String, PathBuf> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    packages
        .iter()
        .map(|package| {
            let folder = PathBuf::from(text(&package["manifest_path"])).parent().expect("a folder").to_path_buf();
            (text(&package["name"]), folder)
        })
        .collect()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo starts");
    assert!(output.status.success(), "cargo {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}
