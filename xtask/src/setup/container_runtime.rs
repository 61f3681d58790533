//! What runs the containers of a test cluster, and what its network is made of: packages of the distribution.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use super::debian;
use crate::command::which;

/// Programs on PATH, and the packages that have them.
const PROGRAMS: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("openssl", "openssl"),
];
/// Where distributions and Kubernetes' own packages put CNI plugins.
const CNI_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const CNI_PLUGINS: [&str; 5] = ["ptp", "bridge", "host-local", "portmap", "loopback"];
const BUSYBOX_FOLDERS: [&str; 2] = ["/bin", "/usr/bin"];

pub(super) struct ContainerRuntime {
    pub(super) busybox: PathBuf,
    pub(super) cni_plugins: PathBuf,
}

/// The programs, after missing packages were installed.
pub(super) fn install() -> Result<ContainerRuntime> {
    if let Some(found) = found() {
        return Ok(found);
    }
    let mut packages: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| which(program).is_none()).map(|(_, package)| *package).collect();
    if cni_plugins().is_none() {
        packages.push("containernetworking-plugins");
    }
    if static_busybox().is_none() {
        packages.push("busybox-static");
    }
    packages.dedup();
    debian::install(&packages)?;
    match found() {
        Some(found) => Ok(found),
        None => bail!("something of {} is still missing", packages.join(", ")),
    }
}

pub(super) fn found() -> Option<ContainerRuntime> {
    let has_programs = PROGRAMS.iter().all(|(program, _)| which(program).is_some());
    has_programs.then_some(ContainerRuntime { busybox: static_busybox()?, cni_plugins: cni_plugins()? })
}

fn cni_plugins() -> Option<PathBuf> {
    let has_all = |folder: &PathBuf| CNI_PLUGINS.iter().all(|plugin| folder.join(plugin).is_file());
    CNI_FOLDERS.iter().map(PathBuf::from).find(has_all)
}

/// A shell that needs no libraries; its package is installed if it is not there.
pub fn static_bash() -> Result<PathBuf> {
    let program = PathBuf::from("/bin/bash-static");
    if !program.is_file() {
        debian::install(&["bash-static"])?;
    }
    Ok(program)
}

/// One that needs no libraries, for images that have none.
fn static_busybox() -> Option<PathBuf> {
    let is_static = |path: &PathBuf| fs::read(path).is_ok_and(|program| !has_interpreter(&program));
    BUSYBOX_FOLDERS.iter().map(|folder| Path::new(folder).join("busybox")).find(is_static)
}

/// Whether a program names the loader that would find its libraries.
fn has_interpreter(program: &[u8]) -> bool {
    let loader = b"/ld-";
    program.windows(loader.len()).any(|bytes| bytes == loader)
}
