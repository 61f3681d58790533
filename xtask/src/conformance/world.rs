//! Where a suite runs: a cluster with the product on it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    cluster::{Cluster, Product, Shape},
    command::succeeds,
    ebpf, services, setup,
};

/// A cluster that runs already is another instance.
const INSTANCE: &str = "conformance";

/// A cluster with the product on it. Both end on drop, the product first.
pub(super) struct World {
    pub(super) product: Product,
    pub(super) cluster: Cluster,
}

impl World {
    /// The images of the `docker save` archives are there too.
    pub(super) fn start(shape: Shape, archives: &[PathBuf]) -> Result<Self> {
        let programs = setup::cluster_programs()?;
        let object = ebpf::build()?;
        services::build()?;
        println!("starting Kubernetes {} ({shape}), and the product on it", setup::KUBERNETES_VERSION);
        let cluster = Cluster::start(INSTANCE, shape, programs, |step| println!("  {step}"))?;
        archives.iter().try_for_each(|archive| cluster.load(archive))?;
        let product = Product::start(&cluster, &object)?;
        Ok(Self { product, cluster })
    }
}

/// Whether the kernel has SCTP sockets.
pub(super) fn has_sctp() -> bool {
    let known = || fs::read_to_string("/proc/net/protocols").is_ok_and(|text| text.contains("SCTP"));
    known() || (succeeds(Command::new("modprobe").arg("sctp")) && known())
}
