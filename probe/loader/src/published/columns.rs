//! Columns: divisions of the port space. `COLUMNS` holds the answer where no port entry matches, `COLUMN_PORTS` single
//! ports and `COLUMN_RANGES` port prefixes. All three are added and deleted, never replaced.

use std::{collections::HashMap, hash::Hash as StdHash};

use netverdict_abi::{
    self as abi, ColumnPortKey, ColumnRangeKey, PolicyEntry,
    map::{column_flag, name},
};
use netverdict_policy::{
    model::Protocol,
    tables::{Change, Column, ColumnId, IdFloor, Outcome, PortSpace},
};

use super::{
    encode::{self, BadId},
    floor::raise,
    map::{Plan, PlanError, PublishedMap, Update},
};
use crate::{
    maps::table::{Hash, Prefix, Store, Table, Trie},
    options::ProbeOptions,
};

/// Bits of a [`ColumnRangeKey`] before the port: column and protocol.
const RANGE_HEAD_BITS: u32 = 40;
/// Bits of a port.
const PORT_BITS: u8 = 16;

/// `COLUMNS`: column id → the answers that do not depend on a port entry.
#[derive(Default)]
pub(crate) struct Columns;

impl PublishedMap for Columns {
    type Store = Hash<u32, abi::Column>;

    const NAME: &'static str = name::COLUMNS;

    fn limit(options: &ProbeOptions) -> u32 {
        options.max_columns
    }

    fn raise_floor(floor: &mut IdFloor, id: &u32, _column: &abi::Column) {
        raise(&mut floor.column, *id);
    }

    fn plan(&mut self, table: &Table<Self::Store>, update: &Update<'_>) -> Result<Plan<Self::Store>, PlanError> {
        let change = update.change;
        let entries = change.put.columns.iter().map(|(&id, column)| head(id, column));
        let deleted = change.delete.columns.iter().map(|&id| encode::column_number(id));
        Plan::of_immutable_entries(table, change.complete, entries, deleted)
    }
}

/// `COLUMN_PORTS`: (column, protocol, port) → verdict.
#[derive(Default)]
pub(crate) struct ColumnPorts {
    keys: KeysByColumn<ColumnPortKey>,
}

impl PublishedMap for ColumnPorts {
    type Store = Hash<ColumnPortKey, PolicyEntry>;

    const NAME: &'static str = name::COLUMN_PORTS;

    fn limit(options: &ProbeOptions) -> u32 {
        options.max_column_ports
    }

    fn raise_floor(floor: &mut IdFloor, key: &ColumnPortKey, _entry: &PolicyEntry) {
        raise(&mut floor.column, key.column);
    }

    fn adopt(&mut self, key: ColumnPortKey, _entry: PolicyEntry, _in_force: u64) {
        self.keys.adopt(key.column, key);
    }

    fn plan(&mut self, _table: &Table<Self::Store>, update: &Update<'_>) -> Result<Plan<Self::Store>, PlanError> {
        self.keys.plan(update.change, port_entries)
    }

    fn commit(&mut self, change: &Change) {
        self.keys.commit(change);
    }
}

/// `COLUMN_RANGES`: (column, protocol, port prefix) → verdict.
#[derive(Default)]
pub(crate) struct ColumnRanges {
    keys: KeysByColumn<Prefix<ColumnRangeKey>>,
}

impl PublishedMap for ColumnRanges {
    type Store = Trie<ColumnRangeKey, PolicyEntry>;

    const NAME: &'static str = name::COLUMN_RANGES;

    fn limit(options: &ProbeOptions) -> u32 {
        options.max_column_ranges
    }

    fn raise_floor(floor: &mut IdFloor, prefix: &Prefix<ColumnRangeKey>, _entry: &PolicyEntry) {
        raise(&mut floor.column, u32::from_be_bytes(prefix.data.column));
    }

    fn adopt(&mut self, prefix: Prefix<ColumnRangeKey>, _entry: PolicyEntry, _in_force: u64) {
        self.keys.adopt(u32::from_be_bytes(prefix.data.column), prefix);
    }

    fn plan(&mut self, _table: &Table<Self::Store>, update: &Update<'_>) -> Result<Plan<Self::Store>, PlanError> {
        self.keys.plan(update.change, range_entries)
    }

    fn commit(&mut self, change: &Change) {
        self.keys.commit(change);
    }
}

/// The keys of each column in one map, so that deleting a column does not walk the whole map.
struct KeysByColumn<K> {
    in_force: HashMap<u32, Vec<K>>,
    /// Of the columns that the publication under way adds.
    planned: HashMap<u32, Vec<K>>,
}

impl<K> Default for KeysByColumn<K> {
    fn default() -> Self {
        Self { in_force: HashMap::new(), planned: HashMap::new() }
    }
}

