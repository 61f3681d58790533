//! Bills of materials of the programs in CycloneDX 1.5, and the licences of what is linked into them.
//!
//! They are made from `cargo tree`, which resolves features as the build of the workspace does; the graph of
//! `cargo metadata`, which other tools read, also has what only tests ask for. Nothing in them has a time: the same lock file
//! makes the same bytes.

mod graph;
mod licences;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use self::graph::{Crate, Graph};
pub(crate) use self::licences::Licences;
use crate::{
    command::{cargo, output, root},
    digest::sha256,
};

/// The target of the BPF programs, whose crates are those of a workspace of its own.
const BPF_TARGET: &str = "bpfel-unknown-none";
const BPF_PACKAGE: &str = "netverdict-ebpf";
/// The name under which the BPF object is listed.
pub(crate) const BPF_OBJECT: &str = "netverdict.bpf.o";

/// The crates of both workspaces.
#[derive(Debug)]
pub(crate) struct Inventory {
    programs: Workspace,
    object: Workspace,
}

/// The crates of one lock file.
#[derive(Debug)]
struct Workspace {
    graph: Graph,
    /// SHA-256 of each crate's archive.
    checksums: BTreeMap<Crate, String>,
}

impl Inventory {
    /// # Errors
    /// Cargo cannot read a workspace, or a lock file is not up to date.
    pub(crate) fn read() -> Result<Self> {
        let programs = Workspace::read(&root(), &["--workspace"])?;
        let object = Workspace::read(&root().join("probe/ebpf"), &["--target", BPF_TARGET])?;
        Ok(Self { programs, object })
    }

    /// The bill of a program, or of the BPF object.
    pub(crate) fn bill(&self, program: &str) -> Result<String> {
        let (workspace, package) = self.of(program);
        workspace.bill(program, package)
    }

    /// The texts of the licences of all crates that are linked into these programs.
    pub(crate) fn licences(&self, licences: &Licences, programs: &[&str]) -> Result<String> {
        let mut linked = BTreeMap::new();
        for program in programs {
            let (workspace, package) = self.of(program);
            for found in workspace.graph.linked(workspace.graph.package(package)?) {
                linked.insert(found, workspace.graph.about(found).expression.as_str());
            }
        }
        licences.texts(&linked)
    }

    fn of<'a>(&'a self, program: &'a str) -> (&'a Workspace, &'a str) {
        match program {
            BPF_OBJECT => (&self.object, BPF_PACKAGE),
            "kubectl-verdict" => (&self.programs, "netverdict"),
            name => (&self.programs, name),
        }
    }
}

impl Workspace {
    fn read(folder: &Path, chosen: &[&str]) -> Result<Self> {
        let mut tree = cargo();
        tree.current_dir(folder).args(["tree", "--locked", "--edges", "normal", "--prefix", "depth"]);
        tree.args(["--format", graph::FORMAT]).args(chosen);
        let graph = Graph::read(&output(&mut tree)?)?;
        let lock = folder.join("Cargo.lock");
        let lock = fs::read_to_string(&lock).with_context(|| format!("could not read {}", lock.display()))?;
        Ok(Self { graph, checksums: checksums(&lock) })
    }

    fn bill(&self, program: &str, package: &str) -> Result<String> {
        let root = self.graph.package(package)?;
        let linked = self.graph.linked(root);
        let used = self.graph.used(root);
        let others: Vec<&Crate> = used.iter().copied().filter(|found| *found != root).collect();
        let components: Vec<Value> = others.iter().map(|found| self.component(found, linked.contains(found))).collect();
        let depends = |found: &Crate| -> Value {
            let on: Vec<String> = self.graph.dependencies(found).map(reference).collect();
            json!({ "ref": reference(found), "dependsOn": on })
        };
        let mut bill = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "tools": { "components": [
                    { "type": "application", "name": "netverdict xtask", "version": env!("CARGO_PKG_VERSION") },
                ] },
                "component": {
                    "type": "application",
                    "bom-ref": reference(root),
                    "name": program,
                    "version": root.version,
                    "licenses": [{ "expression": self.graph.about(root).expression }],
                },
            },
            "components": components,
            "dependencies": used.iter().map(|found| depends(found)).collect::<Vec<_>>(),
        });
        bill["serialNumber"] = json!(serial_number(&bill.to_string()));
        Ok(format!("{bill:#}\n"))
    }

    /// `is_linked`: its code is in the program. Macros and what they are made of ran when it was compiled.
    fn component(&self, found: &Crate, is_linked: bool) -> Value {
        let about = self.graph.about(found);
        let mut component = json!({
            "type": "library",
            "bom-ref": reference(found),
            "name": found.name,
            "version": found.version,
            "scope": if is_linked { "required" } else { "excluded" },
            "licenses": [match about.expression.is_empty() {
                true => json!({ "license": { "name": "see its licence file" } }),
                false => json!({ "expression": about.expression }),
            }],
        });
        // A crate of our own is in no registry: another's of the same name would be taken for it.
        if let Some(checksum) = self.checksums.get(found) {
            component["purl"] = json!(purl(found));
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        if about.repository.starts_with("http") {
            component["externalReferences"] = json!([{ "type": "vcs", "url": about.repository }]);
        }
        component
    }
}

