//! Rule numbers: each one cited can be looked up. `E-10` and its like are defined in `docs/semantics.md`, a case
//! (`T-064`) in `tests/conformance/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::sources::{files, name, root, text};

/// Files that are not ours to word, or that hold output of programs.
const NOT_READ: [&str; 4] = ["Cargo.lock", "LICENSE", "go.sum", "shop.recording"];
/// The sign of a section. The documents of this repository have no numbered sections, so it cites another document.
const SECTION: char = '\u{a7}';

#[test]
fn each_rule_that_is_cited_is_defined() {
    let defined = definitions();
    assert!(defined.len() > 100, "only {} definitions were found", defined.len());
    let mut undefined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut cited = 0;
    for (file, text) in readable() {
        for (number, line) in text.lines().enumerate() {
            for rule in rule_numbers(line) {
                cited += 1;
                if !defined.contains(rule) {
                    undefined.entry(rule.to_owned()).or_default().push(format!("{file}:{}", number + 1));
                }
            }
        }
    }
    assert!(cited > 100, "only {cited} citations were found");
    assert!(
        undefined.is_empty(),
        "these rules are cited and defined nowhere: {undefined:#?}\nDefine each as **X-1** in docs/semantics.md (a case: \
         `- id: T-001` in tests/conformance/), or say in words what is meant."
    );
}

#[test]
fn no_rule_is_defined_twice() {
    let text = text(&root().join("docs/semantics.md")).expect("the semantics are text");
    let mut seen = BTreeSet::new();
    for rule in text.lines().filter_map(defined_rule) {
        assert!(seen.insert(rule), "docs/semantics.md defines {rule} twice");
    }
}

#[test]
fn no_section_of_a_foreign_document_is_cited() {
    for (file, text) in readable() {
        for (number, line) in text.lines().enumerate() {
            assert!(
                !line.contains(SECTION),
                "{file}:{} cites a section: name a rule of docs/semantics.md, or a heading",
                number + 1
            );
        }
    }
}

#[test]
fn a_rule_number_is_told_from_what_looks_like_one() {
    let found = |line| rule_numbers(line).collect::<Vec<_>>();
    assert_eq!(found("as E-10b says (N-1, T-064)"), ["E-10b", "N-1", "T-064"]);
    assert_eq!(found("SHA-256, UTF-8, x86-64, MPL-2.0, v1-2, a-1, E-, -1"), [""; 0]);
}

fn definitions() -> BTreeSet<String> {
    let mut defined = BTreeSet::new();
    for (file, text) in readable() {
        if file == "docs/semantics.md" {
            defined.extend(text.lines().filter_map(defined_rule).map(str::to_owned));
        } else if file.starts_with("tests/conformance/") && file.ends_with(".yaml") {
            defined.extend(text.lines().filter_map(|line| line.trim().strip_prefix("- id: ")).map(str::to_owned));
        }
    }
    defined
}

/// `| **E-10** | …`, the row of a table that defines a rule.
fn defined_rule(line: &str) -> Option<&str> {
    line.strip_prefix("| **")?.split_once("** |").map(|(rule, _)| rule)
}

/// One or two capital letters, a hyphen, a number, perhaps a small letter; a word by itself.
fn rule_numbers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| !character.is_ascii_alphanumeric() && character != '-' && character != '.')
        .map(|word| word.trim_end_matches(['.', '-']))
        .filter(|word| {
            let Some((letters, number)) = word.split_once('-') else { return false };
            let digits = number.strip_suffix(|last: char| last.is_ascii_lowercase()).unwrap_or(number);
            (1..=2).contains(&letters.len())
                && letters.bytes().all(|letter| letter.is_ascii_uppercase())
                && !digits.is_empty()
                && digits.bytes().all(|digit| digit.is_ascii_digit())
        })
}

fn readable() -> Vec<(String, String)> {
    let is_read = |file: &Path| {
        let last = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !NOT_READ.contains(&last) && !file.ends_with("tests/tidy/rules.rs")
    };
    files().into_iter().filter(|file| is_read(file)).filter_map(|file| Some((name(&file), text(&file)?))).collect()
}
