//! Removes a cluster, however much of it there is: one that runs, one whose start was killed, one that never was.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::{
    cgroups, namespaces,
    plan::{Plan, Shape},
};

/// Held while a cluster starts or is removed. The kernel releases it with its process.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.with_extension("lock");
    fs::create_dir_all(path.parent().expect("the folder of all clusters"))?;
    let lock = File::options().create(true).append(true).open(&path)?;
    lock.lock().with_context(|| format!("could not lock {}", path.display()))?;
    Ok(lock)
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    let _alone = lock(folder)?;
    remove_locked(folder)
}

/// Removes it; the caller holds the [`lock`].
pub(super) fn remove_locked(folder: &Path) -> Result<()> {
    namespaces::end_all(folder)?;
    let plan = Plan { folder: folder.to_path_buf(), shape: Shape::default() };
    cgroups::remove(&plan.cgroup_prefix())?;
    if !folder.exists() {
        return Ok(());
    }
    // All mounts were made inside of namespaces. Should one be here, it must not be emptied.
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let below = format!("{}/", folder.display());
    if let Some(mount) = mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|path| path.starts_with(&below))
    {
        bail!("{mount} is a mount, so that {} is not removed: unmount it", folder.display());
    }
    fs::remove_dir_all(folder).with_context(|| format!("could not remove {}", folder.display()))
}
