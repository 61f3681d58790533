//! What we link: `deny.toml` holds for both lock files.
//!
//! Advisories come from a database that is a git repository. Where it cannot be had, they are not checked, and that is
//! said where nobody overlooks it; all else is checked without a network.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::command::{output, root, run};

/// Under which name the suite is told where cargo-deny is.
pub(super) const PROGRAM: &str = "cargo-deny";

/// The manifests of the two lock files, and whether `deny.toml` has exceptions for this one alone that the other need not
/// have.
const MANIFESTS: [(&str, bool); 2] = [("Cargo.toml", true), ("probe/ebpf/Cargo.toml", false)];

/// Entries of `deny.toml` that nothing needs any more.
const UNUSED: [&str; 4] =
    ["unmatched-skip", "unnecessary-skip", "license-not-encountered", "license-exception-not-encountered"];

/// Fails if one of the lock files holds what it may not; gives back what could not be checked.
pub(super) fn check(program: &Path) -> Result<Option<String>> {
    let mut failed = Vec::new();
    let database = fetch_advisories(program);
    for (manifest, is_strict) in MANIFESTS {
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
        bail!("what these link is not what deny.toml allows: {}", failed.join(", "));
    }
    Ok(database.err().map(|error| {
        let reason = error.to_string();
        let reason = reason.lines().rev().find(|line| line.contains("fatal")).unwrap_or("no copy is here").trim();
        format!("advisories and yanked crates, since the RustSec database could not be fetched ({reason})")
    }))
}

/// Brings the database up to date. An earlier copy serves too where there is no network: cargo-deny refuses one that is
/// older than 90 days.
fn fetch_advisories(program: &Path) -> Result<()> {
    let mut fetch = Command::new(program);
    fetch.current_dir(root()).args(["fetch", "db"]).env("GIT_TERMINAL_PROMPT", "0");
    match output(&mut fetch) {
        Err(error) if !has_copy() => Err(error),
        _ => Ok(()),
    }
}

/// Whether cargo-deny has fetched the database before, into its usual place.
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
