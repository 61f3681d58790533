//! The report of a run: every case, with what it was run on.

use std::{fmt::Write as _, process::Command};

use super::cases::{Case, Outcome};
use crate::{
    cluster::Shape,
    command::{output, root},
    setup::KUBERNETES_VERSION,
};

#[derive(Default)]
pub(super) struct Report {
    outcomes: Vec<(Case, Outcome)>,
}

impl Report {
    pub(super) fn add(&mut self, case: Case, outcome: Outcome) {
        self.outcomes.push((case, outcome));
    }

    pub(super) fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(..)))
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "{} cases: {} passed, {} failed, {} not run",
            self.outcomes.len(),
            self.count(|outcome| matches!(outcome, Outcome::Passed(_))),
            self.failed(),
            self.count(|outcome| matches!(outcome, Outcome::NotRun(_)))
        )
    }

    pub(super) fn markdown(&self, shape: Shape) -> String {
        let mut text = format!(
            "# Kubernetes' own tests of NetworkPolicy\n\n\
             Written by `cargo xtask conformance netpol`; not to be edited. The product enforces on a whole real cluster, and\n\
             the tests are those of the Kubernetes release (`test/e2e/network/netpol`).\n\n\
             **{}.**\n\n\
             | what | version |\n|---|---|\n\
             | Kubernetes and its tests | {KUBERNETES_VERSION} |\n\
             | cluster | `{shape}` |\n\
             | product | {} |\n\
             | kernel | {} |\n\
             | date | {} |\n\n\
             | case | result |\n|---|---|\n",
            self.summary(),
            said("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]),
            said("uname", &["-r"]),
            said("date", &["--utc", "+%Y-%m-%d"]),
        );
        let mut outcomes: Vec<_> = self.outcomes.iter().collect();
        outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (case, outcome) in outcomes {
            // A bar would end the cell, and brackets could be a link.
            let cell = |text: &str| text.replace('|', "\\|").replace('[', "\\[");
            writeln!(text, "| {} | {} |", cell(&case.name), cell(&outcome.to_string())).expect("written to memory");
        }
        text
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| is(outcome)).count()
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let text = output(Command::new(program).args(arguments).current_dir(root()));
    text.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_case_is_in_the_report() {
        let mut report = Report::default();
        let case = |name: &str| Case { name: name.to_owned() };
        report.add(case("b [x]"), Outcome::Failed(Duration::from_secs(9), "one | two".to_owned()));
        report.add(case("a"), Outcome::Passed(Duration::from_secs(3)));
        report.add(case("c"), Outcome::NotRun("no SCTP".to_owned()));
        assert_eq!(report.summary(), "3 cases: 1 passed, 1 failed, 1 not run");
        let text = report.markdown(Shape::default());
        assert!(text.ends_with(
            "| a | passed in 3 s |\n| b \\[x] | FAILED in 9 s (one \\| two) |\n| c | not run (no SCTP) |\n"
        ));
    }
}
