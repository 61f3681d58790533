//! The report of a run: every case, with what it was run on.

use std::{
    fmt::{self, Write as _},
    fs,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::choice::Choice;
use crate::{
    cluster::Shape,
    command::{output, root},
};

/// Faults of the same kind, that are told.
const MOST_REASONS: usize = 3;

/// A suite.
pub(super) struct Suite {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) versions: &'static [(&'static str, &'static str)],
}

pub(super) struct Report {
    suite: Suite,
    outcomes: Vec<(String, Outcome)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed(Duration),
    /// With the first line of the reason.
    Failed(Duration, String),
    /// With the reason.
    NotRun(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(time) => write!(f, "passed in {} s", time.as_secs()),
            Self::Failed(time, reason) => write!(f, "FAILED in {} s ({reason})", time.as_secs()),
            Self::NotRun(reason) => write!(f, "not run ({reason})"),
        }
    }
}

impl Report {
    pub(super) fn new(suite: Suite) -> Self {
        Self { suite, outcomes: Vec::new() }
    }

    pub(super) fn add(&mut self, case: String, outcome: Outcome) {
        self.outcomes.push((case, outcome));
    }

    /// Prints the report, or writes it if it is of all cases.
    ///
    /// # Errors
    /// A case failed, or the file cannot be written.
    pub(super) fn publish(&self, name: &str, choice: &Choice) -> Result<()> {
        println!("\n{}", self.summary());
        let text = self.markdown(choice.shape);
        match choice.focus {
            Some(_) => println!("\n{text}"),
            None => {
                let path = folder()?.join(format!("{name}.md"));
                fs::write(&path, &text).with_context(|| format!("could not write {}", path.display()))?;
                println!("written: {}", path.display());
            }
        }
        match self.failed() {
            0 => Ok(()),
            failed => bail!("{failed} cases failed"),
        }
    }

    fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(..)))
    }

    fn summary(&self) -> String {
        format!(
            "{} cases: {} passed, {} failed, {} not run",
            self.outcomes.len(),
            self.count(|outcome| matches!(outcome, Outcome::Passed(_))),
            self.failed(),
            self.count(|outcome| matches!(outcome, Outcome::NotRun(_)))
        )
    }

    /// Cases in the order of their names.
    fn markdown(&self, shape: Shape) -> String {
        let Suite { title, about, versions } = self.suite;
        let mut text = format!("# {title}\n\n{about}\n\n**{}.**\n\n| what | version |\n|---|---|\n", self.summary());
        let own = [
            ("cluster", format!("`{shape}`")),
            ("product", version()),
            ("kernel", said("uname", &["-r"])),
            ("date", said("date", &["--utc", "+%Y-%m-%d"])),
        ];
        let others = versions.iter().map(|(what, version)| (*what, (*version).to_owned()));
        others.chain(own).for_each(|(what, version)| add_row(&mut text, what, &version));
        text.push_str("\n| case | result |\n|---|---|\n");
        let mut outcomes: Vec<_> = self.outcomes.iter().collect();
        outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
        outcomes.into_iter().for_each(|(case, outcome)| add_row(&mut text, case, &outcome.to_string()));
        text
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| is(outcome)).count()
    }
}

/// A bar would end the cell, and brackets could be a link.
fn add_row(text: &mut String, one: &str, two: &str) {
    let [one, two] = [one, two].map(|cell| cell.replace('|', "\\|").replace('[', "\\["));
    writeln!(text, "| {one} | {two} |").expect("written to memory");
}

/// The first of many faults, and how many others there are.
pub(super) fn few(mut faults: Vec<String>) -> Vec<String> {
    let others = faults.len().saturating_sub(MOST_REASONS);
    faults.truncate(MOST_REASONS);
    if others > 0 {
        faults.push(format!("{others} more"));
    }
    faults
}

/// Where reports are.
pub(super) fn folder() -> Result<PathBuf> {
    let folder = root().join("docs/conformance");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Which build of the product this is.
pub(super) fn version() -> String {
    said("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

fn said(program: &str, arguments: &[&str]) -> String {
    let text = output(Command::new(program).args(arguments).current_dir(root()));
    text.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_in_the_report() {
        let mut report = Report::new(Suite { title: "Tests", about: "Of others.", versions: &[("Tests", "1")] });
        report.add("b [x]".to_owned(), Outcome::Failed(Duration::from_secs(9), "one | two".to_owned()));
        report.add("a".to_owned(), Outcome::Passed(Duration::from_secs(3)));
        report.add("c".to_owned(), Outcome::NotRun("no SCTP".to_owned()));
        assert_eq!(report.summary(), "3 cases: 1 passed, 1 failed, 1 not run");
        let text = report.markdown(Shape::default());
        assert!(text.contains("# Tests\n") && text.contains("| Tests | 1 |\n"), "{text}");
        assert!(text.ends_with(
            "| a | passed in 3 s |\n| b \\[x] | FAILED in 9 s (one \\| two) |\n| c | not run (no SCTP) |\n"
        ));
    }
}
