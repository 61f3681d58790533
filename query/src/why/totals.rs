//! Numbers of all records between two ends: by protocol, family, direction, verdict and disposition. An answer never adds
//! up groups that differ in one of them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use netverdict_flowlog::{answer::WhyOtherwise, row::FlowRow};
use netverdict_policy::{Direction, Verdict, model::Protocol};
use serde::Deserialize;

const DIRECTIONS: [&str; 2] = [Direction::Egress.as_str(), Direction::Ingress.as_str()];

pub(super) struct Totals(pub(super) Vec<Total>);

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Total {
    protocol: u8,
    family: u8,
    direction: String,
    verdict: String,
    disposition: String,
    /// Records of connections' ends. Where the begin is on record, it is counted already.
    closes: bool,
    events: u64,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
}

/// Events of one group.
pub(super) struct Count {
    pub events: u64,
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
}

/// Denials before the newest attempt: how many events, and when the last was.
pub(super) struct DeniedBefore {
    pub events: u64,
    pub last: DateTime<Utc>,
}

impl Totals {
    pub(super) fn has(&self, Protocol(number): Protocol) -> bool {
        self.0.iter().any(|total| total.protocol == number)
    }

    /// The group of a row: same verdict and disposition, at the same end.
    pub(super) fn of(&self, row: &FlowRow) -> Count {
        let alike = |total: &&Total| {
            (total.protocol, total.family) == (row.protocol, row.family)
                && !total.closes
                && total.direction == row.direction.as_str()
                && total.verdict == row.verdict.as_str()
                && total.disposition == row.disposition.as_str()
        };
        let start = Count { events: 0, first: row.first_time, last: row.last_time };
        self.0.iter().filter(alike).fold(start, |count, total| Count {
            events: count.events + total.events,
            first: count.first.min(total.first),
            last: count.last.max(total.last),
        })
    }

    /// Denials of the protocol and family of a row.
    pub(super) fn denied_before(&self, row: &FlowRow) -> Option<DeniedBefore> {
        let denied = || self.of_kind(row.protocol, row.family).filter(|total| total.is(Verdict::Denied));
        let last = denied().map(|total| total.last).max()?;
        Some(DeniedBefore { events: denied().map(|total| total.events).sum(), last })
    }

    /// Protocols and families besides that of a row, with another newest verdict than `verdict`.
    pub(super) fn otherwise(&self, row: &FlowRow, verdict: Verdict) -> Vec<WhyOtherwise> {
        let kinds: BTreeSet<(u8, u8)> = self.0.iter().map(|total| (total.protocol, total.family)).collect();
        let others = kinds.into_iter().filter(|kind| *kind != (row.protocol, row.family));
        let others = others.filter_map(|(protocol, family)| {
            let newest = self.newest(protocol, family)?;
            let alike = || self.of_kind(protocol, family).filter(|total| total.is(newest));
            let last_seen = alike().map(|total| total.last).max()?;
            // An attempt that is allowed is seen at both ends.
            let at = |direction| alike().filter(move |total| total.direction == direction).map(|total| total.events);
            let count = DIRECTIONS.map(|direction| at(direction).sum::<u64>()).into_iter().max()?;
            Some(WhyOtherwise { protocol: Protocol(protocol).to_string(), family, verdict: newest, count, last_seen })
        });
        others.filter(|other| other.verdict != verdict).collect()
    }

    /// The newest verdict of both ends together.
    fn newest(&self, protocol: u8, family: u8) -> Option<Verdict> {
        let at = |direction: &str| {
            let there = self.of_kind(protocol, family).filter(|total| total.direction == direction);
            Verdict::from_name(&there.max_by_key(|total| total.last)?.verdict)
        };
        let verdicts = DIRECTIONS.map(at);
        [Verdict::Denied, Verdict::Unknown, Verdict::Allowed]
            .into_iter()
            .find(|verdict| verdicts.contains(&Some(*verdict)))
    }

    fn of_kind(&self, protocol: u8, family: u8) -> impl Iterator<Item = &Total> {
        self.0.iter().filter(move |total| (total.protocol, total.family) == (protocol, family) && !total.closes)
    }
}

impl Total {
    fn is(&self, verdict: Verdict) -> bool {
        self.verdict == verdict.as_str()
    }
}
