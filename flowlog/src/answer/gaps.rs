//! Gaps as answers show them. The record keeps each gap; an answer shows equal gaps once.

use std::{collections::BTreeMap, fmt};

use chrono::{DateTime, Utc};

use super::Gap;
use crate::row::GapCause;

/// Endpoints that are named in one line.
const NAMED: usize = 3;

/// Gaps to be shown, oldest first: a gap that was recorded when it began and again when it ended is shown once, and pods
/// that were not attached for a moment without length are shown together.
pub fn merged(gaps: &[Gap]) -> Vec<Gap> {
    let mut longest: BTreeMap<(&str, &str, &str, &str, DateTime<Utc>), &Gap> = BTreeMap::new();
    let mut shown = Vec::new();
    for gap in gaps {
        if gap.lost_events > 0 {
            shown.push(gap.clone());
            continue;
        }
        let known = longest.entry((&gap.node, &gap.lane, &gap.endpoint, &gap.cause, gap.from)).or_insert(gap);
        if known.to < gap.to {
            *known = gap;
        }
    }
    let mut moments: BTreeMap<&str, Vec<&Gap>> = BTreeMap::new();
    for gap in longest.into_values() {
        if gap.cause == GapCause::Unattached.as_str() && gap.from == gap.to {
            moments.entry(&gap.node).or_default().push(gap);
        } else {
            shown.push(gap.clone());
        }
    }
    shown.extend(moments.into_values().filter_map(|gaps| together(&gaps)));
    shown.sort_by_key(|gap| (gap.to, gap.from));
    shown
}

fn together(gaps: &[&Gap]) -> Option<Gap> {
    let mut endpoints: Vec<&str> =
        gaps.iter().map(|gap| gap.endpoint.as_str()).filter(|name| !name.is_empty()).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    let more = match endpoints.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    endpoints.truncate(NAMED);
    let from = gaps.iter().map(|gap| gap.from).min()?;
    let to = gaps.iter().map(|gap| gap.to).max()?;
    Some(Gap { endpoint: endpoints.join(", ") + &more, from, to, ..Gap::clone(gaps.first()?) })
}

/// In one line.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, lane, endpoint, cause, lost_events, from, to, detail } = self;
        let stamp = |time: &DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        f.write_str(&cause.replace('_', " "))?;
        if !node.is_empty() {
            write!(f, " on node {node}")?;
        }
        if !endpoint.is_empty() {
            write!(f, ", {endpoint}")?;
        }
        if *lost_events > 0 {
            let lane = if lane.is_empty() { String::new() } else { format!(" of the {lane} lane") };
            write!(f, ", {lost_events} events lost{lane}")?;
        }
        write!(f, ", {}", stamp(from))?;
        if to != from {
            write!(f, " to {}", stamp(to))?;
        }
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(cause: &str, endpoint: &str, from: i64, to: i64) -> Gap {
        let time = |second| DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap();
        Gap {
            node: "n1".into(),
            lane: String::new(),
            endpoint: endpoint.into(),
            cause: cause.into(),
            lost_events: 0,
            from: time(from),
            to: time(to),
            detail: String::new(),
        }
    }

    #[test]
    fn gaps_that_say_the_same_are_shown_once() {
        let mut gaps: Vec<Gap> =
            (0..8).map(|index| gap("unattached", &format!("shop/pod-{index}"), index, index)).collect();
        gaps.push(gap("source_stale", "", 3, 3));
        gaps.push(gap("source_stale", "", 3, 40));
        gaps.push(gap("unattached", "shop/late", 5, 9));
        let lost = Gap { lost_events: 7, lane: "flow".into(), ..gap("ring_full", "", 1, 2) };
        gaps.extend([lost.clone(), lost]);
        let shown: Vec<String> = merged(&gaps).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "ring full on node n1, 7 events lost of the flow lane, 2023-11-14T22:13:21.000Z to 2023-11-14T22:13:22.000Z",
                "ring full on node n1, 7 events lost of the flow lane, 2023-11-14T22:13:21.000Z to 2023-11-14T22:13:22.000Z",
                "unattached on node n1, shop/pod-0, shop/pod-1, shop/pod-2 and 5 more, 2023-11-14T22:13:20.000Z to 2023-11-14T22:13:27.000Z",
                "unattached on node n1, shop/late, 2023-11-14T22:13:25.000Z to 2023-11-14T22:13:29.000Z",
                "source stale on node n1, 2023-11-14T22:13:23.000Z to 2023-11-14T22:14:00.000Z",
            ]
        );
    }
}
