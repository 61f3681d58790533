//! The crates of a workspace as `cargo tree` prints them, each once with what it depends on.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

/// Package, licence and repository. None of them has a tabulator.
pub(super) const FORMAT: &str = "{p}\t{l}\t{r}";
/// Behind a package whose dependencies were printed before.
const SEEN: &str = " (*)";
const MACRO: &str = "(proc-macro)";

/// A package in one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Fields of its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// An SPDX expression; empty if it has a file only.
    pub(super) expression: String,
    pub(super) repository: String,
    is_macro: bool,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    crates: BTreeMap<Crate, (About, BTreeSet<Crate>)>,
}

impl Graph {
    /// Reads `cargo tree --prefix depth --format FORMAT`.
    pub(super) fn read(tree: &str) -> Result<Self> {
        let mut graph = Self::default();
        let mut path: Vec<Crate> = Vec::new();
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let (depth, found, about) = read_line(line).with_context(|| format!("cargo tree printed `{line}`"))?;
            if depth > path.len() {
                bail!("cargo tree printed `{line}` at depth {depth}, below depth {}", path.len());
            }
            path.truncate(depth);
            if let Some(parent) = path.last()
                && let Some((_, dependencies)) = graph.crates.get_mut(parent)
            {
                dependencies.insert(found.clone());
            }
            graph.crates.entry(found.clone()).or_insert_with(|| (about, BTreeSet::new()));
            path.push(found);
        }
        Ok(graph)
    }

    /// A package by its name, which the workspace has once.
    pub(super) fn package(&self, name: &str) -> Result<&Crate> {
        self.crates.keys().find(|found| found.name == name).with_context(|| format!("cargo knows no package {name}"))
    }

    pub(super) fn about(&self, found: &Crate) -> &About {
        &self.crates[found].0
    }

    pub(super) fn dependencies(&self, found: &Crate) -> impl Iterator<Item = &Crate> {
        self.crates[found].1.iter()
    }

    /// The package and all crates whose code is in its program.
    pub(super) fn linked<'a>(&'a self, root: &'a Crate) -> BTreeSet<&'a Crate> {
        self.reached(root, |about| !about.is_macro)
    }

    /// The same, with macros and what these are made of.
    pub(super) fn used<'a>(&'a self, root: &'a Crate) -> BTreeSet<&'a Crate> {
        self.reached(root, |_| true)
    }

    fn reached<'a>(&'a self, root: &'a Crate, counts: impl Fn(&About) -> bool) -> BTreeSet<&'a Crate> {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![root];
        while let Some(found) = waiting.pop() {
            if reached.insert(found) {
                waiting.extend(self.dependencies(found).filter(|next| counts(self.about(next))));
            }
        }
        reached
    }
}

/// `2serde_derive v1.0.229 (proc-macro)<TAB>MIT OR Apache-2.0<TAB>https://… (*)`
fn read_line(line: &str) -> Option<(usize, Crate, About)> {
    let line = line.strip_suffix(SEEN).unwrap_or(line);
    let name_at = line.find(|letter: char| !letter.is_ascii_digit())?;
    let (depth, rest) = line.split_at(name_at);
    let mut fields = rest.split('\t');
    let (package, expression) = (fields.next()?, fields.next()?);
    let (name, rest) = package.split_once(" v")?;
    let version = rest.split(' ').next()?;
    let about = About {
        // The form of old manifests.
        expression: expression.replace('/', " OR "),
        repository: fields.next().unwrap_or_default().to_owned(),
        is_macro: rest.contains(MACRO),
    };
    Some((depth.parse().ok()?, Crate { name: name.to_owned(), version: version.to_owned() }, about))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0app v0.1.0 (/work/app)\tApache-2.0\t\n1serde v1.0.0\tMIT/Apache-2.0\thttps://example.com/serde\n\
                        2serde_derive v1.0.0 (proc-macro)\tMIT\t\n3syn v2.0.0\tMIT\t\n1log v0.4.0\tMIT\t\n\n\
                        0other v0.1.0 (/work/other)\tApache-2.0\t\n1serde v1.0.0\tMIT/Apache-2.0\thttps://example.com/serde (*)\n\
                        1syn v2.0.0\tMIT\t\n";

    fn names(crates: &BTreeSet<&Crate>) -> Vec<String> {
        crates.iter().map(|found| found.name.clone()).collect()
    }

    #[test]
    fn macros_are_used_and_not_linked() {
        let graph = Graph::read(TREE).unwrap();
        let app = graph.package("app").unwrap();
        assert_eq!(names(&graph.linked(app)), ["app", "log", "serde"]);
        assert_eq!(names(&graph.used(app)), ["app", "log", "serde", "serde_derive", "syn"]);
    }

    #[test]
    fn dependencies_that_were_printed_before_count_too() {
        let graph = Graph::read(TREE).unwrap();
        let other = graph.package("other").unwrap();
        assert_eq!(names(&graph.used(other)), ["other", "serde", "serde_derive", "syn"]);
        let about = graph.about(graph.package("serde").unwrap());
        assert_eq!(
            (about.expression.as_str(), about.repository.as_str()),
            ("MIT OR Apache-2.0", "https://example.com/serde")
        );
    }

    #[test]
    fn another_output_of_cargo_is_an_error_that_shows_it() {
        let error = Graph::read("no tree\n").unwrap_err().to_string();
        assert!(error.contains("no tree"), "{error}");
        assert!(Graph::read("0a v1\tMIT\t\n2b v1\tMIT\t\n").is_err());
    }
}
