//! Columns: divisions of the port space, shared by all pairs with equal ones.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::counter::Counter;
use crate::tables::{Column, ColumnId, Outcome, PortSpace};

/// Reference-counted by the views that use them.
#[derive(Debug)]
pub(super) struct Columns {
    ids: HashMap<Arc<Column>, ColumnId>,
    live: BTreeMap<ColumnId, CountedColumn>,
    next: Counter,
    created: Vec<ColumnId>,
}

#[derive(Debug)]
struct CountedColumn {
    column: Arc<Column>,
    uses: usize,
}

impl Columns {
    pub(super) fn new(floor: u32) -> Self {
        Self { ids: HashMap::new(), live: BTreeMap::new(), next: Counter::from(floor.max(1)), created: Vec::new() }
    }

    pub(super) fn floor(&self) -> u32 {
        self.next.peek()
    }

    pub(super) fn retain(&mut self, column: Column) -> ColumnId {
        let id = match self.ids.get(&column) {
            Some(id) => *id,
            None => {
                let (id, column) = (ColumnId(self.next.take()), Arc::new(column));
                self.ids.insert(Arc::clone(&column), id);
                self.live.insert(id, CountedColumn { column, uses: 0 });
                self.created.push(id);
                id
            }
        };
        if let Some(counted) = self.live.get_mut(&id) {
            counted.uses += 1;
        }
        id
    }

    /// Counts one more use of a column that is used already.
    pub(super) fn retain_outcome(&mut self, outcome: Outcome) {
        if let Outcome::Column(id) = outcome
            && let Some(counted) = self.live.get_mut(&id)
        {
            counted.uses += 1;
        }
    }

    pub(super) fn release(&mut self, outcome: Outcome) {
        if let Outcome::Column(id) = outcome
            && let Some(counted) = self.live.get_mut(&id)
        {
            counted.uses -= 1;
        }
    }

    /// Drops unused columns. Returns the columns that were created and removed since the last call.
    pub(super) fn take_change(&mut self) -> (Vec<(ColumnId, Column)>, Vec<ColumnId>) {
        let mut removed = Vec::new();
        for (id, counted) in self.live.extract_if(.., |_, counted| counted.uses == 0) {
            self.ids.remove(&counted.column);
            removed.push(id);
        }
        let created = std::mem::take(&mut self.created);
        let created = created.into_iter().filter_map(|id| Some((id, Column::clone(&self.live.get(&id)?.column))));
        (created.collect(), removed)
    }
}

/// One protocol's part of a column. `stretches`: first ports in ascending order from 0, each with the outcome up to the
/// next. The outcome of most ports becomes the default.
pub(super) fn port_space(stretches: &[(u16, Outcome)], fragment: Outcome) -> PortSpace {
    let merged = merge(stretches);
    let mut extent: BTreeMap<Outcome, u32> = BTreeMap::new();
    for (first, last, outcome) in &merged {
        *extent.entry(*outcome).or_default() += u32::from(*last) - u32::from(*first) + 1;
    }
    // On a tie the lowest outcome, so that equal divisions are equal columns.
    let most = extent.iter().rev().max_by_key(|(_, ports)| **ports).map(|(outcome, _)| *outcome);
    let mut space =
        PortSpace { default: most.unwrap_or(fragment), ports: BTreeMap::new(), prefixes: BTreeMap::new(), fragment };
    for (first, last, outcome) in merged {
        if outcome == space.default {
            continue;
        }
        for (start, length) in aligned(first, last) {
            if length == PORT_BITS {
                space.ports.insert(start, outcome);
            } else {
                space.prefixes.insert((start, length), outcome);
            }
        }
    }
    space
}

const PORT_BITS: u8 = 16;

/// Adjacent stretches with one outcome are one: (first, last, outcome).
fn merge(stretches: &[(u16, Outcome)]) -> Vec<(u16, u16, Outcome)> {
    let mut merged: Vec<(u16, u16, Outcome)> = Vec::new();
    for (position, (first, outcome)) in stretches.iter().enumerate() {
        let last = stretches.get(position + 1).map_or(u16::MAX, |(next, _)| next - 1);
        match merged.last_mut() {
            Some((_, end, same)) if same == outcome => *end = last,
            _ => merged.push((*first, last, *outcome)),
        }
    }
    merged
}

/// The aligned blocks that make up `first..=last`: (first port, prefix length).
fn aligned(first: u16, last: u16) -> Vec<(u16, u8)> {
    let (mut next, last) = (u32::from(first), u32::from(last));
    let mut blocks = Vec::new();
    while next <= last {
        let mut bits = next.trailing_zeros().min(u32::from(PORT_BITS));
        while next + (1 << bits) - 1 > last {
            bits -= 1;
        }
        if let (Ok(start), Ok(length)) = (u16::try_from(next), u8::try_from(u32::from(PORT_BITS) - bits)) {
            blocks.push((start, length));
        }
        next += 1 << bits;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{AttributionId, Verdict};

    fn outcome(attribution: u64) -> Outcome {
        Outcome::Final { verdict: Verdict::Denied, attribution: AttributionId(attribution) }
    }

    #[test]
    fn ranges_become_aligned_blocks_that_cover_them_exactly() {
        for (first, last) in [(0, 0), (1, 65535), (80, 90), (0, 65535), (65535, 65535), (8000, 8090), (32768, 40000)] {
            let mut ports = Vec::new();
            for (start, length) in aligned(first, last) {
                let size = 1u32 << (PORT_BITS - length);
                assert_eq!(u32::from(start) % size, 0, "{start}/{length} is aligned");
                ports.extend(u32::from(start)..u32::from(start) + size);
            }
            assert_eq!(ports, (u32::from(first)..=u32::from(last)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_holds_for_most_ports_is_the_default() {
        let stretches =
            [(0, outcome(1)), (1, outcome(1)), (80, outcome(2)), (81, outcome(1)), (96, outcome(3)), (104, outcome(1))];
        let space = port_space(&stretches, outcome(1));
        assert_eq!(space.default, outcome(1));
        assert_eq!(space.ports, BTreeMap::from([(80, outcome(2))]));
        assert_eq!(space.prefixes, BTreeMap::from([((96, 13), outcome(3))]));
    }
}
