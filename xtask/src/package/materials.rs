//! Inputs of packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::moment::Moment;
use crate::{
    command::{output, root},
    sbom::{Inventory, Licences},
    symbols::Symbols,
};

/// The shells that the tool completes its arguments for.
pub(super) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Everything that goes into packages.
pub(super) struct Materials {
    /// The folder of the built programs.
    pub(super) programs: PathBuf,
    pub(super) object: PathBuf,
    pub(super) version: &'static str,
    /// As Debian and as Kubernetes name it: these two agree.
    pub(super) architecture: &'static str,
    pub(super) maintainer: String,
    pub(super) moment: Moment,
    pub(super) inventory: Inventory,
    pub(super) licences: Licences,
    pub(super) symbols: Symbols,
    /// The script of each of [`SHELLS`].
    pub(super) completions: Vec<(&'static str, String)>,
}

impl Materials {
    pub(super) fn gather(programs: PathBuf, object: &Path, maintainer: String) -> Result<Self> {
        let completion = |shell| -> Result<(&'static str, String)> {
            let mut tool = Command::new(programs.join("netverdict"));
            Ok((shell, output(tool.args(["completion", shell]))?))
        };
        let completions = SHELLS.into_iter().map(completion).collect::<Result<_>>()?;
        Self::with_completions(programs, object, maintainer, completions)
    }

    pub(super) fn with_completions(
        programs: PathBuf,
        object: &Path,
        maintainer: String,
        completions: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        ensure!(
            !maintainer.contains('\n') && maintainer.contains(" <") && maintainer.ends_with('>'),
            "--maintainer {maintainer}: expected `Name <address>`"
        );
        Ok(Self {
            programs,
            object: object.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            architecture: match std::env::consts::ARCH {
                "aarch64" => "arm64",
                _ => "amd64",
            },
            maintainer,
            moment: Moment::of_commit()?,
            inventory: Inventory::read()?,
            licences: Licences::read()?,
            symbols: Symbols::tools()?,
            completions,
        })
    }
}

/// A file of the repository.
pub(super) fn repository(name: &str) -> Result<Vec<u8>> {
    let path = root().join(name);
    fs::read(&path).with_context(|| format!("could not read {}", path.display()))
}
