//! Shape of the source files.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where a file must be split.
const MOST_LINES: usize = 600;
const MOST_LINES_OF_TESTS: usize = 900;
/// Names that describe the construct of a module, not its subject.
const NOT_NAMES: [&str; 6] = ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "manager.rs"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the root").to_path_buf()
}

#[test]
fn every_crate_is_read() {
    let files = rust_files();
    for folder in crate::imports::packages().values() {
        let found = files.iter().any(|file| file.starts_with(folder));
        assert!(found, "no Rust file was found in {}, which is a crate of the workspace", folder.display());
    }
    let kernel_side = root().join("probe/ebpf");
    assert!(files.iter().any(|file| file.starts_with(&kernel_side)), "the BPF programs are not read");
}

#[test]
fn files_are_of_readable_size() {
    let mut sizes = Vec::new();
    for file in rust_files() {
        let lines = read(&file).lines().count();
        let most = if is_test(&file) { MOST_LINES_OF_TESTS } else { MOST_LINES };
        assert!(lines <= most, "{} has {lines} lines; split it at {most}", file.display());
        sizes.push(lines);
    }
    sizes.sort_unstable();
    assert!(sizes.len() > 50, "only {} files were found", sizes.len());
    let ninth_decile = sizes[sizes.len() * 9 / 10];
    assert!(ninth_decile <= 400, "one file in ten is longer than {ninth_decile} lines; aim at 400");
}

#[test]
fn files_are_named_by_idea() {
    for file in rust_files() {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(!NOT_NAMES.contains(&name), "{} is not named by what it is about", file.display());
        let stem = name.trim_end_matches(".rs");
        assert!(!stem.ends_with("_task") && !stem.ends_with("_manager"), "{} is named by construct", file.display());
    }
}

#[test]
fn files_say_what_they_are_for() {
    // A module's `tests.rs` has the purpose that its parent states.
    for file in rust_files().into_iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = read(&file);
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        assert!(first.starts_with("//!") || first.starts_with("#!"), "{} does not begin with `//!`", file.display());
    }
}

#[test]
fn unsafe_lives_in_the_probe_and_says_why() {
    for file in rust_files() {
        let text = read(&file);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " impl"));
            if !opens {
                continue;
            }
            let place = format!("{}:{}", file.display(), number + 1);
            assert!(file.starts_with(root().join("probe")), "{place}: unsafe code lives only in probe/");
            let explained = lines[number.saturating_sub(6)..=number].iter().any(|line| line.contains("SAFETY"));
            assert!(explained, "{place}: no `// SAFETY:` above it");
        }
    }
}

#[test]
fn log_messages_are_fixed_and_lower_case() {
    let macros = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    for file in rust_files() {
        for (number, line) in read(&file).lines().enumerate() {
            let call = line.trim_start().trim_start_matches("tracing::");
            // The message comes last; where a call takes several lines, it stands alone and is not looked at here.
            if !macros.iter().any(|name| call.starts_with(name)) || !call.ends_with("\");") {
                continue;
            }
            let message = call.rsplit('"').nth(1).unwrap_or_default();
            let place = format!("{}:{}", file.display(), number + 1);
            assert!(!message.contains('{'), "{place}: nothing is interpolated into a log message; use fields");
            assert!(!message.starts_with(char::is_uppercase), "{place}: log messages are lower case");
        }
    }
}

/// Every Rust file of the repository. Nothing is listed by name, so a new crate is read as soon as it exists.
pub(crate) fn rust_files() -> Vec<PathBuf> {
    files().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Every file of the repository, except build output, hidden files (save for CI) and files that are not ours to word.
pub(crate) fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&root(), &mut files);
    files.sort();
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') && name != ".ci" {
            continue;
        }
        if !path.is_dir() {
            files.push(path);
        } else if name != "target" && !path.join("CACHEDIR.TAG").exists() {
            collect(&path, files);
        }
    }
}

/// As messages name a file: from the root of the repository.
pub(crate) fn name(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn is_test(file: &Path) -> bool {
    file.starts_with(root().join("tests"))
        || file.ends_with("tests.rs")
        || file.components().any(|part| part.as_os_str() == "tests")
}

/// A file's text; `None` if it is not text.
pub(crate) fn text(file: &Path) -> Option<String> {
    String::from_utf8(fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))).ok()
}

pub(crate) fn read(file: &Path) -> String {
    text(file).unwrap_or_else(|| panic!("{} is not UTF-8", file.display()))
}
