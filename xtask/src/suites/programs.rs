//! Builds every program and test program of the workspace at once.
//!
//! One command, for one set of features: choosing packages one by one would build DataFusion anew for each choice.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::{command::cargo, progress};

/// A program with tests in it.
#[derive(Debug)]
pub(super) struct TestProgram {
    pub(super) package: String,
    /// The library's, program's or test's name.
    pub(super) target: String,
    pub(super) executable: PathBuf,
    /// The package's folder: where its tests expect to run.
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

/// What cargo says of a test program that it has built; `None` for all else that it says.
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
