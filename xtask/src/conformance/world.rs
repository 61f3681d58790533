//! Where a suite runs: a cluster with the product on it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    cluster::{Cluster, Product, Shape},
    command::succeeds,
    ebpf,
    services::{self, Profile},
    setup,
};

/// A cluster with the product on it. Both end on drop, the product first.
pub(super) struct World {
    pub(super) product: Product,
    pub(super) cluster: Cluster,
}

impl World {
    /// The images of the `docker save` archives are there too. Several suites may run at a time, each on an instance of its
    /// own.
    pub(super) fn start(suite: &str, shape: Shape, archives: &[PathBuf]) -> Result<Self> {
        let programs = setup::cluster_programs()?;
        let object = ebpf::build()?;
        services::build(Profile::Dev)?;
        println!("starting Kubernetes {} ({shape}), and the product on it", setup::KUBERNETES_VERSION);
        let cluster = Cluster::start(suite, shape, programs, |step| println!("  {step}"))?;
        archives.iter().try_for_each(|archive| cluster.load(archive))?;
        let product = Product::start(&cluster, &object, Profile::Dev)?;
        Ok(Self { product, cluster })
    }
}

/// Whether the kernel has SCTP sockets.
pub(super) fn has_sctp() -> bool {
    let known = || fs::read_to_string("/proc/net/protocols").is_ok_and(|text| text.contains("SCTP"));
    known() || (succeeds(Command::new("modprobe").arg("sctp")) && known())
}