impl<K: Copy + Eq + StdHash> KeysByColumn<K> {
    fn adopt(&mut self, column: u32, key: K) {
        self.in_force.entry(column).or_default().push(key);
    }

    fn plan<S: Store<Key = K, Value = PolicyEntry>>(
        &mut self,
        change: &Change,
        entries_of: impl Fn(u32, &Column) -> Result<Vec<(K, PolicyEntry)>, BadId>,
    ) -> Result<Plan<S>, PlanError> {
        let mut plan = Plan::default();
        self.planned = HashMap::new();
        for (&id, column) in &change.put.columns {
            let id = encode::column_number(id)?;
            let entries = entries_of(id, column)?;
            self.planned.insert(id, entries.iter().map(|(key, _)| *key).collect());
            for (key, entry) in entries {
                plan.add(key, entry);
            }
        }
        let removed: Vec<&Vec<K>> = if change.complete {
            self.in_force.iter().filter(|(id, _)| !self.planned.contains_key(id)).map(|(_, keys)| keys).collect()
        } else {
            change.delete.columns.iter().filter_map(|id| self.in_force.get(&id.0)).collect()
        };
        for &key in removed.into_iter().flatten() {
            plan.remove_after_commit(key);
        }
        Ok(plan)
    }

    fn commit(&mut self, change: &Change) {
        if change.complete {
            self.in_force.clear();
        } else {
            for id in &change.delete.columns {
                self.in_force.remove(&id.0);
            }
        }
        self.in_force.extend(std::mem::take(&mut self.planned));
    }
}

/// The key and value of a column in `COLUMNS`.
fn head(id: ColumnId, column: &Column) -> Result<(u32, abi::Column), BadId> {
    let Column { tcp, udp, sctp, other } = column;
    let id = encode::column_number(id)?;
    let has = |space: &PortSpace, ports: u32, ranges: u32| {
        let ports = if space.ports.is_empty() { 0 } else { ports };
        let ranges = if space.prefixes.is_empty() { 0 } else { ranges };
        ports | ranges
    };
    let value = abi::Column {
        tcp: final_entry(id, tcp.default)?,
        udp: final_entry(id, udp.default)?,
        sctp: final_entry(id, sctp.default)?,
        other: final_entry(id, *other)?,
        tcp_fragment: final_entry(id, tcp.fragment)?,
        udp_fragment: final_entry(id, udp.fragment)?,
        sctp_fragment: final_entry(id, sctp.fragment)?,
        flags: has(tcp, column_flag::TCP_PORTS, column_flag::TCP_RANGES)
            | has(udp, column_flag::UDP_PORTS, column_flag::UDP_RANGES)
            | has(sctp, column_flag::SCTP_PORTS, column_flag::SCTP_RANGES),
        ..abi::Column::default()
    };
    Ok((id, value))
}

/// The entries of a column in `COLUMN_PORTS`.
fn port_entries(id: u32, column: &Column) -> Result<Vec<(ColumnPortKey, PolicyEntry)>, BadId> {
    let mut entries = Vec::new();
    for (protocol, space) in spaces(column) {
        for (&port, &outcome) in &space.ports {
            let key = ColumnPortKey { column: id, port, protocol: protocol.0, reserved: 0 };
            entries.push((key, final_entry(id, outcome)?));
        }
    }
    Ok(entries)
}

/// The entries of a column in `COLUMN_RANGES`.
fn range_entries(id: u32, column: &Column) -> Result<Vec<(Prefix<ColumnRangeKey>, PolicyEntry)>, BadId> {
    let mut entries = Vec::new();
    for (protocol, space) in spaces(column) {
        for (&(first, length), &outcome) in &space.prefixes {
            if length > PORT_BITS {
                return Err(BadId { what: "port prefix length", id: length.into(), expected: "0 to 16" });
            }
            let data = ColumnRangeKey {
                column: id.to_be_bytes(),
                protocol: protocol.0,
                port: first.to_be_bytes(),
                reserved: 0,
            };
            let prefix = Prefix { length: RANGE_HEAD_BITS + u32::from(length), data };
            entries.push((prefix, final_entry(id, outcome)?));
        }
    }
    Ok(entries)
}

fn spaces(column: &Column) -> [(Protocol, &PortSpace); 3] {
    let Column { tcp, udp, sctp, other: _ } = column;
    [(Protocol::TCP, tcp), (Protocol::UDP, udp), (Protocol::SCTP, sctp)]
}

/// An outcome inside a column must be final: the programs follow one reference to a column, not a chain.
fn final_entry(column: u32, outcome: Outcome) -> Result<PolicyEntry, BadId> {
    match outcome {
        Outcome::Final { .. } => encode::policy_entry(outcome),
        Outcome::Column(_) => {
            Err(BadId { what: "a column inside column", id: column.into(), expected: "final outcomes" })
        }
    }
}

#[cfg(test)]
mod tests;