/// Names a crate inside a bill.
fn reference(Crate { name, version }: &Crate) -> String {
    format!("{name}@{version}")
}

fn purl(Crate { name, version }: &Crate) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// Of the content, in the form of a UUID of version 8, so that a bill that says something else has another number.
fn serial_number(content: &str) -> String {
    let digest = sha256(content.as_bytes());
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        &digest[..8],
        &digest[8..12],
        &digest[13..16],
        &digest[17..20],
        &digest[20..32]
    )
}

/// The checksum of each crate in the text of a lock file.
fn checksums(lock: &str) -> BTreeMap<Crate, String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) = (value("name"), value("version"), value("checksum")) {
            found.insert(Crate { name, version }, checksum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_bill_has_what_its_format_asks_for_and_every_reference_leads_somewhere() {
        let inventory = Inventory::read().unwrap();
        for program in ["netverdict-collector", "netverdict-query", "netverdict-cni", "kubectl-verdict", BPF_OBJECT] {
            let text = inventory.bill(program).unwrap();
            assert_eq!(inventory.bill(program).unwrap(), text);
            let bill: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&json!("CycloneDX"), &json!("1.5")), "{program}");
            assert_eq!(bill["metadata"]["component"]["name"], program);
            let serial = bill["serialNumber"].as_str().unwrap();
            assert_eq!(serial.len(), "urn:uuid:".len() + 36, "{serial}");
            let components = bill["components"].as_array().unwrap();
            let mut references: BTreeSet<&str> =
                components.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect();
            assert_eq!(references.len(), components.len(), "{program}: a component is there twice");
            references.insert(bill["metadata"]["component"]["bom-ref"].as_str().unwrap());
            for component in components {
                assert!(component["licenses"][0]["expression"] != "", "{component}");
                let in_registry = component["purl"].is_string() && component["hashes"].is_array();
                assert!(in_registry || component["name"].as_str().unwrap().starts_with("netverdict"), "{component}");
            }
            for dependency in bill["dependencies"].as_array().unwrap() {
                let named = dependency["dependsOn"].as_array().unwrap().iter().chain([&dependency["ref"]]);
                for reference in named {
                    assert!(references.contains(reference.as_str().unwrap()), "{program}: {reference} is not listed");
                }
            }
        }
    }

    #[test]
    fn a_bill_lists_what_is_linked_and_nothing_else() {
        let inventory = Inventory::read().unwrap();
        let linked = |program: &str, name: &str| {
            let bill: Value = serde_json::from_str(&inventory.bill(program).unwrap()).unwrap();
            let components = bill["components"].as_array().unwrap();
            components.iter().any(|component| component["name"] == name && component["scope"] == "required")
        };
        assert!(linked("netverdict-query", "datafusion") && !linked("netverdict-collector", "datafusion"));
        assert!(linked("netverdict-collector", "aya") && !linked("netverdict-query", "aya"));
        assert!(linked(BPF_OBJECT, "aya-ebpf"));
        // Of tests only, and a macro.
        assert!(!linked("netverdict-collector", "proptest") && !linked("netverdict-collector", "serde_derive"));
    }

    #[test]
    fn every_crate_of_a_program_has_a_text_or_is_named_as_one_without() {
        let inventory = Inventory::read().unwrap();
        let programs = ["netverdict-cni", BPF_OBJECT];
        let licences = Licences::read().unwrap();
        let page = inventory.licences(&licences, &programs).unwrap();
        for name in ["aya 0.14", "serde 1.", "aya-ebpf 0."] {
            assert!(page.contains(&format!("\n{name}")), "{name} is not in:\n{page}");
        }
        assert!(!page.contains("\nnetverdict"), "our own licence is apart");
        assert_eq!(inventory.licences(&licences, &programs).unwrap(), page);
    }

    #[test]
    fn a_version_with_a_plus_sign_is_written_as_package_urls_have_it() {
        let found = Crate { name: "zstd-sys".to_owned(), version: "2.0.16+zstd.1.5.7".to_owned() };
        assert_eq!(purl(&found), "pkg:cargo/zstd-sys@2.0.16%2Bzstd.1.5.7");
    }

    #[test]
    fn checksums_are_read_from_a_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"a\"\nversion = \
                    \"1.0.0\"\nsource = \"registry\"\nchecksum = \"00ff\"\ndependencies = [\n \"own\",\n]\n";
        let a = Crate { name: "a".to_owned(), version: "1.0.0".to_owned() };
        assert_eq!(checksums(lock), [(a, "00ff".to_owned())].into());
    }
}
