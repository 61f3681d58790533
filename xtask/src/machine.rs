//! Finds out what this machine can do: root, BTF, tcx, network namespaces.

use std::path::Path;

use crate::command::{succeeds, which};

/// Why something cannot run here, with the remedy.
pub type Obstacle = String;

/// Whether BPF programs can be loaded and network namespaces made.
pub fn kernel() -> Result<(), Obstacle> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root: run it with sudo".into());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err("the kernel has no BTF: boot one with CONFIG_DEBUG_INFO_BTF".into());
    }
    let release = nix::sys::utsname::uname().map_err(|error| error.to_string())?;
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 6) {
        return Err(format!("the kernel is {release}: tcx needs 6.6 or newer"));
    }
    if which("ip").is_none() {
        return Err("`ip` is missing: install iproute2".into());
    }
    let trial = format!("netverdict-trial-{}", std::process::id());
    let made = succeeds(std::process::Command::new("ip").args(["netns", "add", &trial]));
    if !made {
        return Err("network namespaces cannot be made: run it outside of a restricted container".into());
    }
    succeeds(std::process::Command::new("ip").args(["netns", "delete", &trial]));
    Ok(())
}
