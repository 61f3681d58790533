//! A whole real Kubernetes on this machine, for tests and for trying things out. Each node is a set of namespaces, and
//! everything lies below `target/`.

mod attempt;
mod certificates;
mod cgroups;
mod control_plane;
mod images;
mod init;
mod keeper;
mod namespaces;
mod network;
mod node;
mod plan;
mod pods;
mod product;
mod removal;
mod running;

use std::{ffi::OsString, os::unix::process::CommandExt, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

pub use self::{
    attempt::Attempt,
    images::{Agnhost, REGISTRY, agnhost, worker_image},
    namespaces::Namespaces,
    plan::{Cni, NETWORK_FOLDER, Node, OUTSIDE_V4, OUTSIDE_V6, PLUGIN_FOLDER, Plan, Proxy, Shape},
    pods::PodNetwork,
    product::Product,
    running::Cluster,
};
use crate::{machine, setup};

/// The cluster of the command line. Suites have theirs.
const INSTANCE: &str = "dev";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start it; whatever it needs is installed or built first. Safe to repeat.
    Up(Shape),
    /// Remove it, also what a crash has left.
    Down,
    /// Show the parts that run.
    Status,
    /// Import the images of a `docker save` archive on every node.
    Load { archive: PathBuf },
    /// kubectl, with the rights of an administrator.
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The first process of a node's namespaces.
    #[command(hide = true)]
    Init(init::Options),
    /// The process that holds a cluster.
    #[command(hide = true)]
    Keep(keeper::Options),
}

pub fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Up(shape) => up(*shape),
        Verb::Down => {
            let folder = plan::folder(INSTANCE);
            let there = folder.exists();
            removal::remove(&folder)?;
            println!("{}", if there { "the cluster is removed" } else { "there was no cluster" });
            Ok(())
        }
        Verb::Status => status(),
        Verb::Load { archive } => found()?.load(archive),
        Verb::Kubectl { arguments } => Err(found()?.kubectl().args(arguments).exec().into()),
        Verb::Init(options) => init::run(options),
        Verb::Keep(options) => keeper::run(options),
    }
}

fn up(shape: Shape) -> Result<()> {
    machine::kernel().map_err(anyhow::Error::msg)?;
    let programs = setup::cluster_programs()?;
    if let Some(cluster) = Cluster::open(INSTANCE, programs.clone())?.filter(Cluster::is_ready) {
        let runs = cluster.plan().shape;
        if runs != shape {
            bail!("a cluster with {runs} runs: `cargo xtask cluster down` first");
        }
        println!("the cluster runs already");
        print_usage(&cluster);
        return Ok(());
    }
    println!("starting Kubernetes {} ({shape})", setup::KUBERNETES_VERSION);
    let cluster = Cluster::start(INSTANCE, shape, programs, |step| println!("  {step}"))?;
    print_usage(&cluster);
    cluster.let_stay()
}

fn status() -> Result<()> {
    let cluster = found()?;
    println!("Kubernetes {} ({})", setup::KUBERNETES_VERSION, cluster.plan().shape);
    for (node, namespaces) in cluster.nodes() {
        println!(
            "{}: namespaces of process {}, logs {}",
            node.name,
            namespaces.process(),
            cluster.plan().logs().display()
        );
    }
    if !cluster.is_ready() {
        bail!("the API server does not answer: `cargo xtask cluster up` starts a new cluster in its place");
    }
    print!("{}", cluster.ask(&["get", "nodes,pods", "--all-namespaces", "-o", "wide"])?);
    print_usage(&cluster);
    Ok(())
}

fn found() -> Result<Cluster> {
    let programs = setup::found_cluster_programs();
    let cluster = programs.map(|programs| Cluster::open(INSTANCE, programs)).transpose()?.flatten();
    cluster.context("there is no cluster: `cargo xtask cluster up`")
}

fn print_usage(cluster: &Cluster) {
    println!("\nexport KUBECONFIG={}", cluster.plan().kubeconfig().display());
    println!("kubectl:               cargo xtask cluster kubectl get pods -A");
    println!("                       {}", cluster.kubectl().get_program().display());
    println!("the image of agnhost:  {}; others: cargo xtask cluster load IMAGE.tar", agnhost());
    let process = cluster.node().process();
    println!("inside the first node: nsenter --target {process} --mount --net --pid --uts --ipc COMMAND");
    println!("remove it:             cargo xtask cluster down");
}
