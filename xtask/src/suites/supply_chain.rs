//! Checks both lock files against `deny.toml`: licences, sources, banned and duplicated crates, advisories.
//!
//! Advisories come from a git repository. If it cannot be fetched and there is no copy, they are not checked, and the
//! summary says so. The other checks need every crate of the lock files, those of other platforms too: they are fetched.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::command::{cargo, output, quietly, root, run};

/// The key of cargo-deny's path among what was prepared.
pub(super) const PROGRAM: &str = "cargo-deny";

/// The manifests of the two lock files, and whether an unused entry of `deny.toml` is an error. The BPF programs use few of
/// the entries.
const MANIFESTS: [(&str, bool); 2] = [("Cargo.toml", true), ("probe/ebpf/Cargo.toml", false)];

/// The lints for entries that nothing needs any more.
const UNUSED: [&str; 4] =
    ["unmatched-skip", "unnecessary-skip", "license-not-encountered", "license-exception-not-encountered"];

/// Fails if a lock file violates `deny.toml`. Returns what could not be checked.
pub(super) fn check(program: &Path) -> Result<Option<String>> {
    let mut failed = Vec::new();
    let database = fetch_advisories(program);
    for (manifest, is_strict) in MANIFESTS {
        // Builds fetch what this platform needs. Without a network they may all be here already.
        let _ = quietly(cargo().args(["fetch", "--locked", "--manifest-path", manifest]));
        let mut command = deny(program, manifest);
        command.arg("check");
        for lint in UNUSED {
            command.args([if is_strict { "--deny" } else { "--allow" }, lint]);
        }
        command.args(["bans", "licenses", "sources"]);
        if database.is_ok() {
            command.arg("advisories");
        }
        if run(&mut command).is_err() {
            failed.push(manifest);
        }
    }
    if !failed.is_empty() {
        bail!("deny.toml does not allow what is in the lock files of {}; see above for each crate", failed.join(", "));
    }
    Ok(database.err().map(|error| {
        let reason = error.to_string();
        let reason = reason.lines().rev().find(|line| line.contains("fatal")).unwrap_or("no copy is here").trim();
        format!("advisories and yanked crates, since the RustSec database could not be fetched ({reason})")
    }))
}

/// Updates the database. An earlier copy is used if there is no network; cargo-deny refuses one older than 90 days.
fn fetch_advisories(program: &Path) -> Result<()> {
    let mut fetch = Command::new(program);
    fetch.current_dir(root()).args(["fetch", "db"]).env("GIT_TERMINAL_PROMPT", "0");
    match output(&mut fetch) {
        Err(error) if !has_copy() => Err(error),
        _ => Ok(()),
    }
}

/// Whether cargo-deny has fetched the database before, into its default folder.
fn has_copy() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let folders = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    folders.into_iter().flatten().flatten().any(|folder| folder.path().join(".git").exists())
}

fn deny(program: &Path, manifest: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command.args(["--config", "deny.toml", "--manifest-path", manifest, "--locked", "--offline"]);
    command
}
