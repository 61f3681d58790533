use std::{
    collections::BTreeSet,
    io::Write as _,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use super::{
    contents::{File, Source},
    materials::SHELLS,
    plugin::Release,
    *,
};
use crate::command::{output, root, which};

/// Programs that the product's are stood in for by, and a folder for the packages; removed on drop.
struct Stage {
    folder: PathBuf,
    materials: Materials,
}

impl Stage {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("netverdict-package-{name}-{}", std::process::id()));
        let programs = folder.join("programs");
        fs::create_dir_all(&programs).unwrap();
        for program in PACKAGES.iter().flat_map(|recipe| recipe.programs) {
            symlink(std::env::current_exe().unwrap(), programs.join(program)).unwrap();
        }
        fs::write(programs.join("netverdict-query.dwp"), "symbols").unwrap();
        let object = folder.join("object");
        fs::write(&object, "object").unwrap();
        let completions = SHELLS.map(|shell| (shell, format!("# for {shell}\n"))).to_vec();
        let maintainer = "Somebody <somebody@example.com>".to_owned();
        let materials = Materials::with_completions(programs, &object, maintainer, completions).unwrap();
        Self { folder, materials }
    }

    /// All Debian packages, in a folder of this name.
    fn packages(&self, dpkg_deb: &Path, name: &str) -> Vec<PathBuf> {
        let out = self.folder.join(name);
        fs::create_dir_all(&out).unwrap();
        let maker = Maker { materials: &self.materials, dpkg_deb: dpkg_deb.to_owned(), compression: "none", out: &out };
        PACKAGES.iter().flat_map(|recipe| maker.write(recipe).unwrap()).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// A program that not every machine has. CI has it; elsewhere it is said that nothing is checked, and not to the test's own
/// output, which is shown only when it fails.
fn tool(name: &str) -> Option<PathBuf> {
    let found = which(name);
    if found.is_none() {
        let missing = format!("NOT CHECKED: `{name}` is missing; `cargo xtask setup` installs it on Debian");
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        writeln!(std::io::stderr(), "{missing}").unwrap();
    }
    found
}

fn shown(package: &Path, what: &str) -> String {
    output(Command::new("dpkg-deb").arg(what).arg(package)).unwrap()
}

#[test]
fn debian_packages_hold_what_the_documentation_says() {
    let Some(dpkg_deb) = tool("dpkg-deb") else { return };
    let stage = Stage::new("contents");
    let packages = stage.packages(&dpkg_deb, "once");
    let mut listed = String::new();
    for package in &packages {
        let name = package.file_name().unwrap().to_string_lossy();
        listed.push_str(name.split('_').next().unwrap());
        listed.push('\n');
        for line in shown(package, "--contents").lines() {
            let mut words = line.split_whitespace();
            let (mode, owner, path) = (words.next().unwrap(), words.next().unwrap(), words.next_back().unwrap());
            assert_eq!(owner, "root/root", "{line}");
            let path = path.trim_start_matches('.');
            // Folders of the system say nothing, and a build id is of this very program.
            if !path.ends_with('/') || path.starts_with("/etc/netverdict/m") {
                let path = path.split_once("/.build-id/").map_or(path.to_owned(), |(folder, _)| format!("{folder}/…"));
                listed.push_str(&format!("{mode} {path}\n"));
            }
        }
    }
    assert_eq!(listed, include_str!("contents.txt"));
}

#[test]
fn the_same_programs_make_the_same_packages() {
    let Some(dpkg_deb) = tool("dpkg-deb") else { return };
    let stage = Stage::new("twice");
    let made = ["once", "twice"].map(|name| checksums(&stage.packages(&dpkg_deb, name)).unwrap());
    assert_eq!(made[0], made[1]);
    assert!(!stage.folder.join("once/staging").exists(), "what packages are made of is not left behind");
}

#[test]
fn a_package_depends_on_what_it_cannot_do_without() {
    let Some(dpkg_deb) = tool("dpkg-deb") else { return };
    let stage = Stage::new("fields");
    let packages = stage.packages(&dpkg_deb, "once");
    let fields = |name: &str| {
        let of_package = format!("{name}_");
        let package = packages.iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&of_package));
        shown(package.unwrap_or_else(|| panic!("no package {name}")), "--field")
    };
    let collector = fields("netverdict-collector");
    // Its removal detaches, which is the tool's.
    for part in ["Depends: libc6 (>= 2.", "netverdict (= 0.", "systemd (>= 250)", "Maintainer: Somebody"] {
        assert!(collector.contains(part), "{part} is not in:\n{collector}");
    }
    let symbols = fields("netverdict-query-dbgsym");
    assert!(symbols.contains("Depends: netverdict-query (= 0.") && symbols.contains("Build-Ids: "), "{symbols}");
    assert_eq!(packages.len(), 4, "only one program has its symbols apart: {packages:?}");
}

#[test]
fn scripts_are_understood_by_a_shell() {
    for recipe in &PACKAGES {
        for script in recipe.scripts {
            let path = root().join(format!("deploy/debian/{}.{script}", recipe.name));
            output(Command::new("sh").arg("-n").arg(path)).unwrap();
        }
    }
    for File { source, .. } in PACKAGES.iter().flat_map(|recipe| recipe.files) {
        if let Source::Script(script) = source {
            output(Command::new("bash").arg("-n").arg(root().join(script))).unwrap();
        }
    }
}

