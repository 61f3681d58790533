//! Writes a Debian package, and a second one with what debuggers want of its programs.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    contents::{File, Recipe, Source},
    materials::{Materials, repository},
    moment,
    tree::Tree,
};
use crate::{
    command::{output, quietly},
    gzip::gzip,
    progress::Running,
    sbom::BPF_OBJECT,
};

const READABLE: u32 = 0o644;
const EXECUTABLE: u32 = 0o755;
/// Where debuggers look.
const DEBUG: &str = "usr/lib/debug";

pub(super) struct Maker<'a> {
    pub(super) materials: &'a Materials,
    pub(super) dpkg_deb: PathBuf,
    /// Of dpkg-deb's kinds.
    pub(super) compression: &'static str,
    pub(super) out: &'a Path,
}

impl Maker<'_> {
    /// The package, and the one of its symbols if the programs were built with them apart.
    pub(super) fn write(&self, recipe: &Recipe) -> Result<Vec<PathBuf>> {
        let _running = Running::start(format!("packing {}", recipe.name));
        let mut written = vec![self.write_package(recipe)?];
        written.extend(self.write_symbols(recipe)?);
        Ok(written)
    }

    fn write_package(&self, recipe: &Recipe) -> Result<PathBuf> {
        let Recipe { name, summary, description, section, depends, recommends, programs, files, folders, scripts } =
            recipe;
        let materials = self.materials;
        let mut tree = Tree::new(self.out.join("staging").join(name))?;
        let mut glibc = 0;
        for program in *programs {
            let built = materials.programs.join(program);
            glibc = glibc.max(materials.symbols.oldest_glibc(&built)?);
            tree.add_written(&format!("usr/bin/{program}"), EXECUTABLE, |to| materials.symbols.strip(&built, to))?;
        }
        let mut described: Vec<&str> = programs.to_vec();
        for File { source, path } in *files {
            let (mode, contents) = match source {
                Source::Repository(file) => (READABLE, repository(file)?),
                Source::Script(file) => (EXECUTABLE, repository(file)?),
                Source::Completion(shell) => (READABLE, self.completion(shell)?),
                Source::BpfObject => {
                    described.push(BPF_OBJECT);
                    (READABLE, crate::image::read(&materials.object)?)
                }
            };
            tree.add(path, mode, &contents)?;
        }
        for folder in *folders {
            tree.add_folder(folder)?;
        }
        self.document(&mut tree, name, &described)?;
        for script in *scripts {
            let text = String::from_utf8(repository(&format!("deploy/debian/{name}.{script}"))?)?;
            tree.describe(script, EXECUTABLE, &text)?;
        }
        let settings: String =
            tree.files().iter().filter(|file| file.starts_with("etc/")).map(|file| format!("/{file}\n")).collect();
        if !settings.is_empty() {
            tree.describe("conffiles", READABLE, &settings)?;
        }
        let libraries = [format!("libc6 (>= 2.{glibc})"), "libgcc-s1".to_owned()];
        let depends = libraries.into_iter().chain(depends.iter().map(|on| self.with_version(on)));
        let mut fields = vec![("Depends", depends.collect::<Vec<_>>().join(", "))];
        if !recommends.is_empty() {
            let recommends: Vec<_> = recommends.iter().map(|on| self.with_version(on)).collect();
            fields.push(("Recommends", recommends.join(", ")));
        }
        fields.extend([("Section", (*section).to_owned()), ("Priority", "optional".to_owned())]);
        fields.push(("Description", format!("{summary}\n {}", description.join("\n "))));
        self.build(tree, name, fields)
    }

    /// Licences, what is linked into the programs, and the changelog that policy asks for.
    fn document(&self, tree: &mut Tree, package: &str, programs: &[&str]) -> Result<()> {
        let Materials { version, maintainer, moment, inventory, licences, .. } = self.materials;
        let folder = format!("usr/share/doc/{package}");
        tree.add(&format!("{folder}/copyright"), READABLE, &repository("deploy/debian/copyright")?)?;
        tree.add(&format!("{folder}/NOTICE"), READABLE, &repository("NOTICE")?)?;
        let licences = inventory.licences(licences, programs)?;
        tree.add(&format!("{folder}/third-party.txt.gz"), READABLE, &gzip(licences.as_bytes(), 9)?)?;
        for program in programs {
            let bill = inventory.bill(program)?;
            tree.add(&format!("{folder}/{program}.cdx.json"), READABLE, bill.as_bytes())?;
        }
        let changelog = format!(
            "{package} ({version}) unstable; urgency=medium\n\n  * Made from the source of this version.\n\n -- {maintainer}  {}\n",
            moment.written_out()?
        );
        tree.add(&format!("{folder}/changelog.gz"), READABLE, &gzip(changelog.as_bytes(), 9)?)
    }

    /// `None` if no program has its debug information apart, as in the profile `dev`.
    fn write_symbols(&self, recipe: &Recipe) -> Result<Option<PathBuf>> {
        let Materials { programs, symbols, version, .. } = self.materials;
        let name = format!("{}-dbgsym", recipe.name);
        let mut tree = Tree::new(self.out.join("staging").join(&name))?;
        let mut ids = Vec::new();
        for program in recipe.programs {
            let built = programs.join(program);
            let package = programs.join(format!("{program}.dwp"));
            if !package.is_file() {
                continue;
            }
            let id = symbols.build_id(&built)?;
            let (folder, rest) = id.split_at_checked(2).context("a build id is longer than two digits")?;
            tree.add_written(&format!("{DEBUG}/.build-id/{folder}/{rest}.debug"), READABLE, |to| {
                symbols.keep_debug(&built, to)
            })?;
            tree.add_written(&format!("{DEBUG}/{program}.dwp"), READABLE, |to| {
                std::fs::copy(&package, to).map(drop).with_context(|| format!("could not copy {}", package.display()))
            })?;
            ids.push(id);
        }
        if ids.is_empty() {
            return Ok(None);
        }
        let fields = vec![
            ("Depends", format!("{} (= {version})", recipe.name)),
            ("Section", "debug".to_owned()),
            ("Priority", "optional".to_owned()),
            ("Auto-Built-Package", "debug-symbols".to_owned()),
            ("Build-Ids", ids.join(" ")),
            ("Description", format!("debug symbols for {}", recipe.name)),
        ];
        self.build(tree, &name, fields).map(Some)
    }

    fn build(&self, mut tree: Tree, name: &str, fields: Vec<(&str, String)>) -> Result<PathBuf> {
        let Materials { version, architecture, maintainer, moment, .. } = self.materials;
        let mut sums = Command::new("md5sum");
        sums.current_dir(tree.root()).arg("--").args(tree.files());
        let sums = output(&mut sums)?;
        tree.describe("md5sums", READABLE, &sums)?;
        let mut control = String::new();
        let first = [("Package", name), ("Version", version), ("Architecture", architecture)].map(own);
        let size = ("Installed-Size", tree.kibibytes().to_string());
        for (field, value) in first.into_iter().chain([("Maintainer", maintainer.clone()), size]).chain(fields) {
            let _ = writeln!(control, "{field}: {value}");
        }
        tree.describe("control", READABLE, &control)?;
        let package = self.out.join(format!("{name}_{version}_{architecture}.deb"));
        let mut dpkg_deb = Command::new(&self.dpkg_deb);
        // Times of files are those of the source, unless they are older.
        dpkg_deb.env(moment::VARIABLE, moment.0.to_string());
        dpkg_deb.args(["--build", "--root-owner-group", &format!("-Z{}", self.compression)]);
        quietly(dpkg_deb.arg(tree.root()).arg(&package))?;
        Ok(package)
    }

    fn completion(&self, shell: &str) -> Result<Vec<u8>> {
        let found = self.materials.completions.iter().find(|(name, _)| *name == shell);
        Ok(found.with_context(|| format!("no completion for {shell} was made"))?.1.clone().into_bytes())
    }

    fn with_version(&self, package: &str) -> String {
        package.replace("(= =)", &format!("(= {})", self.materials.version))
    }
}

fn own<'a>((field, value): (&'a str, &str)) -> (&'a str, String) {
    (field, value.to_owned())
}
