//! Columns as the programs read them.

use std::collections::BTreeMap;

use netverdict_policy::{AttributionId, Verdict};

use super::*;

fn allowed(attribution: u64) -> Outcome {
    Outcome::Final { verdict: Verdict::Allowed, attribution: AttributionId(attribution) }
}

fn denied(attribution: u64) -> Outcome {
    Outcome::Final { verdict: Verdict::Denied, attribution: AttributionId(attribution) }
}

fn no_ports(outcome: Outcome) -> PortSpace {
    PortSpace { default: outcome, ports: BTreeMap::new(), prefixes: BTreeMap::new(), fragment: outcome }
}

fn some_ports() -> Column {
    let mut tcp = no_ports(denied(1));
    tcp.prefixes.insert((0x1f00, 8), allowed(2));
    tcp.ports.insert(443, allowed(3));
    Column { tcp, udp: no_ports(denied(1)), sctp: no_ports(denied(1)), other: denied(4) }
}

#[test]
fn port_prefix_is_in_network_order_below_column_and_protocol() {
    let ranges = range_entries(0x0102, &some_ports()).unwrap();
    let (prefix, entry) = ranges[0];
    assert_eq!(prefix.length, 48);
    assert_eq!((prefix.data.column, prefix.data.protocol, prefix.data.port), ([0, 0, 1, 2], 6, [0x1f, 0]));
    assert_eq!((entry.attribution, entry.verdict), (2, abi::Verdict::Allowed as u8));
    let ports = port_entries(0x0102, &some_ports()).unwrap();
    assert_eq!((ports[0].0.port, ports[0].0.column), (443, 0x0102));
    let (id, column) = head(ColumnId(0x0102), &some_ports()).unwrap();
    assert_eq!(id, 0x0102);
    assert_eq!(column.flags, column_flag::TCP_PORTS | column_flag::TCP_RANGES);
    assert_eq!(column.other.attribution, 4);
    assert_eq!(column.tcp_fragment.verdict, abi::Verdict::Denied as u8);
}

#[test]
fn column_inside_a_column_is_refused() {
    let mut nested = some_ports();
    nested.tcp = no_ports(Outcome::Column(ColumnId(1)));
    assert_eq!(head(ColumnId(9), &nested).unwrap_err().what, "a column inside column");
    nested.tcp = no_ports(denied(1));
    nested.tcp.ports.insert(80, Outcome::Column(ColumnId(1)));
    assert_eq!(port_entries(9, &nested).unwrap_err().what, "a column inside column");
    assert_eq!(head(ColumnId(0), &some_ports()).unwrap_err().what, "column");
}

#[test]
fn port_prefix_longer_than_a_port_is_refused() {
    let mut column = some_ports();
    column.udp.prefixes.insert((0, 17), denied(1));
    assert_eq!(range_entries(9, &column).unwrap_err().what, "port prefix length");
}

#[test]
fn deleted_column_takes_its_keys_along() {
    let mut keys = KeysByColumn::<ColumnPortKey>::default();
    let plan = |keys: &mut KeysByColumn<_>, change: &Change| {
        keys.plan::<Hash<ColumnPortKey, PolicyEntry>>(change, port_entries).unwrap()
    };
    let mut change = Change::default();
    change.put.columns.insert(ColumnId(5), some_ports());
    assert_eq!(plan(&mut keys, &change).writes.len(), 1);
    // Without a commit the next plan starts from the same state.
    assert!(plan(&mut keys, &Change { complete: true, ..Change::default() }).superfluous.is_empty());
    plan(&mut keys, &change);
    keys.commit(&change);

    let mut deletion = Change::default();
    deletion.delete.columns.push(ColumnId(5));
    assert_eq!(plan(&mut keys, &deletion).superfluous.len(), 1);
    assert_eq!(plan(&mut keys, &Change { complete: true, ..Change::default() }).superfluous.len(), 1);
    assert!(plan(&mut keys, &Change { complete: true, ..change.clone() }).superfluous.is_empty(), "it is still in use");
    plan(&mut keys, &deletion);
    keys.commit(&deletion);
    assert!(plan(&mut keys, &deletion).superfluous.is_empty());
}
