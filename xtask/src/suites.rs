//! Runs the tests, suite by suite, and names at the end each suite that could not run and why.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    command::{self, cargo},
    ebpf, machine, services, setup,
};

#[derive(Debug, Args)]
pub struct Options {
    /// Only these suites (unit, tidy, conformance, query, kernel, …); all by default.
    suites: Vec<String>,
    /// Fail if a suite could not run. Set in CI (`CI=true`).
    #[arg(long, env = "CI", value_parser = clap::builder::FalseyValueParser::new())]
    require_all: bool,
    /// Name the suites and stop.
    #[arg(long)]
    list: bool,
}

/// What a suite needs beside a Rust toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Root, BPF, network namespaces, and the BPF object.
    Kernel,
    /// Python with duckdb and pyarrow.
    Readers,
}

struct Suite {
    name: &'static str,
    about: &'static str,
    need: Need,
    /// Arguments of `cargo test`.
    arguments: &'static [&'static str],
}

const SUITES: &[Suite] = &[
    Suite {
        name: "unit",
        about: "each crate's own tests: behaviour, laws, fuzzed decoders",
        need: Need::Nothing,
        arguments: &["--workspace", "--exclude", "netverdict-tests"],
    },
    Suite {
        name: "tidy",
        about: "imports, file sizes, no mod.rs, glossary, golden layouts",
        need: Need::Nothing,
        arguments: &["-p", "netverdict-tests", "--test", "tidy"],
    },
    Suite {
        name: "conformance",
        about: "every case of the semantics through the evaluator and the compiled tables",
        need: Need::Nothing,
        arguments: &["-p", "netverdict-tests", "--test", "conformance"],
    },
    Suite {
        name: "kernel",
        about: "real programs on veths, real sockets: verdicts, truth tables, take-over, fuzzed packets",
        need: Need::Kernel,
        arguments: &["-p", "netverdict-tests", "--test", "kernel", "--", "--test-threads=1"],
    },
    Suite {
        name: "pipeline",
        about: "kernel to Parquet to an answer: kills, restarts, full disks, exact counts",
        need: Need::Kernel,
        arguments: &["-p", "netverdict-tests", "--test", "pipeline", "--", "--test-threads=1"],
    },
    Suite {
        name: "readers",
        about: "DuckDB and pyarrow read what we write",
        need: Need::Readers,
        arguments: &["-p", "netverdict-tests", "--test", "readers"],
    },
];

enum Outcome {
    Passed(u64),
    Failed(String),
    CouldNotRun(String),
}

pub fn run(options: &Options) -> Result<()> {
    if options.list {
        for suite in SUITES {
            println!("{:<12} {}", suite.name, suite.about);
        }
        return Ok(());
    }
    let chosen = choose(&options.suites)?;
    let mut outcomes = Vec::new();
    for suite in chosen {
        println!("\n=== {}: {}", suite.name, suite.about);
        let started = Instant::now();
        let outcome = match prepare(suite.need) {
            Err(reason) => Outcome::CouldNotRun(reason),
            Ok(environment) => match command::run(cargo().arg("test").args(suite.arguments).envs(environment)) {
                Ok(()) => Outcome::Passed(started.elapsed().as_secs()),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            },
        };
        outcomes.push((suite.name, outcome));
    }
    report(&outcomes, options.require_all)
}

fn choose(names: &[String]) -> Result<Vec<&'static Suite>> {
    if let Some(unknown) = names.iter().find(|name| !SUITES.iter().any(|suite| suite.name == **name)) {
        bail!(
            "no suite `{unknown}`: there are {}",
            SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(SUITES.iter().filter(|suite| names.is_empty() || names.iter().any(|name| name == suite.name)).collect())
}

/// What has to be there before a suite is built; the error is why it cannot run here.
fn prepare(need: Need) -> Result<Vec<(&'static str, String)>, String> {
    match need {
        Need::Nothing => Ok(Vec::new()),
        Need::Kernel => {
            setup::network_tools().map_err(|error| format!("{error:#}"))?;
            machine::kernel()?;
            let object = ebpf::build().map_err(|error| format!("{error:#}"))?;
            // The suites run the daemons as a user would: as programs.
            services::build().map_err(|error| format!("{error:#}"))?;
            Ok(vec![
                ("NETVERDICT_BPF_OBJECT", object.display().to_string()),
                ("NETVERDICT_REQUIRE_KERNEL", "1".to_owned()),
            ])
        }
        Need::Readers => {
            let python = setup::reader_tools().map_err(|error| format!("{error:#}"))?;
            Ok(vec![("NETVERDICT_PYTHON", python.display().to_string())])
        }
    }
}

fn report(outcomes: &[(&str, Outcome)], require_all: bool) -> Result<()> {
    println!();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Passed(seconds) => {
                passed += 1;
                println!("passed         {name} ({seconds} s)");
            }
            Outcome::Failed(error) => {
                failed += 1;
                println!("FAILED         {name}: {error}");
            }
            Outcome::CouldNotRun(reason) => {
                skipped += 1;
                println!("COULD NOT RUN  {name}: {reason}");
            }
        }
    }
    println!("suites: {passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} of {} suites failed", outcomes.len());
    }
    if skipped > 0 && require_all {
        bail!("{skipped} of {} suites could not run, and all are required here", outcomes.len());
    }
    Ok(())
}
