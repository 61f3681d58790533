//! The shared libraries that a program needs, and its loader, as the loader of this machine finds them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::command::output;

/// Every file that has to be in an image, at the path at which the loader looks for it.
pub(super) fn of(program: &Path) -> Result<BTreeSet<PathBuf>> {
    resolved(&output(Command::new("ldd").arg(program))?)
}

/// The paths in the answer of `ldd`.
fn resolved(answer: &str) -> Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for line in answer.lines().map(str::trim) {
        let (name, found) = line.split_once(" => ").unwrap_or((line, line));
        // Behind a path is the address at which it is mapped.
        let path = found.split_once(" (").map_or(found, |(path, _)| path);
        if path.starts_with('/') {
            paths.insert(path.into());
        } else if found == "not found" {
            bail!("the shared library {name} is missing: install it with your package manager");
        }
        // The kernel's own (linux-vdso) has no path, nor has the sentence about a static program.
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_kernels_own_is_not() {
        let answer = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0c)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f0d)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(resolved(answer).unwrap(), expected.into());
        assert_eq!(resolved("\tstatically linked\n").unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_library_that_is_missing_is_an_error_that_names_it() {
        let error = resolved("\tlibz.so.1 => not found\n").unwrap_err().to_string();
        assert!(error.contains("libz.so.1"), "{error}");
    }
}
