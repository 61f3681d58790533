//! The verdict on a connection, from the verdicts at its ends.

use netverdict_flowlog::answer::{Decider, WhyPoint};
use netverdict_policy::{Verdict, evaluate::PointName};

pub(super) const SOURCE_EGRESS: &str = PointName::SourceEgress.as_str();

/// The verdict on a whole connection.
#[derive(Clone, Debug)]
pub(super) struct PathVerdict {
    pub verdict: Verdict,
    /// The point that decides; empty where neither end is a pod.
    pub point: String,
    pub decided_by: Vec<Decider>,
}

impl PathVerdict {
    pub(super) fn of(points: Vec<WhyPoint>) -> Self {
        let verdict = verdict(&points);
        let deciding = points.into_iter().find(|point| !point.hypothetical && point.verdict == verdict);
        let (point, decided_by) = deciding.map(|point| (point.point, point.decided_by)).unwrap_or_default();
        Self { verdict, point, decided_by }
    }
}

/// Denied where any point denies, else unknown where any is unknown, else allowed. A point that the packet did not reach
/// does not count.
pub(super) fn verdict(points: &[WhyPoint]) -> Verdict {
    let verdicts = || points.iter().filter(|point| !point.hypothetical).map(|point| point.verdict);
    [Verdict::Denied, Verdict::Unknown]
        .into_iter()
        .find(|verdict| verdicts().any(|found| found == *verdict))
        .unwrap_or(Verdict::Allowed)
}
