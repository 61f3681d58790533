//! Import circles between the files of a crate: two files that need each other can only be read together.
//!
//! A file needs another if it names something that is defined there, by `use` or by a path. A re-export is
//! no need, and a name that reaches a file through its parent counts for the file that defines it. Test modules are left
//! out. Calls of methods are not seen, and neither are expansions of macros.

mod known;

use std::collections::{BTreeMap, BTreeSet};

use self::known::KNOWN;
use crate::sources::{name, read, rust_files};

/// The path of a module inside its crate; empty for the crate's root.
type Module = Vec<String>;

#[test]
fn files_of_a_crate_import_in_one_direction() {
    let mut found = Vec::new();
    let mut imports = 0;
    for (source_folder, files) in crates() {
        let graph = graph(&files);
        imports += graph.values().map(BTreeSet::len).sum::<usize>();
        for circle in circles(&graph) {
            let names: Vec<String> = circle
                .iter()
                .map(|module| format!("{source_folder}{}", files.get(module).map_or("", |file| &file.name)))
                .collect();
            let inside: Vec<String> = circle
                .iter()
                .flat_map(|from| graph[from].iter().filter(|to| circle.contains(*to)).map(move |to| (from, to)))
                .map(|(from, to)| format!("  {} needs {}", shown(from), shown(to)))
                .collect();
            found.push((names, inside));
        }
    }
    assert!(imports > 300, "only {imports} imports were found");
    let is_known =
        |names: &[String]| KNOWN.iter().any(|(_, known)| names.iter().all(|name| known.contains(&name.as_str())));
    let new: Vec<String> = found
        .iter()
        .filter(|(names, _)| !is_known(names))
        .map(|(names, inside)| format!("{}\n{}", names.join(", "), inside.join("\n")))
        .collect();
    assert!(
        new.is_empty(),
        "files import each other in a circle; move what both need to a third file:\n{}",
        new.join("\n\n")
    );
    let in_a_circle: BTreeSet<&str> = found.iter().flat_map(|(names, _)| names).map(String::as_str).collect();
    let free: Vec<&str> =
        KNOWN.iter().flat_map(|(_, files)| *files).copied().filter(|file| !in_a_circle.contains(file)).collect();
    assert!(free.is_empty(), "these are in no circle any more; take them off tests/tidy/circles/known.rs: {free:#?}");
}

#[test]
fn a_circle_is_found() {
    let file = |text: &str| File { name: String::new(), text: text.to_owned() };
    let module = |path: &str| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect::<Module>();
    let files = |texts: &[(&str, &str)]| texts.iter().map(|(path, text)| (module(path), file(text))).collect();
    let circles_of = |texts: &[(&str, &str)]| circles(&graph(&files(texts)));

    let circle = circles_of(&[("", "mod a; mod b;"), ("a", "use crate::b::B; struct A;"), ("b", "use super::{a::A};")]);
    assert_eq!(circle, [BTreeSet::from([module("a"), module("b")])]);
    // A path in code counts as an import does; a comment and a test module do not.
    let circle = circles_of(&[("", "mod a;"), ("a", "struct A;\nfn f() { super::g(); }"), ("a::c", "use super::A;")]);
    assert!(circle.is_empty());
    let circle = circles_of(&[("a", "mod c; struct A; fn f() { c::g() }"), ("a::c", "use super::A; fn g() {}")]);
    assert_eq!(circle, [BTreeSet::from([module("a"), module("a::c")])]);
    let circle = circles_of(&[
        ("a", "struct A; // crate::c::g\n#[cfg(test)]\nmod tests { use crate::c; }"),
        ("c", "use crate::a::A;"),
    ]);
    assert!(circle.is_empty());
    // A re-export is not a need, and a name that comes through the parent is the sibling's.
    let circle = circles_of(&[("", "mod a; mod b; pub use a::A;"), ("a", "use crate::b::B;"), ("b", "struct B;")]);
    assert!(circle.is_empty());
    let circle =
        circles_of(&[("", "pub use self::a::A;"), ("a", "use crate::b::B; struct A;"), ("b", "use crate::A;")]);
    assert_eq!(circle, [BTreeSet::from([module("a"), module("b")])]);
}

struct File {
    name: String,
    text: String,
}

/// The files of each crate by module path; crates are told apart by their source folder.
fn crates() -> BTreeMap<String, BTreeMap<Module, File>> {
    let mut crates: BTreeMap<String, BTreeMap<Module, File>> = BTreeMap::new();
    for path in rust_files() {
        let full = name(&path);
        let Some((folder, inside)) = full.split_once("src/") else { continue };
        let mut module: Module = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        // A program's file has no module path; it imports the library.
        if module.last().is_some_and(|last| last == "tests") || matches!(module.first(), Some(first) if first == "bin")
        {
            continue;
        }
        // Beside a library, `main.rs` is a crate of its own, of one file.
        let is_main = matches!(module.as_slice(), [only] if only == "main");
        if is_main && path.with_file_name("lib.rs").exists() {
            continue;
        }
        if is_main || matches!(module.as_slice(), [only] if only == "lib") {
            module.clear();
        }
        let text = read(&path);
        let file = File { name: format!("src/{inside}"), text };
        crates.entry(folder.to_owned()).or_default().insert(module, file);
    }
    crates
}

/// The files that each file needs.
fn graph(files: &BTreeMap<Module, File>) -> BTreeMap<Module, BTreeSet<Module>> {
    let parsed: BTreeMap<&Module, Vec<Import>> =
        files.iter().map(|(module, file)| (module, imports(module, &file.text, files))).collect();
    let mut graph = BTreeMap::new();
    for (module, imports) in &parsed {
        let needs = imports
            .iter()
            .filter(|import| !import.re_exported)
            .map(|import| definer(&import.path, files, &parsed, 8))
            .filter(|target| target != *module)
            .collect();
        graph.insert((*module).clone(), needs);
    }
    graph
}

