//! The first process of a namespace: makes a machine of it, says so, and then only reaps.
//!
//! After that a program inside finds what it would find on a host of its own, at the usual paths, and reaches nothing of this
//! machine but its binaries and the run folder.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::wait::wait,
};

use super::{
    namespaces::READY,
    plan::{NETWORK_FOLDER, PLUGIN_FOLDER},
};

#[derive(Args, Debug)]
pub struct Options {
    /// Of the cluster. First, since running clusters are found by it.
    #[arg(long)]
    folder: PathBuf,
    /// The node; the world outside without it.
    #[arg(long)]
    node: Option<String>,
}

/// What a kubelet wants of the machine. It would set these for all of it, so it gets files that hold the values already.
const MACHINE_WIDE: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Settings of a node's own network.
const FORWARDING: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];
/// Frames between two pods on one bridge pass the rules of kube-proxy too. There only with the module `br_netfilter`.
const BRIDGED: [&str; 2] = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];

pub(super) fn run(options: &Options) -> Result<()> {
    // Before any mount: what is mounted here must not appear on the machine.
    mount_flags("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    mount_new("proc", "/proc")?;
    fs::write("/proc/sys/kernel/hostname", options.node.as_deref().unwrap_or("outside"))?;
    for (name, value) in FORWARDING {
        fs::write(Path::new("/proc/sys").join(name), value).with_context(|| format!("{name} cannot be set"))?;
    }
    if let Some(node) = &options.node {
        become_a_node(&options.folder.join(node))?;
    }
    println!("{READY}");
    std::io::stdout().flush()?;
    loop {
        // Until a program is started here, there is nobody to wait for.
        if wait() == Err(Errno::ECHILD) {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn become_a_node(folder: &Path) -> Result<()> {
    // The machine's cgroups stay, in a sysfs that shows the node's own interfaces.
    let aside = folder.join("cgroups");
    fs::create_dir_all(&aside)?;
    bind("/sys/fs/cgroup", &aside, MsFlags::MS_REC)?;
    mount_new("sysfs", "/sys")?;
    bind(&aside, "/sys/fs/cgroup", MsFlags::MS_REC)?;
    umount2(&aside, MntFlags::MNT_DETACH)?;
    mount_new("bpf", "/sys/fs/bpf")?;
    mount_new("tmpfs", "/run")?;
    for name in ["netns", "lock"] {
        fs::create_dir_all(Path::new("/run").join(name))?;
    }
    for (own, path) in [("var-lib", "/var/lib"), ("var-log", "/var/log")] {
        let own = folder.join(own);
        fs::create_dir_all(&own)?;
        bind(&own, path, MsFlags::empty())?;
    }
    for (own, path) in [("cni", NETWORK_FOLDER), ("cni-plugins", PLUGIN_FOLDER)] {
        fs::create_dir_all(path)?;
        bind(folder.join(own), path, MsFlags::empty())?;
    }
    for (own, path) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
        bind(folder.join(own), path, MsFlags::empty())?;
    }
    for (name, value) in MACHINE_WIDE {
        let path = Path::new("/proc/sys").join(name);
        let own = folder.join(name.replace('/', "."));
        fs::write(&own, format!("{value}\n"))?;
        if path.exists() {
            bind(&own, path, MsFlags::empty())?;
        }
    }
    for path in BRIDGED.map(|name| Path::new("/proc/sys").join(name)).iter().filter(|path| path.exists()) {
        fs::write(path, "1")?;
    }
    // The mounts of pods' volumes are passed on to containers that ask for it.
    mount_flags("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

fn mount_new(kind: &str, path: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(kind), path, Some(kind), flags, None::<&str>).with_context(|| format!("no {kind} on {path}"))
}

fn mount_flags(path: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).with_context(|| format!("no {flags:?} for {path}"))
}

fn bind(source: impl AsRef<Path>, path: impl AsRef<Path>, flags: MsFlags) -> Result<()> {
    let (source, path) = (source.as_ref(), path.as_ref());
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>)
        .with_context(|| format!("{} cannot be bound to {}", source.display(), path.display()))
}
