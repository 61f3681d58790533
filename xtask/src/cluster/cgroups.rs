//! The cgroup of each node: pods of two nodes must not meet, and none may be left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const ROOT: &str = "/sys/fs/cgroup";
/// A killed process leaves its cgroup a moment after it is gone from `/proc`.
const EMPTY_WITHIN: Duration = Duration::from_secs(20);

/// Makes a cgroup in every hierarchy.
pub(super) fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let made = hierarchy.join(name);
        fs::create_dir_all(&made).with_context(|| format!("no cgroup {}", made.display()))?;
        // Version 1: a new cgroup has no processors, and no process may join it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (of_parent, own) = (hierarchy.join(file), made.join(file));
            if of_parent.exists() && own.exists() {
                fs::write(own, fs::read(of_parent)?)?;
            }
        }
    }
    // Version 2: what a parent does not pass on, its children do not have.
    let controllers = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        for folder in [Path::new(ROOT).to_path_buf(), Path::new(ROOT).join(name)] {
            // Some cannot be passed on where real-time processes run; a kubelet names what it lacks.
            let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}

/// Removes all whose names start so, with what is below them.
pub(super) fn remove(prefix: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let left: Vec<PathBuf> = hierarchies().iter().flat_map(|hierarchy| starting_with(prefix, hierarchy)).collect();
        left.iter().for_each(|cgroup| remove_tree(cgroup));
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() > EMPTY_WITHIN {
            bail!("the cgroup {} still has processes", left[0].display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn starting_with(prefix: &str, hierarchy: &Path) -> Vec<PathBuf> {
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    folders(hierarchy).into_iter().filter(is_ours).collect()
}

/// Children first; a cgroup cannot be removed with its control files, as a folder would be.
fn remove_tree(cgroup: &Path) {
    folders(cgroup).iter().for_each(|child| remove_tree(child));
    // If it is not empty yet, the caller comes again.
    let _ = fs::remove_dir(cgroup);
}

/// The root itself (version 2), or the folders in it (version 1).
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    let is_hierarchy = |path: &PathBuf| path.join("cgroup.procs").exists();
    match is_hierarchy(&root.to_path_buf()) {
        true => vec![root.to_path_buf()],
        false => folders(root).into_iter().filter(is_hierarchy).collect(),
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
