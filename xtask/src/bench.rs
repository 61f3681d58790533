//! Runs the benches, in release, one after the other.

mod cluster;

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    command::{self, cargo},
    ebpf, machine,
};

#[derive(Debug, Args)]
pub struct Options {
    /// Only these: probe, collector, engine (all three by default), cluster.
    benches: Vec<String>,
    /// Pods of the bench `cluster`, all started at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(4..=240))]
    pods: u16,
}

/// The benches, and whether each needs the kernel.
const BENCHES: &[(&str, bool)] = &[("probe", true), ("collector", false), ("engine", false)];

/// The bench on a whole cluster, which takes ten minutes.
const CLUSTER: &str = "cluster";

pub fn run(options: &Options) -> Result<()> {
    let known = BENCHES.iter().map(|(name, _)| *name).chain([CLUSTER]).collect::<Vec<_>>();
    if let Some(unknown) = options.benches.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no bench `{unknown}`: there are {}", known.join(", "));
    }
    for (name, needs_kernel) in BENCHES {
        if !options.benches.is_empty() && !options.benches.iter().any(|chosen| chosen == name) {
            continue;
        }
        println!("\n=== {name}");
        let mut command = cargo();
        // The whole workspace chooses the features, so that the crates of a release build are used.
        command.args(["bench", "--workspace", "--bench", name]);
        if *needs_kernel {
            if let Err(obstacle) = machine::kernel() {
                println!("COULD NOT RUN {name}: {obstacle}");
                continue;
            }
            command.env("NETVERDICT_BPF_OBJECT", ebpf::build()?);
        }
        command::run(&mut command)?;
    }
    if options.benches.iter().any(|chosen| chosen == CLUSTER) {
        machine::kernel().map_err(anyhow::Error::msg)?;
        println!("\n=== {CLUSTER}");
        cluster::run(options.pods.into())?;
    }
    Ok(())
}
