//! Runs the benches, in release, one after the other.

use anyhow::Result;
use clap::Args;

use crate::{
    command::{self, cargo},
    ebpf, machine,
};

#[derive(Debug, Args)]
pub struct Options {
    /// Only these (probe, collector, engine); all by default.
    benches: Vec<String>,
}

/// The benches, and whether each needs the kernel.
const BENCHES: &[(&str, bool)] = &[("probe", true), ("collector", false), ("engine", false)];

pub fn run(options: &Options) -> Result<()> {
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
    Ok(())
}