struct Import {
    /// From the crate's root.
    path: Vec<String>,
    /// The name that it has in the importing file; none for a path in code.
    alias: Option<String>,
    re_exported: bool,
}

/// The file that defines the item of a path: through imports of the file that the path leads to, if it only has it from there.
fn definer(
    path: &[String],
    files: &BTreeMap<Module, File>,
    parsed: &BTreeMap<&Module, Vec<Import>>,
    depth: u8,
) -> Module {
    let length = (0..=path.len()).rev().find(|length| files.contains_key(&path[..*length])).unwrap_or(0);
    let module = path[..length].to_vec();
    let Some(item) = path.get(length) else { return module };
    let passed_on = parsed
        .get(&module)
        .and_then(|imports| imports.iter().find(|import| import.alias.as_ref() == Some(item) && import.path != path));
    match passed_on {
        Some(import) if depth > 0 => definer(&import.path, files, parsed, depth - 1),
        _ => module,
    }
}

fn imports(module: &Module, text: &str, files: &BTreeMap<Module, File>) -> Vec<Import> {
    let tokens = tokens(text);
    let children: BTreeSet<&str> = files
        .keys()
        .filter(|other| other.len() == module.len() + 1 && other.starts_with(module))
        .map(|other| other[module.len()].as_str())
        .collect();
    let mut found = Vec::new();
    let mut position = 0;
    let mut in_use = None;
    while position < tokens.len() {
        let token = tokens[position].as_str();
        match token {
            "use" => in_use = Some(position > 0 && matches!(tokens[position - 1].as_str(), "pub" | ")")),
            ";" => in_use = None,
            _ => {}
        }
        let starts = matches!(token, "crate" | "self" | "super") || children.contains(token);
        let follows = position > 0 && matches!(tokens[position - 1].as_str(), "::" | "." | "mod" | "fn");
        if starts && !follows && tokens.get(position + 1).is_some_and(|next| next == "::") {
            let mut paths = Vec::new();
            position = tree(&tokens, position, &mut Vec::new(), &mut paths);
            for (path, alias) in paths {
                let Some(path) = absolute(module, &path) else { continue };
                let alias = in_use.and(alias);
                found.push(Import { path, alias, re_exported: in_use == Some(true) });
            }
        } else {
            position += 1;
        }
    }
    found
}

/// Reads a path, with all that stands in its braces; gives back where it ends.
fn tree(
    tokens: &[String],
    mut position: usize,
    prefix: &mut Vec<String>,
    paths: &mut Vec<(Vec<String>, Option<String>)>,
) -> usize {
    let depth = prefix.len();
    let at = |position: usize| tokens.get(position).map(String::as_str).unwrap_or_default();
    loop {
        match at(position) {
            "{" => {
                position += 1;
                while !matches!(at(position), "}" | "") {
                    position = tree(tokens, position, prefix, paths);
                    if at(position) == "," {
                        position += 1;
                    }
                }
                position += 1;
                break;
            }
            "*" => {
                paths.push((prefix.clone(), None));
                position += 1;
                break;
            }
            word if word.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                prefix.push(word.to_owned());
                position += 1;
                if at(position) == "::" {
                    position += 1;
                    continue;
                }
                let mut alias = prefix.iter().rev().find(|word| *word != "self").cloned();
                if at(position) == "as" {
                    alias = Some(at(position + 1).to_owned());
                    position += 2;
                }
                paths.push((prefix.clone(), alias));
                break;
            }
            // `crate::f::<T>` and the like.
            _ => {
                paths.push((prefix.clone(), None));
                position += usize::from(prefix.len() == depth);
                break;
            }
        }
    }
    prefix.truncate(depth);
    position
}

/// From the crate's root; `None` for paths that lead out of it.
fn absolute(module: &Module, path: &[String]) -> Option<Vec<String>> {
    let mut full = module.clone();
    for (position, part) in path.iter().enumerate() {
        match part.as_str() {
            "crate" if position == 0 => full.clear(),
            "self" => {}
            "super" => drop(full.pop()?),
            _ => full.push(part.clone()),
        }
    }
    Some(full)
}

/// Words and signs, without comments, literals, and the content of test modules.
fn tokens(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if first == '"' {
            string_length(rest)
        } else if let Some(hashes) = raw_string_hashes(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            rest[hashes + 2..].find(&end).map_or(rest.len(), |found| hashes + 2 + found + end.len())
        } else if first == '\'' {
            character_length(rest)
        } else if word > 0 {
            tokens.push(rest[..word].to_owned());
            word
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (position, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return position + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_hashes(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    hashes[count..].starts_with('"').then_some(count)
}

/// A character in quotes; a lifetime is one sign.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 3),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The strongly connected components of more than one file: each file of one reaches each other.
fn circles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        graph.keys().map(|from| (from, reachable(graph, from))).collect();
    let mut circles: Vec<BTreeSet<Module>> = Vec::new();
    for (from, to) in &reached {
        let circle: BTreeSet<Module> =
            to.iter().filter(|other| reached[**other].contains(*from)).map(|other| (*other).clone()).collect();
        if circle.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

fn reachable<'a>(graph: &'a BTreeMap<Module, BTreeSet<Module>>, from: &'a Module) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(next) = open.pop() {
        for to in graph.get(next).into_iter().flatten() {
            if graph.contains_key(to) && reached.insert(to) {
                open.push(to);
            }
        }
    }
    reached
}

fn shown(module: &Module) -> String {
    if module.is_empty() { "the crate's root".to_owned() } else { module.join("::") }
}
