//! network-policy-api's conformance suite: ClusterNetworkPolicy in both tiers, as its project publishes it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    choice::Choice,
    report::{self, Outcome, Report, Suite, version},
    world::{World, has_sctp},
};
use crate::{
    cluster::{Agnhost, Shape},
    setup,
};

/// The image that its manifests name.
const IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.45";
/// The test that all others are parts of.
const TEST: &str = "TestConformanceProfiles";
/// Begins a line of the test's own, as opposed to what it prints.
const MARKER: char = '\x16';
const SUITE: Suite = Suite {
    title: "The conformance suite of network-policy-api",
    about: "Written by `cargo xtask conformance network-policy-api`; not to be edited. The product enforces on a whole real cluster\n\
            of two nodes; the suite and its manifests are used as published, with all features. Where the kernel has no SCTP, a\n\
            program in the pods begins and answers associations over raw sockets. The report in the project's own format is\n\
            [network-policy-api.yaml](network-policy-api.yaml).",
    versions: &[("Kubernetes", setup::KUBERNETES_VERSION), ("network-policy-api", setup::POLICY_API_VERSION)],
};

pub(super) fn run(choice: &Choice) -> Result<()> {
    // Its pods with the network of a node need a node each.
    let choice = Choice { shape: Shape { nodes: 2, ..choice.shape }, ..choice.clone() };
    let suite = setup::policy_api()?;
    let agnhost = setup::cluster_programs()?.kubernetes.join("agnhost");
    let (bash, front) = (setup::static_bash()?, if has_sctp() { None } else { Some(setup::sctp()?) });
    let image = Agnhost { agnhost: &agnhost, bash: &bash, front: front.as_deref() };
    let world = World::start("policy-api", choice.shape, &[image.save(IMAGE, suite.tests.with_extension("tar"))?])?;
    world.cluster.apply(&fs::read_to_string(&suite.definition)?)?;
    let folder = world.cluster.plan().folder.join("network-policy-api");
    fs::create_dir_all(&folder)?;
    let published = folder.join("report.yaml");
    let mut report = Report::new(SUITE);
    run_tests(&world, &suite.tests, &published, &choice, &mut report)?;
    if choice.focus.is_none() && published.is_file() {
        fs::copy(&published, report::folder()?.join("network-policy-api.yaml"))?;
    }
    report.publish("network-policy-api", &choice)
}

fn run_tests(world: &World, tests: &Path, published: &Path, choice: &Choice, report: &mut Report) -> Result<()> {
    let plan = world.cluster.plan();
    let focus = choice.focus.as_ref().map(|text| format!("/{text}")).unwrap_or_default();
    let mut command = Command::new(tests);
    command.args(["-test.v=test2json", "-test.timeout=0", "-test.run", &format!("^{TEST}${focus}"), "-all-features"]);
    command.args(["-conformance-profiles", "ClusterNetworkPolicy", "-report-output"]).arg(published);
    command.args(["-organization", "netverdict", "-project", "netverdict", "-version", &version()]);
    command.args(["-url", "https://netverdict.io", "-contact", "https://netverdict.io"]);
    command.args(["-additional-info", "cargo xtask conformance network-policy-api"]);
    command.env("KUBECONFIG", plan.kubeconfig()).current_dir(&plan.folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("could not start {}", tests.display()))?;
    let log_path = published.with_file_name("log");
    let mut log = fs::File::create(&log_path)?;
    let mut ended = 0;
    for line in BufReader::new(child.stdout.take().context("it was piped")?).lines() {
        let line = line?;
        writeln!(log, "{line}")?;
        if let Some((name, outcome)) = read(&line) {
            ended += 1;
            println!("[{ended}, {} s] {outcome}: {name}", started.elapsed().as_secs());
            report.add(name, outcome);
        }
    }
    child.wait()?;
    // A fault of the suite itself, as opposed to one of its tests.
    if ended == 0 {
        bail!("no test of the suite ran; see {}", log_path.display());
    }
    Ok(())
}

/// The outcome of a single test, if the line tells one: `--- PASS: TestConformanceProfiles/Group/Test_name (1.23s)`.
fn read(line: &str) -> Option<(String, Outcome)> {
    // As test2json has it, which is told of each test as it ends.
    let line = line.trim_start_matches([' ', MARKER]);
    let (state, rest) = line.strip_prefix("--- ")?.split_once(": ")?;
    let (name, time) = rest.rsplit_once(" (")?;
    let (group, name) = name.strip_prefix(TEST)?.strip_prefix('/')?.split_once('/')?;
    let time = Duration::try_from_secs_f64(time.strip_suffix("s)")?.parse().ok()?).ok()?;
    let outcome = match state {
        "PASS" => Outcome::Passed(time),
        "SKIP" => Outcome::NotRun("the suite left it out".to_owned()),
        _ => Outcome::Failed(time, "see the log of the suite".to_owned()),
    };
    Some((format!("{group}: {}", name.replace('_', " ")), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_of_single_tests_are_read() {
        let line = "\x16--- PASS: TestConformanceProfiles/Gress/Should_allow_all (1.50s)";
        let expected = ("Gress: Should allow all".to_owned(), Outcome::Passed(Duration::from_millis(1500)));
        assert_eq!(read(line), Some(expected));
        assert!(matches!(read(&line.replace("PASS", "FAIL")), Some((_, Outcome::Failed(..)))));
        assert_eq!(read("    --- PASS: TestConformanceProfiles/Gress (9.00s)"), None, "a group");
        assert_eq!(read("=== RUN   TestConformanceProfiles/Gress/Should_allow_all"), None);
    }
}
