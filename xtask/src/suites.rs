//! Runs the tests, suite by suite. The summary names each suite that could not run, and why.
//!
//! All test programs are built once, with one set of features. What else a suite needs is installed while cargo compiles.

mod programs;
mod supply_chain;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::programs::TestProgram;
use crate::{command, ebpf, machine, package, progress, setup};

#[derive(Debug, Args)]
pub struct Options {
    /// Only these suites (unit, tidy, conformance, kernel, …); all by default.
    suites: Vec<String>,
    /// Fail if a suite could not run. Set in CI (`CI=true`).
    #[arg(long, env = "CI", value_parser = clap::builder::FalseyValueParser::new())]
    require_all: bool,
    /// Name the suites and stop.
    #[arg(long)]
    list: bool,
}

/// What a suite needs beside a Rust toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    /// Tools of packages, without which some of its tests check nothing, and say so.
    Packaging,
    /// Root, BPF, network namespaces, and the BPF object.
    Kernel,
    /// Python with duckdb and pyarrow.
    Readers,
    /// A Kubernetes API server and its store.
    Cluster,
    /// All programs of a cluster, and what [`Need::Kernel`] is.
    LiveCluster,
    /// The same as [`Need::Kernel`], and systemd and dpkg.
    Systemd,
    /// cargo-deny.
    Deny,
}

/// The environment variables of a suite's programs, or why the suite cannot run here.
type Prepared = Result<Vec<(&'static str, String)>, String>;

struct Suite {
    name: &'static str,
    about: &'static str,
    need: Need,
}

/// `unit` has the test programs of all crates but `netverdict-tests`; each of that crate's is a suite of its own.
const SUITES: &[Suite] = &[
    Suite { name: "unit", about: "each crate's own tests: behaviour, laws, fuzzed decoders", need: Need::Packaging },
    Suite {
        name: "tidy",
        about: "imports, file sizes, names, words, rule numbers, golden layouts",
        need: Need::Nothing,
    },
    Suite {
        name: "supply-chain",
        about: "licences, sources, advisories, and crates that are there twice, of both lock files",
        need: Need::Deny,
    },
    Suite {
        name: "conformance",
        about: "every case of the semantics through the evaluator and the compiled tables",
        need: Need::Nothing,
    },
    Suite {
        name: "cluster",
        about: "a real Kubernetes API server is read: objects, rights, pages, what it does not serve",
        need: Need::Cluster,
    },
    Suite { name: "readers", about: "DuckDB and pyarrow read what we write", need: Need::Readers },
    Suite {
        name: "kernel",
        about: "real programs on veths: load, attach, publish, judge, adopt, detach",
        need: Need::Kernel,
    },
    Suite { name: "datapath", about: "every case of the semantics through the real programs", need: Need::Kernel },
    Suite {
        name: "truth",
        about: "who reaches whom under each policy set, random policies, edits under traffic, a million fuzzed packets",
        need: Need::Kernel,
    },
    Suite {
        name: "pipeline",
        about: "kernel to Parquet to an answer: kills, restarts, full disks, exact counts",
        need: Need::Kernel,
    },
    Suite {
        name: "packages",
        about: "Debian packages under a systemd of their own: install, enforce and answer, upgrade, remove, purge",
        need: Need::Systemd,
    },
    Suite {
        name: "cluster-live",
        about: "a whole real cluster with the product on it: pods of a kubelet are judged, and told why; the chart comes and goes",
        need: Need::LiveCluster,
    },
];

enum Outcome {
    /// The time it took, and what it could not check.
    Passed(Duration, Option<String>),
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
    let (programs, prepared) = build_and_prepare(&chosen)?;
    let mut outcomes = Vec::new();
    for suite in chosen {
        println!("\n=== {}: {}", suite.name, suite.about);
        let started = Instant::now();
        let outcome = match &prepared[&suite.need] {
            Err(reason) => Outcome::CouldNotRun(reason.clone()),
            Ok(environment) => match run_suite(suite, &programs, environment) {
                Ok(unseen) => Outcome::Passed(started.elapsed(), unseen),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            },
        };
        outcomes.push((suite.name, outcome));
    }
    report(&outcomes, options.require_all)
}

fn choose(names: &[String]) -> Result<Vec<&'static Suite>> {
    if let Some(unknown) = names.iter().find(|name| !SUITES.iter().any(|suite| suite.name == **name)) {
        let known: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        bail!("no suite `{unknown}`: there are {}", known.join(", "));
    }
    Ok(SUITES.iter().filter(|suite| names.is_empty() || names.iter().any(|name| name == suite.name)).collect())
}

