//! The parts of a cluster before anything runs: its nodes, addresses, folders and names. It starts nothing.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, ValueEnum};

use crate::command::target;

/// Where Services have their addresses, a range for each family.
pub(super) const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// Where pods have theirs; each node has a part of both.
pub(super) const POD_RANGES: &str = "10.244.0.0/16,fd00:10:244::/48";
/// The Service address of the cluster's DNS server.
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Where the API server listens, inside the first node.
pub(super) const API_PORT: u16 = 6443;

/// The nodes' network, and the host on it that stands for the rest of the world.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 254);
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0xfe);

/// Our CNI plugin, and where a node's collector and the plugin meet: in file systems that the node has for itself. Not the
/// defaults, which a collector installed on this machine may use.
pub(super) const PLUGIN: &str = "netverdict-cni";
pub(super) const PIN_ROOT: &str = "/sys/fs/bpf/netverdict-node";
pub(super) const RUN_DIR: &str = "/run/netverdict-node";

/// Where a node has the configuration of its network and its CNI plugins: one path for all nodes, as an installer finds it on
/// any cluster. In the node's own `/run`, since `/etc` and `/opt` are the machine's.
pub const NETWORK_FOLDER: &str = "/run/cni/net.d";
pub const PLUGIN_FOLDER: &str = "/run/cni/bin";

/// The shape of a cluster.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many nodes; the first has the control plane too.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub nodes: u8,
    /// How kube-proxy forwards the traffic of Services.
    #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
    pub proxy: Proxy,
    /// Which CNI plugin connects pods: a pair of interfaces for each, or a bridge for all.
    #[arg(long, value_enum, default_value_t = Cni::Ptp)]
    pub cni: Cni,
    /// Without our CNI plugin, as on a cluster on which the product is to be installed.
    #[arg(long)]
    pub bare: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Proxy {
    Nftables,
    Iptables,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cni {
    Ptp,
    Bridge,
}

impl Default for Shape {
    fn default() -> Self {
        Self { nodes: 1, proxy: Proxy::Nftables, cni: Cni::Ptp, bare: false }
    }
}

/// As options of the command line; [`Shape::read`] is the inverse.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, proxy, cni, bare } = self;
        let bare = if *bare { " --bare" } else { "" };
        write!(f, "--nodes {nodes} --proxy {proxy} --cni {cni}{bare}")
    }
}

impl Shape {
    pub(super) fn read(text: &str) -> Result<Self> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Line {
            #[command(flatten)]
            shape: Shape,
        }
        let line =
            Line::try_parse_from(text.split_whitespace()).context("the file `shape` of the cluster is damaged")?;
        Ok(line.shape)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ptp => "ptp",
            Self::Bridge => "bridge",
        })
    }
}

/// A cluster that runs, or may run, with everything of it in one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub folder: PathBuf,
    pub shape: Shape,
}

impl Plan {
    /// `instance` keeps clusters apart that run at the same time: each has a folder below `target/cluster`.
    pub fn new(instance: &str, shape: Shape) -> Self {
        Self { folder: folder(instance), shape }
    }

    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        let (folder, marker) = (self.folder.clone(), marker(&self.folder));
        (1..=self.shape.nodes).map(move |number| {
            let name = format!("node{number}");
            Node { number, cgroup: format!("netverdict-{marker}-{name}"), folder: folder.join(&name), name }
        })
    }

    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// An administrator's, for programs on this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// An administrator's, for programs inside a node.
    pub fn kubeconfig_inside(&self) -> PathBuf {
        self.certificates().join("admin.kubeconfig")
    }

    pub(super) fn audit_policy(&self) -> PathBuf {
        self.folder.join("audit-policy.json")
    }

    /// Requests of the product's accounts, a JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }

    /// The [`Shape`], written once everything runs.
    pub(super) fn shape_file(&self) -> PathBuf {
        self.folder.join("shape")
    }

    /// The start of the names of all cgroups of the cluster.
    pub(super) fn cgroup_prefix(&self) -> String {
        format!("netverdict-{}-", marker(&self.folder))
    }
}

pub(super) fn folder(instance: &str) -> PathBuf {
    target().join("cluster").join(instance)
}

/// Differs between clusters, also between those of two clones of the repository.
fn marker(folder: &std::path::Path) -> String {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    format!("{:08x}", hasher.finish() >> 32)
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub number: u8,
    pub name: String,
    /// Its cgroup, in every hierarchy, directly below the root.
    pub cgroup: String,
    pub folder: PathBuf,
}

impl Node {
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, 0, self.number)
    }

    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, self.number.into())
    }

    /// The addresses of its pods, a range for each family.
    pub fn pod_ranges(&self) -> [String; 2] {
        let number = self.number;
        [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")]
    }

    /// [`NETWORK_FOLDER`], as the machine sees it.
    pub fn network_folder(&self) -> PathBuf {
        self.file("cni")
    }

    /// [`PLUGIN_FOLDER`], as the machine sees it.
    pub fn plugin_folder(&self) -> PathBuf {
        self.file("cni-plugins")
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_read_as_it_is_written() {
        for bare in [false, true] {
            let shape = Shape { nodes: 2, proxy: Proxy::Iptables, cni: Cni::Bridge, bare };
            assert_eq!(Shape::read(&shape.to_string()).unwrap(), shape);
        }
        assert!(Shape::read("--nodes 3").is_err());
    }

    #[test]
    fn two_clusters_share_neither_folder_nor_cgroup() {
        let (one, other) = (Plan::new("one", Shape::default()), Plan::new("other", Shape::default()));
        assert_ne!(one.folder, other.folder);
        assert_ne!(one.cgroup_prefix(), other.cgroup_prefix());
        assert!(one.nodes().all(|node| node.cgroup.starts_with(&one.cgroup_prefix())));
    }
}
