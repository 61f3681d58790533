//! The cases that cyclonus generates. `tests/cluster/cyclonus` makes the changes and the probes; here each probe is judged, by
//! what the policies ask for and by what the product recorded about it.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::{
    choice::Choice,
    probe::Probe,
    record::Denials,
    report::{Outcome, Report, Suite, few},
    world::{World, has_sctp},
};
use crate::{cluster, cluster::Product, setup};

const SUITE: Suite = Suite {
    title: "The cases that cyclonus generates",
    about: "Written by `cargo xtask conformance cyclonus`; not to be edited. The product enforces on a whole real cluster. Cases and\n\
            expectations are those of cyclonus; a program of our own in each pod makes its connections, all at once, each with a\n\
            second's time after its name is resolved. A case passes if every probe of every step fares as its policies ask, and\n\
            the record agrees: a denial with exactly the policies that deny for each blocked probe, none for an allowed one. A\n\
            probe that differs is repeated, up to six times. What a pod sends to itself is always allowed and left out (cyclonus\n\
            has an option for it). Where a case takes from a pod the labels that its Service asks for, probes end at the Service,\n\
            and nothing has to be on record.",
    versions: &[("Kubernetes", setup::KUBERNETES_VERSION), ("cyclonus", setup::CYCLONUS_VERSION)],
};
#[derive(Args, Debug)]
pub struct Options {
    /// Where the probes go.
    #[arg(long, value_enum, default_value_t = Destination::PodIp)]
    destination: Destination,
    /// How long a change may take to come into force.
    #[arg(long, default_value = "1000", value_name = "MILLISECONDS")]
    settle: u64,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Destination {
    PodIp,
    ServiceIp,
    ServiceName,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodIp => "pod-ip",
            Self::ServiceIp => "service-ip",
            Self::ServiceName => "service-name",
        })
    }
}

/// A line of the program.
#[derive(Debug, Deserialize)]
struct Case {
    number: usize,
    of: usize,
    description: String,
    tags: Vec<String>,
    steps: Option<Vec<Step>>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Step {
    /// Nanoseconds since 1970.
    began: i64,
    ended: i64,
    attempts: u32,
    probes: Vec<Probe>,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let agnhost = setup::cluster_programs()?.kubernetes.join("agnhost");
    let programs = setup::cyclonus()?;
    let name = format!("cyclonus-{}", options.destination);
    let world = World::start(&name, options.choice.shape, &[cluster::worker_image(&agnhost, &programs.worker)?])?;
    let (started, mut report) = (Instant::now(), Report::new(SUITE));
    let mut generator = Generator::start(&world, programs.generator, options)?;
    while let Some(case) = generator.next()? {
        let outcome = judge(&case, &world.product)?;
        let title = format!("{:03} {} ({})", case.number, case.description, case.tags.join(", "));
        println!("[{}/{}, {} s] {outcome}: {title}", case.number, case.of, started.elapsed().as_secs());
        report.add(title, outcome);
    }
    report.publish(&name, &options.choice)
}

fn judge(case: &Case, product: &Product) -> Result<Outcome> {
    let steps = case.steps.as_deref().unwrap_or_default();
    let time = steps.first().zip(steps.last()).map_or(0, |(first, last)| last.ended - first.began);
    let time = Duration::from_nanos(u64::try_from(time).unwrap_or(0));
    let mut faults = Vec::new();
    for (number, step) in (1..).zip(steps) {
        let wrong = step.probes.iter().filter(|probe| probe.expected != probe.observed);
        let told = wrong.map(|probe| format!("{probe} was {}, not {}", probe.observed, probe.expected));
        let mut of_step = few(told.collect());
        if of_step.is_empty() {
            of_step = few(Denials::until_complete(product, step.began, step.ended, &step.probes)?);
        }
        let tried = step.attempts;
        faults.extend(of_step.into_iter().map(|fault| format!("step {number}, attempt {tried}: {fault}")));
    }
    faults.extend(case.error.clone());
    Ok(match faults.is_empty() {
        true => Outcome::Passed(time),
        false => Outcome::Failed(time, faults.join("; ")),
    })
}

/// The program that makes changes and probes. Ends on drop.
struct Generator {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    log: PathBuf,
}

impl Generator {
    fn start(world: &World, program: PathBuf, options: &Options) -> Result<Self> {
        let folder = world.cluster.plan().folder.join("cyclonus");
        fs::create_dir_all(&folder)?;
        let log = folder.join("log");
        let protocols = if has_sctp() { "TCP,UDP,SCTP" } else { "TCP,UDP" };
        let mut command = Command::new(&program);
        command.args(["--destination", &options.destination.to_string(), "--protocols", protocols]);
        command.args(["--registry", cluster::REGISTRY, "--settle", &format!("{}ms", options.settle)]);
        command.args(["--only", options.choice.focus.as_deref().unwrap_or_default()]);
        command.env("KUBECONFIG", world.cluster.plan().kubeconfig()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().with_context(|| format!("could not start {}", program.display()))?;
        let lines = BufReader::new(child.stdout.take().context("it was piped")?).lines();
        Ok(Self { child, lines, log })
    }

    fn next(&mut self) -> Result<Option<Case>> {
        if let Some(line) = self.lines.next() {
            return Ok(Some(serde_json::from_str(&line?).context("no case of cyclonus")?));
        }
        match self.child.wait()? {
            status if status.success() => Ok(None),
            status => bail!("cyclonus ended with {status}; see {}", self.log.display()),
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // It has ended, unless an error stands in the way.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
