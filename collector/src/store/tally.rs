//! What rows that are no longer there had counted: by boot, lane and CPU, so that events on record and gaps still add
//! up to what the kernel counted. Rows of other systems have neither lane nor number; they are counted per boot.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use netverdict_flowlog::row::{FlowRow, GapCause, GapRow, LaneName, Row};
use serde::{Deserialize, Serialize};

/// Boot, lane and CPU.
type Lane = (Arc<str>, Option<LaneName>, Option<u32>);

/// Counts of flow rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    lanes: BTreeMap<Lane, Counts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    events: u64,
    /// Lowest and highest of the rows; other rows may lie between.
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// As a file's metadata holds it.
#[derive(Serialize, Deserialize)]
struct Line {
    boot: Arc<str>,
    lane: Option<LaneName>,
    cpu: Option<u32>,
    #[serde(flatten)]
    counts: Counts,
}

impl Tally {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn add(&mut self, row: &FlowRow) {
        let counts = Counts { events: row.count, first_seq: row.seq, last_seq: row.seq, from: row.time, to: row.time };
        self.count((row.boot_id.clone(), row.lane, row.cpu), counts);
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (lane, counts) in other.lanes {
            self.count(lane, counts);
        }
    }

    fn count(&mut self, lane: Lane, counts: Counts) {
        let known = self.lanes.entry(lane).or_insert(Counts { events: 0, ..counts });
        known.events = known.events.saturating_add(counts.events);
        known.first_seq = known.first_seq.into_iter().chain(counts.first_seq).min();
        known.last_seq = known.last_seq.max(counts.last_seq);
        known.from = known.from.min(counts.from);
        known.to = known.to.max(counts.to);
    }

    /// A gap for each boot, lane and CPU. `lost_events` counts; the range of sequence numbers only says where.
    pub(super) fn gaps(&self, node: &Arc<str>, cause: GapCause, detail: &str) -> Vec<Row> {
        let gap = |((boot, lane, cpu), counts): (&Lane, &Counts)| {
            Row::Gap(Box::new(GapRow {
                lane: *lane,
                cpu: *cpu,
                first_seq: counts.first_seq,
                last_seq: counts.last_seq,
                lost_events: counts.events,
                ..GapRow::of(cause, node, boot, counts.from, counts.to, detail)
            }))
        };
        self.lanes.iter().map(gap).collect()
    }

    pub(super) fn to_json(&self) -> String {
        let line = |((boot, lane, cpu), counts): (&Lane, &Counts)| Line {
            boot: boot.clone(),
            lane: *lane,
            cpu: *cpu,
            counts: *counts,
        };
        let lines: Vec<_> = self.lanes.iter().map(line).collect();
        // Only maps with other keys than text could fail.
        serde_json::to_string(&lines).unwrap_or_default()
    }

    /// `None` for anything that this does not understand.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        let lines: Vec<Line> = serde_json::from_str(text).ok()?;
        let mut tally = Self::default();
        for Line { boot, lane, cpu, counts } in lines {
            tally.count((boot, lane, cpu), counts);
        }
        Some(tally)
    }
}
