//! Manifests on disk: finds the files, reads them all, and stops at none of them.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use netverdict_manifest::{Finding, Object};
use thiserror::Error;

/// What a set of files holds.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) objects: Vec<Object>,
    /// Documents that could not be read.
    pub(crate) findings: Vec<Finding>,
    pub(crate) files: usize,
}

#[derive(Debug, Error)]
pub(crate) enum ManifestsError {
    #[error("cannot read {path}: {reason}", path = .path.display())]
    Read { path: PathBuf, reason: io::Error },
    #[error("{path} holds more than {} MiB\n  name the folder that holds manifests alone, or split the file", MOST_BYTES >> 20, path = .path.display())]
    TooLarge { path: PathBuf },
    #[error("{path} holds no file named *.yaml, *.yml or *.json", path = .path.display())]
    Empty { path: PathBuf },
}

/// What the reader of manifests takes at once.
const MOST_BYTES: u64 = 256 << 20;
/// Folders within folders; links that go round end here.
const MOST_LEVELS: usize = 32;

/// Reads files, whole folders (with what is below them, `*.yaml`, `*.yml`, `*.json`, by name), and `-` for standard
/// input.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Manifests, ManifestsError> {
    let mut manifests = Manifests::default();
    for path in paths {
        if path.as_os_str() == "-" {
            manifests.add(Path::new("standard input"), io::stdin().lock())?;
        } else if path.is_dir() {
            let before = manifests.files;
            manifests.add_folder(path, MOST_LEVELS)?;
            if manifests.files == before {
                return Err(ManifestsError::Empty { path: path.clone() });
            }
        } else {
            manifests.add_file(path)?;
        }
    }
    Ok(manifests)
}

impl Manifests {
    fn add_folder(&mut self, folder: &Path, levels: usize) -> Result<(), ManifestsError> {
        let failed = |reason| ManifestsError::Read { path: folder.to_owned(), reason };
        let entries: Result<Vec<_>, _> =
            fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|e| e.path())).collect();
        let mut entries = entries.map_err(failed)?;
        entries.sort_unstable();
        for path in entries {
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden {
                // `..data` of a mounted ConfigMap repeats what its links name.
            } else if path.is_dir() {
                if let Some(levels) = levels.checked_sub(1) {
                    self.add_folder(&path, levels)?;
                }
            } else if path.extension().is_some_and(|name| ["yaml", "yml", "json"].iter().any(|known| name == *known)) {
                self.add_file(&path)?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ManifestsError> {
        let file = fs::File::open(path).map_err(|reason| ManifestsError::Read { path: path.to_owned(), reason })?;
        self.add(path, file)
    }

    fn add(&mut self, path: &Path, from: impl io::Read) -> Result<(), ManifestsError> {
        let mut bytes = Vec::new();
        from.take(MOST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|reason| ManifestsError::Read { path: path.to_owned(), reason })?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(ManifestsError::TooLarge { path: path.to_owned() });
        }
        let (objects, findings) = netverdict_manifest::read_bytes(&bytes, &path.to_string_lossy());
        self.objects.extend(objects);
        self.findings.extend(findings);
        self.files += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: x, name: a}\n";

    #[test]
    fn folders_are_read_with_what_is_below_them_in_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b/two.yml"), POD.replace("name: a", "name: two")).unwrap();
        fs::write(folder.path().join("a.yaml"), POD).unwrap();
        fs::write(folder.path().join("README.md"), "no manifest").unwrap();
        fs::write(folder.path().join(".hidden.yaml"), POD).unwrap();
        fs::write(folder.path().join("c.yaml"), "kind: [").unwrap();
        fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe]).unwrap();
        let manifests = read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(manifests.objects.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["a", "two"]);
        assert_eq!((manifests.findings.len(), manifests.files), (2, 4));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(&[folder.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("holds no file named *.yaml"), "{error}");
        let error = read(&[folder.path().join("absent.yaml")]).unwrap_err().to_string();
        assert!(error.contains("absent.yaml: No such file"), "{error}");
    }
}