#[test]
fn checksums_are_those_that_sha256sum_checks() {
    let stage = Stage::new("sums");
    let files = [stage.materials.object.clone()];
    let sums = stage.folder.join(CHECKSUMS);
    fs::write(&sums, checksums(&files).unwrap()).unwrap();
    let mut check = Command::new("sha256sum");
    check.current_dir(&stage.folder).args(["--check", "--strict", CHECKSUMS]).stdin(Stdio::null());
    assert_eq!(output(&mut check).unwrap(), "object: OK\n");
}

const RELEASE: Release<'_> = Release {
    version: "0.1.0",
    architecture: "amd64",
    url: "https://example.com/releases/v0.1.0/",
    archive: "kubectl-verdict_0.1.0_linux_amd64.tar.gz",
    sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
};

fn template() -> String {
    fs::read_to_string(root().join("deploy/krew/verdict.yaml")).unwrap()
}

/// As krew checks it: <https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/>.
#[test]
fn a_manifest_for_krew_has_what_krew_asks_for() {
    let manifest = plugin::manifest(&template(), &RELEASE).unwrap();
    let value = |key: &str| {
        let line = manifest.lines().find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {key} in:\n{manifest}")).trim_matches('"').to_owned()
    };
    assert_eq!(value("apiVersion"), "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(value("kind"), "Plugin");
    assert_eq!(value("name"), "verdict", "the name of the file, which is what is typed after kubectl");
    assert_eq!(value("version"), "v0.1.0");
    assert!(!value("shortDescription").is_empty() && value("shortDescription").len() <= 50);
    assert_eq!(value("matchLabels"), "{os: linux, arch: \"amd64\"}");
    assert_eq!(value("uri"), "https://example.com/releases/v0.1.0/kubectl-verdict_0.1.0_linux_amd64.tar.gz");
    assert_eq!(value("sha256"), RELEASE.sha256);
    assert_eq!(value("bin"), "kubectl-verdict");
    assert!(manifest.contains("- {from: kubectl-verdict, to: .}") && manifest.contains("- {from: LICENSE, to: .}"));
    assert!(!manifest.contains('@') && !manifest.contains('#'), "{manifest}");
}

#[test]
fn an_address_that_would_break_out_of_the_manifest_is_refused() {
    for url in ["http://example.com", "https://example.com/\"\nkind: Other", "https://example.com/a b", "releases"] {
        let error = plugin::manifest(&template(), &Release { url, ..RELEASE }).unwrap_err().to_string();
        assert!(error.contains("--url"), "{error}");
    }
}

#[test]
fn the_archive_holds_every_file_that_the_manifest_installs() {
    let stage = Stage::new("plugin");
    let written = plugin::write(&stage.materials, Some(RELEASE.url), &stage.folder).unwrap();
    let [archive, manifest] = written.as_slice() else { panic!("{written:?}") };
    let listed = output(Command::new("tar").arg("-tzf").arg(archive)).unwrap();
    let manifest = fs::read_to_string(manifest).unwrap();
    let installed: Vec<&str> = manifest.split("{from: ").skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
    assert!(installed.len() >= 3, "{manifest}");
    for file in installed {
        assert!(listed.lines().any(|name| name == file), "{file} is not in the archive:\n{listed}");
    }
    assert!(manifest.contains(&sha256(&fs::read(archive).unwrap())));
    let again = plugin::write(&stage.materials, None, &stage.folder).unwrap();
    assert_eq!(again, std::slice::from_ref(archive), "without an address there is no manifest");
    assert!(manifest.contains(&sha256(&fs::read(archive).unwrap())), "the same programs make the same archive");
}

/// Exposure is what `systemd-analyze security` sums up, from 0 to 10.
#[test]
fn units_are_confined() {
    let Some(systemd_analyze) = tool("systemd-analyze") else { return };
    for (unit, most) in [("netverdict-query.service", 1.5), ("netverdict-collector.service", 3.5)] {
        let mut analyze = Command::new(&systemd_analyze);
        analyze.current_dir(root().join("deploy/systemd")).env("LC_ALL", "C").env("SYSTEMD_EMOJI", "0");
        let report = output(analyze.args(["security", "--offline=true", "--no-pager", unit])).unwrap();
        let level = report.lines().find_map(|line| line.split_once("Overall exposure level for ")?.1.split_once(": "));
        let level: f64 = level.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).expect("a level");
        assert!(level <= most, "{unit}: exposure {level}, at most {most}:\n{report}");
    }
}

#[test]
fn units_and_settings_name_options_that_exist() {
    for (service, crates) in [("collector", ["collector", "service"]), ("query", ["query", "service"])] {
        let known: BTreeSet<String> =
            crates.iter().flat_map(|name| variables(&root().join(name).join("src"))).collect();
        assert!(known.len() > 15, "only {known:?} were found in {crates:?}");
        for file in [format!("{service}.env"), format!("netverdict-{service}.service")] {
            let text = fs::read_to_string(root().join("deploy/systemd").join(&file)).unwrap();
            let named: BTreeSet<String> = text.lines().filter_map(setting).collect();
            assert!(!named.is_empty(), "{file} sets nothing");
            for name in named {
                assert!(known.contains(&name), "{file} sets {name}, which no option of the {service} reads");
            }
        }
    }
}

/// The variable that a line of settings or of a unit sets, commented out or not.
fn setting(line: &str) -> Option<String> {
    let line = line.trim_start_matches('#').trim_start_matches("Environment=");
    line.split_once('=').map(|(name, _)| name.to_owned()).filter(|name| name.starts_with("NETVERDICT_"))
}

/// The variables of the options that are declared in the files below a folder.
fn variables(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(variables(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let declared = text.split("env = ").skip(1).filter_map(|rest| rest.split('"').nth(1).map(str::to_owned));
            found.extend(declared.filter(|name| name.starts_with("NETVERDICT_")));
        }
    }
    found
}
