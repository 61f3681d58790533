//! Event counts of rows by boot, lane and CPU: they stay known when the rows go, so that events on record and gaps
//! still add up to the kernel's counters. Rows of other systems have neither lane nor number; they are counted per boot.

use std::{collections::BTreeMap, sync::Arc};

use netverdict_flowlog::{
    manifest::LaneCounts,
    row::{FlowRow, GapCause, GapRow, LaneName, Row},
};

/// Boot, lane and CPU.
type Lane = (Arc<str>, Option<LaneName>, Option<u32>);

/// Counts of flow rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    lanes: BTreeMap<Lane, LaneCounts>,
}

impl Tally {
    pub(super) fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut tally = Self::default();
        for row in rows {
            if let Row::Flow(row) = row {
                tally.add(row);
            }
        }
        tally
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn add(&mut self, row: &FlowRow) {
        self.count(LaneCounts {
            boot: row.boot_id.clone(),
            lane: row.lane,
            cpu: row.cpu,
            events: row.count,
            first_seq: row.seq,
            last_seq: row.seq,
            from: row.time,
            to: row.time,
        });
    }

    pub(super) fn merge(&mut self, other: impl IntoIterator<Item = LaneCounts>) {
        other.into_iter().for_each(|counts| self.count(counts));
    }

    fn count(&mut self, counts: LaneCounts) {
        let key = (counts.boot.clone(), counts.lane, counts.cpu);
        let Some(known) = self.lanes.get_mut(&key) else {
            self.lanes.insert(key, counts);
            return;
        };
        known.events = known.events.saturating_add(counts.events);
        known.first_seq = known.first_seq.into_iter().chain(counts.first_seq).min();
        known.last_seq = known.last_seq.max(counts.last_seq);
        known.from = known.from.min(counts.from);
        known.to = known.to.max(counts.to);
    }

    /// A gap for each boot, lane and CPU. `lost_events` counts; the range of sequence numbers only says where.
    pub(super) fn gaps(&self, node: &Arc<str>, cause: GapCause, detail: &str) -> Vec<Row> {
        let gap = |counts: &LaneCounts| {
            Row::Gap(Box::new(GapRow {
                lane: counts.lane,
                cpu: counts.cpu,
                first_seq: counts.first_seq,
                last_seq: counts.last_seq,
                lost_events: counts.events,
                ..GapRow::of(cause, node, &counts.boot, counts.from, counts.to, detail)
            }))
        };
        self.lanes.values().map(gap).collect()
    }
}

impl IntoIterator for Tally {
    type Item = LaneCounts;
    type IntoIter = std::collections::btree_map::IntoValues<Lane, LaneCounts>;

    fn into_iter(self) -> Self::IntoIter {
        self.lanes.into_values()
    }
}
