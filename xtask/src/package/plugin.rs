//! The kubectl plugin as an archive, and the manifest by which krew installs it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::materials::{Materials, repository};
use crate::{
    digest::sha256,
    gzip::gzip,
    image::{Layer, read},
};

const PROGRAM: &str = "kubectl-verdict";
const COMPLETION: &str = "kubectl_complete-verdict";
const TEMPLATE: &str = "deploy/krew/verdict.yaml";
/// krew asks that the file has the plugin's name.
const MANIFEST: &str = "verdict.yaml";

/// Writes the archive, and the manifest if it is known where the archive will be.
pub(super) fn write(materials: &Materials, url: Option<&str>, out: &Path) -> Result<Vec<PathBuf>> {
    let Materials { version, architecture, .. } = materials;
    let name = format!("{PROGRAM}_{version}_linux_{architecture}.tar.gz");
    let archive = archive(materials, out)?;
    let path = out.join(&name);
    fs::write(&path, &archive).with_context(|| format!("could not write {}", path.display()))?;
    let mut written = vec![path];
    if let Some(url) = url {
        let template = String::from_utf8(repository(TEMPLATE)?)?;
        let filled =
            manifest(&template, &Release { version, architecture, url, archive: &name, sha256: &sha256(&archive) })?;
        let path = out.join(MANIFEST);
        fs::write(&path, filled)?;
        written.push(path);
    }
    Ok(written)
}

fn archive(materials: &Materials, out: &Path) -> Result<Vec<u8>> {
    let stripped = out.join(format!("{PROGRAM}.stripped"));
    materials.symbols.strip(&materials.programs.join(PROGRAM), &stripped)?;
    let program = read(&stripped)?;
    fs::remove_file(&stripped)?;
    let mut files = Layer::new();
    files.file(PROGRAM, 0o755, &program)?;
    files.file(COMPLETION, 0o755, &repository(&format!("deploy/kubectl/{COMPLETION}"))?)?;
    files.file("LICENSE", 0o644, &repository("LICENSE")?)?;
    files.file("NOTICE", 0o644, &repository("NOTICE")?)?;
    let licences = materials.inventory.licences(&materials.licences, &[PROGRAM])?;
    files.file("third-party.txt", 0o644, licences.as_bytes())?;
    files.file(&format!("{PROGRAM}.cdx.json"), 0o644, materials.inventory.bill(PROGRAM)?.as_bytes())?;
    gzip(&files.end()?, 9)
}

/// One release, in the manifest.
pub(super) struct Release<'a> {
    pub(super) version: &'a str,
    pub(super) architecture: &'a str,
    /// The folder of the archive.
    pub(super) url: &'a str,
    /// Its name there.
    pub(super) archive: &'a str,
    pub(super) sha256: &'a str,
}

/// The template with everything between `@` filled in, and without its comments.
pub(super) fn manifest(template: &str, release: &Release<'_>) -> Result<String> {
    let Release { version, architecture, url, archive, sha256 } = *release;
    // Within quotes of YAML, and in a line of its own.
    let is_plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\' | '@');
    ensure!(
        url.starts_with("https://") && url.chars().all(is_plain),
        "--url {url}: expected the https:// address of a folder"
    );
    let mut text = String::new();
    for line in template.lines().filter(|line| !line.starts_with('#')) {
        text.push_str(line);
        text.push('\n');
    }
    let values = [
        ("@VERSION@", version),
        ("@ARCHITECTURE@", architecture),
        ("@URL@", url.trim_end_matches('/')),
        ("@ARCHIVE@", archive),
        ("@SHA256@", sha256),
    ];
    for (name, value) in values {
        ensure!(text.contains(name), "{TEMPLATE} does not have {name}");
        text = text.replace(name, value);
    }
    Ok(text)
}
