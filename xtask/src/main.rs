//! Developer verbs: `cargo xtask setup | ebpf | image | package | demo | test | bench | cluster | conformance`.
//!
//! Parses the command line. Each verb installs the tools that it needs.

use clap::{Parser, Subcommand};

use xtask::{bench, cluster, conformance, demo, ebpf, image, package, setup, suites};

/// Netverdict's developer verbs. On a fresh machine `cargo xtask demo` shows the product and `cargo xtask test`
/// passes the tests; each installs what it needs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Find or install the BPF toolchain and the test tools. Safe to repeat; your own toolchains are not changed.
    Setup(setup::Options),
    /// Build the BPF object (target/bpf/netverdict.bpf.o) from probe/ebpf.
    Ebpf,
    /// Write the images of the product as archives of `docker save`, from scratch and without a daemon.
    Image(image::Options),
    /// Write Debian packages, the kubectl plugin, bills of materials and checksums.
    Package(package::Options),
    /// Deny a connection in the kernel and ask which policy did it: a small shop of pods in network namespaces.
    Demo(demo::Options),
    /// Run every suite that this machine can run, and name those that it cannot.
    Test(suites::Options),
    /// Print what the probe costs a packet, and what the collector and the engine cost an event.
    Bench(bench::Options),
    /// A whole real Kubernetes on this machine, in namespaces of its own: up, down, status, load, kubectl.
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Long tests of the product on such a cluster: the suites of others, and churn.
    #[command(subcommand)]
    Conformance(conformance::Verb),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Setup(options) => setup::run(&options),
        Verb::Ebpf => ebpf::build().map(|object| println!("built {}", object.display())),
        Verb::Image(options) => image::run(&options),
        Verb::Package(options) => package::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Test(options) => suites::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Cluster(verb) => cluster::run(&verb),
        Verb::Conformance(verb) => conformance::run(&verb),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
