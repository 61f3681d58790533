//! Packages of Debian and its children.

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, bail};

use crate::{
    command::{quietly, which},
    progress::Running,
};

/// Installs packages of the distribution.
///
/// # Errors
/// There is no apt-get, it needs root, or it failed.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if which("apt-get").is_none() {
        bail!("this machine has no apt-get: install {} with your package manager", packages.join(", "));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root to install packages: run `sudo apt-get install {}`", packages.join(" "));
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _running = Running::start(format!("installing Debian packages: {}", packages.join(" ")));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        quietly(apt.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // The package lists may be missing or old; they are fetched only when they have to be.
    install().or_else(|_| {
        quietly(Command::new("apt-get").arg("update"))?;
        install()
    })
}
