//! The texts of licences, which go with the programs that the crates are linked into.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::graph::Crate;
use crate::command::{cargo, output, root};

/// How the names of such files begin, in capitals.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// Where the source of each crate is. Those of the workspaces are left out: their licence is the repository's.
#[derive(Debug)]
pub(crate) struct Licences {
    folders: BTreeMap<Crate, PathBuf>,
}

impl Licences {
    /// # Errors
    /// Cargo cannot read a workspace, or a crate cannot be fetched.
    pub(crate) fn read() -> Result<Self> {
        let mut folders = BTreeMap::new();
        for manifest in ["Cargo.toml", "probe/ebpf/Cargo.toml"] {
            let mut metadata = cargo();
            metadata.args(["metadata", "--format-version=1", "--locked", "--filter-platform", &host()?]);
            let metadata = output(metadata.arg("--manifest-path").arg(root().join(manifest)))?;
            let metadata: Value = serde_json::from_str(&metadata).context("`cargo metadata` did not print JSON")?;
            for package in metadata["packages"].as_array().into_iter().flatten() {
                let text = |key: &str| package[key].as_str().unwrap_or_default();
                if package["source"].is_string()
                    && let Some(folder) = Path::new(text("manifest_path")).parent()
                {
                    let this = Crate { name: text("name").to_owned(), version: text("version").to_owned() };
                    folders.insert(this, folder.to_owned());
                }
            }
        }
        Ok(Self { folders })
    }

    /// Each text once, below the crates that it comes with. `crates`: with the SPDX expression of each.
    pub(super) fn texts(&self, crates: &BTreeMap<&Crate, &str>) -> Result<String> {
        let mut of_text: BTreeMap<String, BTreeSet<&Crate>> = BTreeMap::new();
        let mut page = String::from("Crates that are linked into these programs, and the texts of their licences.\n");
        for (found, expression) in crates {
            let Some(folder) = self.folders.get(*found) else { continue };
            let texts = in_folder(folder)?;
            if texts.is_empty() {
                let _ = write!(page, "\n{} {} comes without a text: {expression}\n", found.name, found.version);
            }
            for text in texts {
                of_text.entry(text).or_default().insert(found);
            }
        }
        let mut texts: Vec<_> = of_text.into_iter().map(|(text, crates)| (crates, text)).collect();
        texts.sort();
        for (crates, text) in texts {
            let names: Vec<String> = crates.iter().map(|found| format!("{} {}", found.name, found.version)).collect();
            let _ = write!(page, "\n{}\n{}\n\n{}\n", "=".repeat(80), names.join("\n"), text.trim_end());
        }
        Ok(page)
    }
}

/// The platform of this machine: crates for others are not fetched.
fn host() -> Result<String> {
    let version = output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

/// In the order of their names.
fn in_folder(folder: &Path) -> Result<Vec<String>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if NAMES.iter().any(|begin| name.starts_with(begin)) && path.is_file() {
            let text = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
            texts.insert(name, String::from_utf8_lossy(&text).replace("\r\n", "\n"));
        }
    }
    Ok(texts.into_values().collect())
}
