//! The state that was in force: its row of `snapshots`. Only files that can hold it are read.

use std::{cmp::Reverse, sync::Arc};

use datafusion::{
    common::ScalarValue,
    prelude::{Expr, col, lit},
};
use netverdict_flowlog::{
    Table,
    row::{Row, SnapshotRow},
};

use super::{fresh::Fresh, moment::Moment};
use crate::{
    Executor, QueryError,
    notes::Notes,
    records,
    tables::{Segment, Window},
};

/// Conditions of a search.
struct Search<'a> {
    /// Its highest number; over all nodes the latest, because numbers of one node mean nothing on another.
    node: Option<&'a str>,
    moment: Moment,
}

/// The state of `node`, or, if `node` has none, of the node that changed last.
pub(super) async fn find(
    executor: &Executor,
    node: Option<&str>,
    moment: Moment,
    fresh: &Fresh,
    notes: &Arc<Notes>,
) -> Result<Option<SnapshotRow>, QueryError> {
    let window = match moment {
        Moment::At(time) => Window { from: None, to: Some(time.timestamp_micros()) },
        Moment::Newest | Moment::Number(_) => Window::default(),
    };
    let store = executor.store();
    let segments = store.list(Table::Snapshots, window, &fresh.boundaries, notes).await?.segments;
    if node.is_some()
        && let Some(found) = (Search { node, moment }).latest(executor, &segments, fresh, notes).await?
    {
        return Ok(Some(found));
    }
    match moment {
        Moment::Number(_) => Ok(None),
        Moment::Newest | Moment::At(_) => Search { node: None, moment }.latest(executor, &segments, fresh, notes).await,
    }
}

impl Search<'_> {
    async fn latest(
        &self,
        executor: &Executor,
        segments: &[Segment],
        fresh: &Fresh,
        notes: &Arc<Notes>,
    ) -> Result<Option<SnapshotRow>, QueryError> {
        let mut best: Option<SnapshotRow> = None;
        fresh.rows.iter().for_each(|row| self.consider(row, &mut best));
        let mut segments: Vec<&Segment> = segments.iter().filter(|segment| self.may_hold(segment)).collect();
        segments.sort_by_key(|segment| Reverse(self.highest(segment)));
        let (mut rest, mut count) = (segments.as_slice(), 1);
        // Mostly the first file has it. Where it has not, more are read at once.
        while let Some(next) = rest.first()
            && best.as_ref().is_none_or(|best| self.rank(best).0 <= self.highest(next))
        {
            let (now, later) = rest.split_at(count.min(rest.len()));
            let chosen = now.iter().copied().cloned().collect();
            let mut rows = executor.scan(Table::Snapshots, chosen, self.condition(), notes).await?;
            while let Some(batch) = rows.next().await {
                records::of_batch(Table::Snapshots, &batch?)?.iter().for_each(|row| self.consider(row, &mut best));
            }
            (rest, count) = (later, count * 2);
        }
        Ok(best)
    }

    fn consider(&self, row: &Row, best: &mut Option<SnapshotRow>) {
        let Row::Snapshot(row) = row else { return };
        let fits = self.node.is_none_or(|node| *row.node == *node)
            && match self.moment {
                Moment::Newest => true,
                Moment::At(time) => row.time <= time,
                Moment::Number(number) => row.snapshot <= number,
            };
        if fits && best.as_ref().is_none_or(|best| self.rank(best) < self.rank(row)) {
            *best = Some(SnapshotRow::clone(row));
        }
    }

    fn rank(&self, row: &SnapshotRow) -> (i128, i128) {
        let (number, time) = (i128::from(row.snapshot), i128::from(row.time.timestamp_micros()));
        if self.node.is_some() { (number, time) } else { (time, number) }
    }

    fn may_hold(&self, segment: &Segment) -> bool {
        let contents = &segment.contents;
        self.node.is_none_or(|node| contents.may_be_of(node))
            && match self.moment {
                Moment::Newest => true,
                Moment::At(time) => *contents.times.start() <= time.timestamp_micros(),
                Moment::Number(number) => *contents.numbers.start() <= number,
            }
    }

    /// No row of the file that fits has a higher rank.
    fn highest(&self, segment: &Segment) -> i128 {
        let contents = &segment.contents;
        match (self.node, self.moment) {
            (Some(_), Moment::Number(number)) => i128::from(*contents.numbers.end().min(&number)),
            (Some(_), Moment::Newest | Moment::At(_)) => i128::from(*contents.numbers.end()),
            (None, Moment::At(time)) => i128::from(*contents.times.end().min(&time.timestamp_micros())),
            (None, Moment::Newest | Moment::Number(_)) => i128::from(*contents.times.end()),
        }
    }

    fn condition(&self) -> Expr {
        let node = self.node.map_or_else(|| lit(true), |node| col("node").eq(lit(node)));
        node.and(match self.moment {
            Moment::Newest => lit(true),
            Moment::At(time) => {
                let time = ScalarValue::TimestampMicrosecond(Some(time.timestamp_micros()), Some("UTC".into()));
                col("time").lt_eq(lit(time))
            }
            Moment::Number(number) => col("snapshot").lt_eq(lit(i64::try_from(number).unwrap_or(i64::MAX))),
        })
    }
}
