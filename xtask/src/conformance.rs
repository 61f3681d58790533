//! Tests of others against the product: `cargo xtask conformance netpol | cyclonus | network-policy-api`.
//!
//! The product enforces on a cluster of its own. The report names every case, with what it was run on.

mod cyclonus;
mod netpol;
mod policy_api;
mod record;
mod report;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use self::report::Report;
use crate::{
    cluster::{Cluster, Product, Shape},
    command::{root, succeeds},
    ebpf, machine, services, setup,
};

/// A cluster that runs already is another instance.
const INSTANCE: &str = "conformance";
const REPORTS: &str = "docs/conformance";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Kubernetes' own tests of NetworkPolicy. A whole run takes some twenty minutes, and writes docs/conformance/netpol.md.
    Netpol(netpol::Options),
    /// The cases that cyclonus generates, each probe also compared with the record. A whole run takes some twenty minutes for
    /// each kind of destination, and writes docs/conformance/cyclonus-DESTINATION.md.
    Cyclonus(cyclonus::Options),
    /// The conformance suite of network-policy-api (ClusterNetworkPolicy, both tiers), on two nodes. Writes
    /// docs/conformance/network-policy-api.md, and beside it the report in the format of that project.
    NetworkPolicyApi(Choice),
}

/// Which cases, and on what.
#[derive(Args, Clone, Debug)]
pub struct Choice {
    /// Only cases whose name contains this; the report is printed instead of written.
    #[arg(long, value_name = "TEXT")]
    focus: Option<String>,
    #[command(flatten)]
    shape: Shape,
}

pub fn run(verb: &Verb) -> Result<()> {
    machine::kernel().map_err(anyhow::Error::msg)?;
    match verb {
        Verb::Netpol(options) => netpol::run(options),
        Verb::Cyclonus(options) => cyclonus::run(options),
        Verb::NetworkPolicyApi(choice) => policy_api::run(choice),
    }
}

/// A cluster with the product on it. Both end on drop, the product first.
struct World {
    product: Product,
    cluster: Cluster,
}

impl World {
    /// The images of the `docker save` archives are there too.
    fn start(shape: Shape, archives: &[PathBuf]) -> Result<Self> {
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

/// Prints the report, or writes it if it is of all cases; an error if a case failed.
fn finish(report: &Report, name: &str, choice: &Choice) -> Result<()> {
    println!("\n{}", report.summary());
    let text = report.markdown(choice.shape);
    match choice.focus {
        Some(_) => println!("\n{text}"),
        None => {
            let path = root().join(REPORTS).join(format!("{name}.md"));
            fs::create_dir_all(root().join(REPORTS))?;
            fs::write(&path, &text).with_context(|| format!("could not write {}", path.display()))?;
            println!("written: {}", path.display());
        }
    }
    match report.failed() {
        0 => Ok(()),
        failed => bail!("{failed} cases failed"),
    }
}

/// Which build of the product this is.
fn version() -> String {
    report::said("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

fn has_sctp() -> bool {
    let known = || fs::read_to_string("/proc/net/protocols").is_ok_and(|text| text.contains("SCTP"));
    known() || (succeeds(Command::new("modprobe").arg("sctp")) && known())
}
