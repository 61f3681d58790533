//! Every conformance case through the direct evaluator and through the compiled tables. The real programs have a test
//! program of their own, `datapath`, because they need more than a toolchain.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netverdict_manifest::{Severity, code};
use netverdict_policy::{Compiler, End, Family, Reason, Snapshot, Verdict, evaluate, tables::IdFloor};
use netverdict_tests::conformance::{Case, FlowCase, KERNEL_LACKS, Need, Spelling, Step, cases, inexpressible};

/// Limits of each way of sending, and the number of cases that they concern at most: a list may only become shorter.
const WAYS: [(&str, &[Need], usize); 3] =
    [("evaluator", EVALUATOR_LACKS, 6), ("tables", TABLES_LACK, 8), ("kernel", KERNEL_LACKS, 5)];
const EVALUATOR_LACKS: &[Need] =
    &[Need::Established, Need::ConnectionTracking, Need::NeighbourDiscovery, Need::ServiceHairpin];
const TABLES_LACK: &[Need] =
    &[Need::Established, Need::ConnectionTracking, Need::NeighbourDiscovery, Need::ServiceHairpin, Need::SelfTraffic];

#[test]
fn every_number_is_there_once() {
    let expected: Vec<_> = (1..=70).chain(101..=129).map(|number| format!("T-{number:03}")).collect();
    let found: Vec<_> =
        cases().unwrap().into_iter().filter(|case| case.spelling == Spelling::V1alpha2).map(|case| case.id).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_tier_case_but_two_runs_in_the_older_version_too() {
    let cases = cases().unwrap();
    let of = |spelling| {
        let tiers = cases.iter().filter(move |case| case.spelling == spelling && case.id.as_str() >= "T-101");
        tiers.map(|case| case.id.as_str()).collect::<BTreeSet<_>>()
    };
    let missing: Vec<_> = of(Spelling::V1alpha2).difference(&of(Spelling::V1alpha1)).copied().collect();
    // One is about that version's word in the other, the second about a version that only the other kind has.
    assert_eq!(missing, ["T-126", "T-127"]);
}

#[test]
fn what_cannot_be_sent_is_listed_and_does_not_grow() {
    let listed = inexpressible().unwrap();
    let cases = cases().unwrap();
    assert_eq!(listed.keys().map(String::as_str).collect::<BTreeSet<_>>(), WAYS.iter().map(|way| way.0).collect());
    for (way, lacking, most) in WAYS {
        let found: BTreeSet<_> =
            cases.iter().filter(|case| case.needs_any(lacking)).map(|case| case.id.as_str()).collect();
        let written: BTreeSet<_> = listed[way].keys().map(String::as_str).collect();
        assert_eq!(written, found, "conformance/inexpressible.yaml, {way}");
        assert!(written.len() <= most, "{way}: {} cases cannot be sent, there were {most}", written.len());
        assert!(listed[way].values().all(|reason| !reason.is_empty()), "{way}: a reason is missing");
    }
}

#[test]
fn manifests_are_found_fault_with_where_expected() {
    let known: BTreeSet<_> = code::ALL.iter().map(|(code, _)| *code).collect();
    check_all(|case| {
        let mut differences = Vec::new();
        for step in &case.steps {
            let found: BTreeSet<_> = step.findings.iter().map(|finding| finding.code).collect();
            for expected in &step.expected_findings {
                assert!(known.contains(expected.as_str()), "{case}: no finding is called {expected}");
                if !found.contains(expected.as_str()) {
                    differences.push(format!("expected finding {expected}, found {found:?}"));
                }
            }
            let errors = step.findings.iter().filter(|finding| finding.severity == Severity::Error);
            if case.steps.iter().all(|step| step.expected_findings.is_empty()) {
                differences.extend(errors.map(|finding| format!("unexpected: {finding}")));
            }
        }
        differences
    });
}

#[test]
fn the_direct_evaluator_decides_as_expected() {
    check_all(|case| each_flow(case, EVALUATOR_LACKS, evaluated));
}

fn evaluated(step: &Step, flow: &FlowCase) -> Vec<String> {
    let evaluation = match evaluate(&step.snapshot, &flow.flow) {
        Ok(evaluation) => evaluation,
        Err(error) => return vec![error.to_string()],
    };
    let mut differences = Vec::new();
    if evaluation.verdict != flow.verdict {
        differences.push(format!("verdict: expected {}, found {}", flow.verdict, evaluation.verdict));
    }
    let names = |points: Vec<_>| format!("{points:?}");
    let expected = names(flow.points.iter().map(|point| (point.name, &point.subject)).collect());
    let found = names(evaluation.points.iter().map(|point| (point.name, &point.subject)).collect());
    if expected != found {
        differences.push(format!("points: expected {expected}, found {found}"));
    }
    for (expected, found) in flow.points.iter().zip(&evaluation.points) {
        differences.extend(expected.differences(&found.decision, Some(&found.near_misses)));
    }
    differences
}

#[test]
fn the_compiled_tables_decide_as_expected() {
    check_all(|case| {
        let mut nodes = Nodes::default();
        let mut differences = Vec::new();
        for step in &case.steps {
            nodes.compile(step);
            let flows = step.flows.iter().filter(|flow| flow.needs().iter().all(|need| !TABLES_LACK.contains(need)));
            for flow in flows {
                differences
                    .extend(nodes.looked_up(step, flow).into_iter().map(|what| format!("{}: {what}", flow.text)));
            }
        }
        differences
    });
}

/// A compiler for each node, which goes from step to step as it would in a cluster.
#[derive(Default)]
struct Nodes(BTreeMap<String, Compiler>);

impl Nodes {
    fn compile(&mut self, step: &Step) {
        for node in step.snapshot.pods.values().map(|pod| &pod.node) {
            self.0.entry(node.clone()).or_insert_with(|| Compiler::new(node.clone(), IdFloor::default()));
        }
        for compiler in self.0.values_mut() {
            compiler.compile(&step.snapshot);
        }
    }

    /// Each point by its own node's tables, with the attribution that the id there stands for.
    fn looked_up(&self, step: &Step, flow: &FlowCase) -> Vec<String> {
        let mut differences = Vec::new();
        for point in &flow.points {
            let peer = match point.name {
                netverdict_policy::PointName::SourceEgress => &flow.flow.destination,
                netverdict_policy::PointName::DestinationIngress => &flow.flow.source,
            };
            let Some(address) = address(&step.snapshot, peer, flow.flow.family) else {
                differences.push(format!("{}: {peer} has no address", point.name));
                continue;
            };
            let compiler = &self.0[&step.snapshot.pods[&point.subject].node];
            let found =
                compiler.lookup(&point.subject, point.name.direction(), address, flow.flow.protocol, flow.flow.port);
            match found.map(|(verdict, id)| (verdict, compiler.decision(id))) {
                None => differences.push(format!("{}: the subject is in no table", point.name)),
                // The kernel's own reason: no policy was asked, so there is none to name.
                Some((Verdict::Unknown, None)) if point.reason == Reason::ServiceNotResolved => {}
                Some((verdict, None)) => differences.push(format!("{}: {verdict} by nobody known", point.name)),
                Some((verdict, Some(decision))) => {
                    if verdict != decision.verdict {
                        let decided = decision.verdict;
                        differences.push(format!("{}: {verdict} in the tables, {decided} by its id", point.name));
                    }
                    differences.extend(point.differences(decision, None));
                }
            }
        }
        differences
    }
}

fn address(snapshot: &Snapshot, end: &End, family: Family) -> Option<IpAddr> {
    match end {
        End::Address(address) => Some(*address),
        End::Pod(key) => snapshot.pods[key].addresses.iter().copied().find(|address| Family::of(*address) == family),
    }
}

fn each_flow(case: &Case, lacking: &[Need], check: impl Fn(&Step, &FlowCase) -> Vec<String>) -> Vec<String> {
    let mut differences = Vec::new();
    for step in &case.steps {
        for flow in step.flows.iter().filter(|flow| flow.needs().iter().all(|need| !lacking.contains(need))) {
            differences.extend(check(step, flow).into_iter().map(|what| format!("{}: {what}", flow.text)));
        }
    }
    differences
}

/// Runs all cases before it fails, and then names each with its differences.
fn check_all(mut check: impl FnMut(&Case) -> Vec<String>) {
    let cases = cases().unwrap();
    let mut failed = Vec::new();
    for case in &cases {
        let differences = check(case);
        if !differences.is_empty() {
            failed.push(format!("{case} ({})\n    {}", case.says, differences.join("\n    ")));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
