//! Builds every program and test program of the workspace at once.
//!
//! One command for all, since cargo chooses features by the packages of a command: several commands would compile
//! DataFusion several times.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::{command::cargo, progress};

/// A compiled test program.
#[derive(Debug)]
pub(super) struct TestProgram {
    pub(super) package: String,
    /// The name of the library, program or integration test.
    pub(super) target: String,
    pub(super) executable: PathBuf,
    /// The folder of the package: the working directory of its tests.
    pub(super) folder: PathBuf,
}

pub(super) fn build() -> Result<Vec<TestProgram>> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--bins", "--tests", "--message-format=json-render-diagnostics"]);
    let mut programs = Vec::new();
    progress::cargo(&mut build, |message| programs.extend(test_program(message)))?;
    programs.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(programs)
}

/// Reads cargo's message about a compiled test program; `None` for other messages.
fn test_program(message: &Value) -> Option<TestProgram> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let id = message["package_id"].as_str()?;
    // `path+file:///…/flowlog#netverdict-flowlog@0.1.0`, or `…/xtask#0.1.0` where folder and name agree.
    let package = match id.rsplit('#').next()?.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => folder.file_name()?.to_str()?.to_owned(),
    };
    Some(TestProgram {
        package,
        target: message["target"]["name"].as_str()?.to_owned(),
        executable: message["executable"].as_str()?.into(),
        folder,
    })
}
