//! Kubernetes' own tests of NetworkPolicy. Every case is a process, so that one that hangs stops no other and the report holds
//! what is known at any time.

mod cases;

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;

use self::cases::{Case, Runner};
use super::{
    choice::Choice,
    report::{Outcome, Report, Suite},
    world::World,
};
use crate::setup;

/// Each case mostly waits. With more, probes of one time out because of the others' load.
const AT_ONCE: usize = 2;
const SUITE: Suite = Suite {
    title: "Kubernetes' own tests of NetworkPolicy",
    about: "Written by `cargo xtask conformance netpol`; not to be edited. The product enforces on a whole real cluster, and\n\
            the tests are those of the Kubernetes release (`test/e2e/network/netpol`). They probe through ClusterIPs.",
    versions: &[("Kubernetes and its tests", setup::KUBERNETES_VERSION)],
};

#[derive(Args, Debug)]
pub struct Options {
    /// Begin no case after so many minutes; those that are left are reported as not run.
    #[arg(long, value_name = "MINUTES")]
    within: Option<u64>,
    #[command(flatten)]
    choice: Choice,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let tests = setup::netpol_tests()?;
    let world = World::start("netpol", options.choice.shape, &[])?;
    let runner = Runner::new(tests, world.cluster.plan())?;
    let report = run_cases(&runner, options)?;
    report.publish("netpol", &options.choice)
}

fn run_cases(runner: &Runner, options: &Options) -> Result<Report> {
    let all = runner.list()?;
    let focus = options.choice.focus.as_ref();
    let (chosen, others): (Vec<Case>, Vec<Case>) =
        all.into_iter().partition(|case| focus.is_none_or(|text| case.name.contains(text)));
    let mut report = Report::new(SUITE);
    for case in others {
        report.add(case.name, Outcome::NotRun("not chosen".to_owned()));
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
            report.add(case.name, outcome);
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
