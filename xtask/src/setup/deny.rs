//! cargo-deny, in a pinned version, built into `target/tools`.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    command::{cargo, output, quietly, tools},
    progress::Running,
};

const VERSION: &str = "0.20.2";

/// The program. It is built if it is not there.
pub fn cargo_deny() -> Result<PathBuf> {
    if let Some(found) = found() {
        return Ok(found);
    }
    let folder = folder();
    let _running = Running::start(format!("building cargo-deny {VERSION} into {}", folder.display()));
    let build = folder.join("build");
    let built = quietly(
        cargo()
            // Unoptimised: it runs for seconds, and a release build would take ten times as long as that saves.
            .args(["install", "cargo-deny", "--locked", "--debug", "--version", VERSION, "--root"])
            .arg(&folder)
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("CARGO_PROFILE_DEV_INCREMENTAL", "false")
            .env("CARGO_PROFILE_DEV_CODEGEN_UNITS", "4"),
    );
    // Only the program is of use afterwards.
    std::fs::remove_dir_all(build).ok();
    built.context("cargo-deny could not be built")?;
    found().context("cargo-deny was built but does not start")
}

/// The program, if it is there in the pinned version.
pub(super) fn found() -> Option<PathBuf> {
    let program = folder().join("bin/cargo-deny");
    let version = output(Command::new(&program).arg("--version")).ok()?;
    version.trim().ends_with(VERSION).then_some(program)
}

fn folder() -> PathBuf {
    tools().join("cargo-deny")
}
