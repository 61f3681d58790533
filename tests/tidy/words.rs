//! One word per idea: `docs/glossary.md` lists words that may not be used, and the words to write instead.

use std::path::Path;

use crate::sources::{files, name, root, text};

const GLOSSARY: &str = "docs/glossary.md";
const HEADING: &str = "## Words that fail the build";
/// Files that are not ours to word, or that hold output of programs.
const NOT_READ: [&str; 4] = ["Cargo.lock", "LICENSE", "go.sum", "shop.recording"];

#[test]
fn words_are_those_of_the_glossary() {
    let forbidden = forbidden(&text(&root().join(GLOSSARY)).expect("the glossary is text"));
    assert!(forbidden.len() >= 5, "only {} words were read from {GLOSSARY}", forbidden.len());
    let mut found = Vec::new();
    let mut read = 0;
    for file in files() {
        let Some(text) = text(&file).filter(|_| is_read(&file)) else { continue };
        let file = name(&file);
        read += 1;
        for (number, line) in text.lines().enumerate() {
            for word in forbidden.iter().filter(|word| word.applies_to(&file) && word.is_in(line)) {
                found.push(format!("{file}:{}: write {} for {}", number + 1, word.instead, word.word));
            }
        }
    }
    assert!(read > 200, "only {read} files were read");
    assert!(found.is_empty(), "words that {GLOSSARY} rules out:\n{}", found.join("\n"));
}

#[test]
fn exceptions_are_of_use() {
    for word in forbidden(&text(&root().join(GLOSSARY)).expect("the glossary is text")) {
        for place in &word.except {
            assert!(root().join(place).exists(), "{GLOSSARY}: {} may stand in {place}, which is not there", word.word);
        }
    }
}

#[test]
fn a_forbidden_word_is_found() {
    let words = forbidden(
        "| x | y | z |\n## Words that fail the build\n\n| not | but | except in |\n|---|---|---|\n\
         | inward | ingress | docs/adr, tests |\n| `Scene` | `PacketContext` | |\n\n## More\n| a | b | c |\n",
    );
    let [inward, scene] = words.as_slice() else { panic!("two words were written, {} were read", words.len()) };
    assert!(inward.is_in("Inward traffic") && !inward.is_in("inwards") && !inward.is_in("un_inward"));
    assert!(scene.is_in("use Scene;") && !scene.is_in("a scene") && !scene.is_in("SceneOf"));
    assert!(
        inward.applies_to("query/src/sql.rs") && !inward.applies_to("tests/x.rs") && inward.applies_to("tests2/x.rs")
    );
    assert!(scene.applies_to("query/src/sql.rs") && !scene.applies_to("docs/record.md"));
}

struct Forbidden {
    word: String,
    instead: String,
    except: Vec<String>,
    /// A name in code, not a word of prose.
    is_name: bool,
}

impl Forbidden {
    fn applies_to(&self, file: &str) -> bool {
        file != GLOSSARY
            && file != "tests/tidy/words.rs"
            && (!self.is_name || file.ends_with(".rs"))
            && !self.except.iter().any(|place| Path::new(file).starts_with(place))
    }

    fn is_in(&self, line: &str) -> bool {
        match self.is_name {
            true => holds(line, &self.word),
            false => holds(&line.to_lowercase(), &self.word.to_lowercase()),
        }
    }
}

/// Whether the text has it as a whole word.
fn holds(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word)
        .any(|(start, _)| !text[..start].ends_with(is_part) && !text[start + word.len()..].starts_with(is_part))
}

/// The rows of the table under the heading.
fn forbidden(glossary: &str) -> Vec<Forbidden> {
    let table = glossary.split(HEADING).nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    let is_row = |line: &&str| line.starts_with('|');
    let rows = table.lines().skip_while(|line| !is_row(line)).take_while(is_row).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [word, instead, except] = cells.as_slice() else { panic!("{GLOSSARY}: a row needs three cells: {row}") };
        let except = except.split(',').map(str::trim).filter(|place| !place.is_empty()).map(str::to_owned).collect();
        let is_name = word.starts_with('`');
        Forbidden { word: word.trim_matches('`').to_owned(), instead: (*instead).to_owned(), except, is_name }
    })
    .collect()
}

fn is_read(file: &Path) -> bool {
    file.file_name().and_then(|name| name.to_str()).is_some_and(|name| !NOT_READ.contains(&name))
}
