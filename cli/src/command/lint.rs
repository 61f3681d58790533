//! `lint`: what people get wrong in manifests, and in what a cluster holds.

use clap::{Args, ValueEnum};
use netverdict_manifest::{Finding, Origin, Severity};

use crate::{
    exit::Exit,
    objects::{ObjectsOrigin, Sources},
    structured::{json, yaml},
    terminal::{Paint, Terminal, plain},
};

/// Finds what is wrong, or seldom meant, in manifests or in a cluster
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// How to print the findings
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

const AFTER_HELP: &str = "\
Examples:
  A folder, with the pods and namespaces that the policies are about
    {program} lint -f policies/ -f pods.yaml
  What a chart would install
    helm template chart | {program} lint -f -
  What the cluster of the current context holds
    {program} lint
  A policy before it is applied, with the cluster's pods, namespaces and other policies in view
    {program} lint -f policy.yaml --context production

Without -f it reads the cluster that kubectl would ask. With -f and --kubeconfig or --context it lays the manifests \
over that cluster and tells what it finds about the manifests. With -f alone it knows nothing but the manifests: \
without pods among them it says nothing of selectors that match none.

Exit codes: 0 nothing of severity error was found (warnings may have been), 1 an error was found, or it failed, 2 the \
arguments were not understood.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

pub(crate) async fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let mut given = arguments.sources.read(terminal).await?;
    let reading = netverdict_manifest::snapshot(&given.objects);
    let among = netverdict_manifest::lint(&reading);
    let mut findings = given.findings;
    findings.extend(reading.findings);
    findings.extend(among);
    if given.origin == ObjectsOrigin::ManifestsOverCluster {
        // The cluster is there to judge the manifests by.
        let api = Origin::Api.to_string();
        findings.retain(|finding| finding.origin.as_deref() != Some(&api));
        given.objects.retain(|object| object.origin != Origin::Api);
    }
    // By severity, worst first; within one in the order of the files.
    findings.sort_by_key(|finding| finding.severity);
    match arguments.output {
        Output::Table => terminal.print(&report(&findings, given.objects.len(), terminal.paint()))?,
        Output::Json => terminal.print(&json(&findings)?)?,
        Output::Yaml => terminal.print(&yaml(&findings)?)?,
    }
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if failed { Exit::Error } else { Exit::Done })
}

/// Each finding with its remedy, and a line that sums up.
fn report(findings: &[Finding], objects: usize, paint: Paint) -> String {
    let mut text: String = findings.iter().map(|finding| entry(finding, paint)).collect();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let part = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    text.push_str(&format!(
        "{}: {}, {}, {}\n",
        part(objects, "object"),
        part(errors, "error"),
        part(warnings, "warning"),
        part(count(Severity::Info), "note"),
    ));
    text
}

fn entry(finding: &Finding, paint: Paint) -> String {
    let severity = match finding.severity {
        Severity::Error => paint.red("error"),
        Severity::Warning => paint.yellow("warning"),
        Severity::Info => paint.dim("info"),
    };
    let mut place: Vec<String> = finding.object.iter().map(ToString::to_string).collect();
    if !finding.field.is_empty() {
        place.push(finding.field.clone());
    }
    let origin = finding.origin.as_ref().map_or(String::new(), |origin| paint.dim(&format!("  ({})", plain(origin))));
    let place = if place.is_empty() { String::new() } else { format!(" {}", plain(&place.join(", "))) };
    let message = plain(&finding.message).into_owned();
    let remedy = match finding.remedy.as_str() {
        "" => String::new(),
        remedy => format!("    {}\n", plain(remedy)),
    };
    format!("{severity}[{}]{place}{origin}\n    {message}\n{remedy}", finding.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_with_object_field_reason_and_remedy() {
        let text = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: db, name: allow-api}
spec:
  podSelector: {}
  policyTypes: Ingress
";
        let (objects, _) = netverdict_manifest::read(text, "allow.yaml");
        let findings = netverdict_manifest::snapshot(&objects).findings;
        let report = report(&findings, objects.len(), Paint::default());
        assert!(
            report.starts_with(
                "error[invalid-policy-types] NetworkPolicy db/allow-api, spec.policyTypes  (allow.yaml#1)\n    "
            ),
            "{report}"
        );
        assert!(report.ends_with("\n1 object: 1 error, 0 warnings, 0 notes\n"), "{report}");
    }
}
