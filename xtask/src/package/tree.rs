//! The files of a package on disk, as dpkg-deb reads them.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Files below a folder that is removed on drop.
pub(super) struct Tree {
    root: PathBuf,
    /// Installed files: paths without the first slash.
    files: BTreeSet<String>,
    kibibytes: u64,
}

impl Tree {
    /// An empty one. What an earlier run left there is removed.
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("could not remove {}", root.display()))?;
        }
        let mut tree = Self { root, files: BTreeSet::new(), kibibytes: 0 };
        tree.make_folder(&tree.root.clone())?;
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn files(&self) -> &BTreeSet<String> {
        &self.files
    }

    /// Disk space of what is installed, as Debian counts it.
    pub(super) fn kibibytes(&self) -> u64 {
        self.kibibytes
    }

    /// Puts a file into the package.
    pub(super) fn add(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let place = self.place(path)?;
        fs::write(&place, contents)?;
        self.added(path, mode)
    }

    /// Puts a file into the package that somebody else writes.
    pub(super) fn add_written(&mut self, path: &str, mode: u32, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let place = self.place(path)?;
        write(&place)?;
        self.added(path, mode)
    }

    pub(super) fn add_folder(&mut self, path: &str) -> Result<()> {
        self.make_folder(&self.root.join(path))
    }

    /// Writes a file about the package, which is not installed.
    pub(super) fn describe(&mut self, name: &str, mode: u32, contents: &str) -> Result<()> {
        self.make_folder(&self.root.join("DEBIAN"))?;
        let place = self.root.join("DEBIAN").join(name);
        fs::write(&place, contents)?;
        Ok(fs::set_permissions(&place, Permissions::from_mode(mode))?)
    }

    fn place(&mut self, path: &str) -> Result<PathBuf> {
        let place = self.root.join(path);
        self.make_folder(place.parent().with_context(|| format!("{path} is in no folder"))?)?;
        Ok(place)
    }

    fn added(&mut self, path: &str, mode: u32) -> Result<()> {
        let place = self.root.join(path);
        fs::set_permissions(&place, Permissions::from_mode(mode))?;
        self.kibibytes += fs::metadata(&place)?.len().div_ceil(1_024);
        self.files.insert(path.to_owned());
        Ok(())
    }

    /// With its parents, all for everybody to read, whatever the umask says.
    fn make_folder(&mut self, folder: &Path) -> Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        match folder.parent().filter(|parent| parent.starts_with(&self.root)) {
            Some(parent) => self.make_folder(parent)?,
            None => DirBuilder::new().recursive(true).create(folder.parent().unwrap_or(Path::new(".")))?,
        }
        DirBuilder::new().mode(0o755).create(folder).with_context(|| format!("could not make {}", folder.display()))?;
        self.kibibytes += 1;
        Ok(fs::set_permissions(folder, Permissions::from_mode(0o755))?)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("{} could not be removed: {error}", self.root.display());
        }
        // Of the last one the folder of all.
        if let Some(parent) = self.root.parent() {
            let _ = fs::remove_dir(parent);
        }
    }
}