/// Builds the test programs, if a suite has any, and installs at the same time what the suites need.
fn build_and_prepare(chosen: &[&Suite]) -> Result<(Vec<TestProgram>, BTreeMap<Need, Prepared>)> {
    thread::scope(|scope| {
        // Several suites have one need, and it is prepared once.
        let needs: BTreeSet<Need> = chosen.iter().map(|suite| suite.need).collect();
        let needs: BTreeMap<Need, _> =
            needs.into_iter().map(|need| (need, scope.spawn(move || prepare(need)))).collect();
        let programs = match chosen.iter().all(|suite| suite.need == Need::Deny) {
            true => Vec::new(),
            false => programs::build()?,
        };
        Ok((programs, needs.into_iter().map(|(need, thread)| (need, progress::join(thread))).collect()))
    })
}

fn prepare(need: Need) -> Prepared {
    match need {
        Need::Nothing => Ok(Vec::new()),
        Need::Packaging => {
            for missing in [setup::dpkg_deb(), setup::systemd_analyze()].into_iter().filter_map(Result::err) {
                println!("{missing:#}");
            }
            Ok(Vec::new())
        }
        Need::Kernel => prepare_kernel(),
        Need::Cluster => {
            let programs = setup::kubernetes_api().map_err(|error| format!("{error:#}"))?;
            Ok(vec![("NETVERDICT_KUBERNETES", programs.display().to_string())])
        }
        Need::LiveCluster => {
            let mut environment = prepare_kernel()?;
            setup::cluster_programs().map_err(|error| format!("{error:#}"))?;
            setup::helm().map_err(|error| format!("{error:#}"))?;
            environment.push(("NETVERDICT_LIVE_CLUSTER", "1".to_owned()));
            Ok(environment)
        }
        Need::Systemd => {
            let environment = prepare_kernel()?;
            for tool in [setup::dpkg_deb(), setup::systemd_analyze()] {
                tool.map_err(|error| format!("{error:#}"))?;
            }
            package::trial_is_possible()?;
            Ok(environment)
        }
        Need::Deny => {
            let program = setup::cargo_deny().map_err(|error| format!("{error:#}"))?;
            Ok(vec![(supply_chain::PROGRAM, program.display().to_string())])
        }
        Need::Readers => {
            let python = setup::reader_tools().map_err(|error| format!("{error:#}"))?;
            Ok(vec![("NETVERDICT_PYTHON", python.display().to_string())])
        }
    }
}

fn prepare_kernel() -> Prepared {
    // Two needs ask for it at the same time, and the object is built once.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    setup::network_tools().map_err(|error| format!("{error:#}"))?;
    machine::kernel()?;
    let object = ebpf::build().map_err(|error| format!("{error:#}"))?;
    Ok(vec![("NETVERDICT_BPF_OBJECT", object.display().to_string()), ("NETVERDICT_REQUIRE_KERNEL", "1".to_owned())])
}

/// Runs all programs of a suite, also after one has failed. Returns what it could not check.
fn run_suite(suite: &Suite, programs: &[TestProgram], environment: &[(&str, String)]) -> Result<Option<String>> {
    if suite.need == Need::Deny {
        let (_, program) = environment.first().context("cargo-deny was prepared")?;
        return supply_chain::check(&PathBuf::from(program));
    }
    if suite.need == Need::Systemd {
        return package::trial(&ebpf::object()).map(|()| None);
    }
    let of_suite = |program: &&TestProgram| match program.package.as_str() {
        "netverdict-tests" => program.target == suite.name,
        _ => suite.name == "unit",
    };
    let mut ran = 0;
    let mut failed = Vec::new();
    for program in programs.iter().filter(of_suite) {
        println!("--- {} {}", program.package, program.target);
        let mut test = Command::new(&program.executable);
        test.current_dir(&program.folder).envs(environment.iter().map(|(name, value)| (name, value)));
        if matches!(suite.need, Need::Kernel | Need::LiveCluster) {
            // Interfaces and pinned maps are the machine's: one test at a time.
            test.arg("--test-threads=1");
        }
        ran += 1;
        if command::run(&mut test).is_err() {
            failed.push(format!("{} {}", program.package, program.target));
        }
    }
    match (ran, failed.is_empty()) {
        (0, _) => bail!("no test program was built for it"),
        (_, true) => Ok(None),
        (_, false) => bail!("failed: {}", failed.join(", ")),
    }
}

fn report(outcomes: &[(&str, Outcome)], require_all: bool) -> Result<()> {
    println!();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Passed(time, unseen) => {
                passed += 1;
                println!("passed         {name} ({} s)", time.as_secs());
                if let Some(unseen) = unseen {
                    println!("               NOT CHECKED: {unseen}");
                }
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
