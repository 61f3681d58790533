//! The cases of Kubernetes' own tests of NetworkPolicy: lists them, and runs one in a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    cluster::Plan,
    conformance::{report::Outcome, world::has_sctp},
};

/// How the names of all cases start.
const PREFIX: &str = "[sig-network] Netpol ";
/// A case that passes takes half a minute; one that fails repeats its probes for some minutes.
const MOST_TIME: &str = "12m";

/// Runs cases against one cluster.
pub(super) struct Runner {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Tells the program that its images come from the cluster's own registry.
    registries: PathBuf,
    folder: PathBuf,
    runs: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Case {
    /// Without the prefix that all have.
    pub(super) name: String,
}

impl Case {
    /// Why it cannot pass here, whoever enforces.
    pub(super) fn obstacle(&self) -> Option<String> {
        // Others name the protocol in a policy only, and send none of it.
        let needs_sctp = self.name.contains("[Feature:SCTPConnectivity]");
        (needs_sctp && !has_sctp()).then(|| "the kernel has no SCTP (CONFIG_IP_SCTP)".to_owned())
    }
}

impl Runner {
    pub(super) fn new(program: PathBuf, plan: &Plan) -> Result<Self> {
        let folder = plan.folder.join("netpol");
        fs::create_dir_all(&folder)?;
        let registries = folder.join("registries.yaml");
        fs::write(&registries, format!("promoterE2eRegistry: {}\n", crate::cluster::REGISTRY))?;
        Ok(Self { program, kubeconfig: plan.kubeconfig(), registries, folder, runs: AtomicU64::new(0) })
    }

    /// All cases, in the order of their names.
    pub(super) fn list(&self) -> Result<Vec<Case>> {
        let folder = self.folder.join("list");
        let reports = self.start(&folder, ".", &["--ginkgo.dry-run"])?;
        let mut cases: Vec<Case> = reports
            .iter()
            .filter_map(|report| Some(Case { name: full_name(report).strip_prefix(PREFIX)?.to_owned() }))
            .collect();
        cases.sort();
        if cases.is_empty() {
            bail!("{} has no cases whose names start with `{PREFIX}`", self.program.display());
        }
        Ok(cases)
    }

    pub(super) fn run(&self, case: &Case) -> Outcome {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("case-{run}"));
        let name = format!("{PREFIX}{}", case.name);
        let reports = self.start(&folder, &format!("{}$", escaped(&name)), &[]);
        let report = reports.and_then(|all| {
            all.into_iter().find(|report| full_name(report) == name).context("the program reports no such case")
        });
        match report {
            Ok(report) => outcome(&report),
            Err(error) => Outcome::Failed(Duration::ZERO, first_line(&format!("{error:#}"))),
        }
    }

    /// Runs the program, and returns its reports of single cases. It ends with an error if a case failed: the reports tell.
    fn start(&self, folder: &Path, focus: &str, options: &[&str]) -> Result<Vec<Value>> {
        fs::create_dir_all(folder)?;
        let report = folder.join("report.json");
        let log = fs::File::create(folder.join("log"))?;
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--provider", "skeleton", "--repo-root", "/"]);
        command.args(["--disable-log-dump", "--dump-logs-on-failure=false", "--ginkgo.no-color", "--ginkgo.v"]);
        command.arg("--e2e-output-dir").arg(folder).arg("--ginkgo.json-report").arg(&report);
        command.args(["--ginkgo.timeout", MOST_TIME, "--ginkgo.focus", focus]).args(options);
        command.env("KUBE_TEST_REPO_LIST", &self.registries).current_dir(folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let status = command.status().with_context(|| format!("could not start {}", self.program.display()))?;
        let text = fs::read_to_string(&report).with_context(|| {
            format!("the program ended with {status} and without a report; see {}", folder.join("log").display())
        })?;
        let mut suites: Value = serde_json::from_str(&text)?;
        match suites[0]["SpecReports"].take() {
            Value::Array(reports) => Ok(reports.into_iter().filter(|report| report["LeafNodeType"] == "It").collect()),
            _ => bail!("{} is no report of Ginkgo", report.display()),
        }
    }
}

fn outcome(report: &Value) -> Outcome {
    let time = Duration::from_nanos(report["RunTime"].as_u64().unwrap_or(0));
    let message = first_line(report["Failure"]["Message"].as_str().unwrap_or("no reason is given"));
    match report["State"].as_str().unwrap_or_default() {
        "passed" => Outcome::Passed(time),
        "skipped" | "pending" => Outcome::NotRun(message),
        state => Outcome::Failed(time, format!("{state}: {message}")),
    }
}

/// As Ginkgo shows it, and as a focus is compared with it.
fn full_name(report: &Value) -> String {
    let containers = report["ContainerHierarchyTexts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words = containers.iter().chain([&report["LeafNodeText"]]).filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

/// A regular expression that matches only this text.
fn escaped(text: &str) -> String {
    let mut pattern = String::new();
    for letter in text.chars() {
        if letter.is_ascii_punctuation() {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_of_ginkgo_is_read() {
        let report = |state: &str| {
            json!({
                "ContainerHierarchyTexts": ["[sig-network] Netpol", "between server and client"],
                "LeafNodeText": "should deny", "State": state, "RunTime": 2_000_000_000_u64,
                "Failure": { "Message": "had 3 wrong results\nin all" },
            })
        };
        assert_eq!(full_name(&report("passed")), "[sig-network] Netpol between server and client should deny");
        let two = Duration::from_secs(2);
        assert_eq!(outcome(&report("passed")), Outcome::Passed(two));
        assert_eq!(outcome(&report("skipped")), Outcome::NotRun("had 3 wrong results".to_owned()));
        assert_eq!(outcome(&report("timedout")), Outcome::Failed(two, "timedout: had 3 wrong results".to_owned()));
    }

    #[test]
    fn a_name_matches_only_itself() {
        assert_eq!(escaped("[a] 'b' c.d"), r"\[a\] \'b\' c\.d");
    }
}
