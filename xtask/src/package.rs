//! Packages for hosts without Kubernetes and for the people who ask: Debian packages, the kubectl plugin as an archive, bills of
//! materials, and the checksums of all.
//!
//! The same programs of the same commit make the same bytes.

mod contents;
mod debian;
mod materials;
mod moment;
mod plugin;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use clap::Args;

use self::{contents::PACKAGES, debian::Maker, materials::Materials};
use crate::{
    command::target,
    digest::sha256,
    ebpf, progress,
    sbom::BPF_OBJECT,
    services::{self, Profile},
    setup,
};

const CHECKSUMS: &str = "SHA256SUMS";

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How the programs are built.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub profile: Profile,
    /// Where the packages are written [default: target/package/PROFILE]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Take the programs that are built already.
    #[arg(long)]
    pub no_build: bool,
    /// Where the files will be published. The manifest for krew names the archive there; without it none is written.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Whom the Debian packages name as their maintainer.
    #[arg(long, value_name = "NAME <ADDRESS>", default_value = "Netverdict <netverdict@localhost>")]
    pub maintainer: String,
}

/// Builds the programs and writes the packages.
pub fn run(options: &Options) -> Result<()> {
    let object = ebpf::build()?;
    if !options.no_build {
        services::build(options.profile)?;
    }
    for path in write(options, &object)? {
        let size = fs::metadata(&path)?.len();
        println!("{:>10} kB  {}", size.div_ceil(1_000), path.display());
    }
    if options.url.is_none() {
        println!("no manifest for krew: it names where the archive can be fetched, which --url says");
    }
    Ok(())
}

/// Writes the packages of programs that are built already. Returns the files, the checksums last.
pub fn write(options: &Options, object: &Path) -> Result<Vec<PathBuf>> {
    let Options { profile, out, no_build: _, url, maintainer } = options;
    let out = out.clone().unwrap_or_else(|| target().join("package").join(profile.to_string()));
    fs::create_dir_all(&out).with_context(|| format!("could not make {}", out.display()))?;
    let materials = Materials::gather(profile.folder(), object, maintainer.clone())?;
    let maker = Maker { materials: &materials, dpkg_deb: setup::dpkg_deb()?, compression: "xz", out: &out };
    let packages: Result<Vec<_>> = thread::scope(|scope| {
        // Compression takes most of the time.
        let running: Vec<_> = PACKAGES.iter().map(|recipe| scope.spawn(|| maker.write(recipe))).collect();
        running.into_iter().map(progress::join).collect()
    });
    let mut written = packages?.concat();
    written.extend(plugin::write(&materials, url.as_deref(), &out)?);
    for program in PACKAGES.iter().flat_map(|recipe| recipe.programs).chain([&BPF_OBJECT]) {
        let path = out.join(format!("{program}-{}.cdx.json", materials.version));
        fs::write(&path, materials.inventory.bill(program)?)?;
        written.push(path);
    }
    let sums = out.join(CHECKSUMS);
    fs::write(&sums, checksums(&written)?)?;
    written.push(sums);
    Ok(written)
}

/// In the form of `sha256sum --check`, by names alone: the files lie beside each other.
fn checksums(files: &[PathBuf]) -> Result<String> {
    let mut lines = Vec::new();
    for path in files {
        let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?.to_string_lossy();
        lines.push(format!("{}  {name}\n", sha256(&fs::read(path)?)));
    }
    Ok(lines.concat())
}

#[cfg(test)]
mod tests;
