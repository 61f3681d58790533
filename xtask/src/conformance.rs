//! Kubernetes' own tests of NetworkPolicy against the product: `cargo xtask conformance netpol`.
//!
//! The product enforces on a cluster of its own. Every case is a process, so that one that hangs stops no other and the report
//! holds what is known at any time.

mod cases;
mod report;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use self::{
    cases::{Case, Outcome, Runner},
    report::Report,
};
use crate::{
    cluster::{Cluster, Product, Shape},
    command::root,
    ebpf, machine, services, setup,
};

/// Beside a cluster that runs already.
const INSTANCE: &str = "conformance";
/// Each case mostly waits. With more, probes of one time out because of the others' load.
const AT_ONCE: usize = 2;
const REPORT: &str = "docs/conformance/netpol.md";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Kubernetes' own tests of NetworkPolicy. A whole run takes some twenty minutes, and writes docs/conformance/netpol.md.
    Netpol(Options),
}

#[derive(Args, Debug)]
pub struct Options {
    /// Only cases whose name contains this; the report is printed instead of written.
    #[arg(long, value_name = "TEXT")]
    focus: Option<String>,
    /// Begin no case after so many minutes; those that are left are reported as not run.
    #[arg(long, value_name = "MINUTES")]
    within: Option<u64>,
    #[command(flatten)]
    shape: Shape,
}

pub fn run(verb: &Verb) -> Result<()> {
    let Verb::Netpol(options) = verb;
    machine::kernel().map_err(anyhow::Error::msg)?;
    let programs = setup::cluster_programs()?;
    let tests = setup::netpol_tests()?;
    let object = ebpf::build()?;
    services::build()?;
    println!("starting Kubernetes {} ({}), and the product on it", setup::KUBERNETES_VERSION, options.shape);
    let cluster = Cluster::start(INSTANCE, options.shape, programs, |step| println!("  {step}"))?;
    let _product = Product::start(&cluster, &object)?;
    let runner = Runner::new(tests, cluster.plan())?;
    let report = run_cases(&runner, options)?;
    let text = report.markdown(options.shape);
    println!("\n{}", report.summary());
    match options.focus {
        Some(_) => println!("\n{text}"),
        None => write(&root().join(REPORT), &text)?,
    }
    match report.failed() {
        0 => Ok(()),
        failed => bail!("{failed} cases failed"),
    }
}

fn run_cases(runner: &Runner, options: &Options) -> Result<Report> {
    let all = runner.list()?;
    let (chosen, others): (Vec<Case>, Vec<Case>) =
        all.into_iter().partition(|case| options.focus.as_ref().is_none_or(|text| case.name.contains(text)));
    let mut report = Report::default();
    for case in others {
        report.add(case, Outcome::NotRun("not chosen".to_owned()));
    }
    let (number, started) = (chosen.len(), Instant::now());
    let until = options.within.map(|minutes| started + Duration::from_secs(minutes * 60));
    let (waiting, report) = (Mutex::new(VecDeque::from(chosen)), Mutex::new((0_usize, report)));
    let work = || {
        while let Some(case) = lock(&waiting).pop_front() {
            let outcome = match case.obstacle() {
                Some(obstacle) => Outcome::NotRun(obstacle),
                None if until.is_some_and(|until| Instant::now() > until) => Outcome::NotRun("time was up".to_owned()),
                None => runner.run(&case),
            };
            let (done, report) = &mut *lock(&report);
            *done += 1;
            println!("[{}/{number}, {} s] {outcome}: {}", *done, started.elapsed().as_secs(), case.name);
            report.add(case, outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    Ok(report.into_inner().unwrap_or_else(PoisonError::into_inner).1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder: PathBuf = path.parent().expect("a folder").to_path_buf();
    std::fs::create_dir_all(&folder)?;
    std::fs::write(path, text).with_context(|| format!("could not write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}
