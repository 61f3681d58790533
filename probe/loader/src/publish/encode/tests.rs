//! Tables to bytes, as the programs read them.

use std::collections::BTreeMap;

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

#[test]
fn v4_blocks_lie_below_all_of_v4_and_host_bits_are_cleared() {
    let prefix = block(&"10.1.2.3/8".parse().unwrap());
    assert_eq!(prefix.length, 104);
    assert_eq!(prefix.data, address("10.0.0.0".parse().unwrap()));
    assert_eq!(block(&"0.0.0.0/0".parse().unwrap()), ALL_V4);
    assert_eq!(block(&"fd00::/8".parse().unwrap()).length, 8);
}

#[test]
fn port_prefix_is_in_network_order_below_column_and_protocol() {
    let mut tcp = no_ports(denied(1));
    tcp.prefixes.insert((0x1f00, 8), allowed(2));
    tcp.ports.insert(443, allowed(3));
    let parts = column(
        ColumnId(0x0102),
        &Column { tcp, udp: no_ports(denied(1)), sctp: no_ports(denied(1)), other: denied(4) },
    )
    .unwrap();
    let (prefix, decision) = parts.ranges[0];
    assert_eq!(prefix.length, 48);
    assert_eq!((prefix.data.column, prefix.data.protocol, prefix.data.port), ([0, 0, 1, 2], 6, [0x1f, 0]));
    assert_eq!((decision.attribution, decision.verdict), (2, abi::Verdict::Allowed as u8));
    assert_eq!((parts.ports[0].0.port, parts.ports[0].0.column), (443, 0x0102));
    assert_eq!(parts.column.flags, column_flag::TCP_PORTS | column_flag::TCP_RANGES);
    assert_eq!(parts.column.other.attribution, 4);
    assert_eq!(parts.column.tcp_fragment.verdict, abi::Verdict::Denied as u8);
}

#[test]
fn ids_with_another_meaning_are_refused() {
    let nested = Column {
        tcp: no_ports(Outcome::Column(ColumnId(1))),
        udp: no_ports(denied(1)),
        sctp: no_ports(denied(1)),
        other: denied(1),
    };
    assert_eq!(column(ColumnId(9), &nested).unwrap_err().what, "a column inside column");
    assert_eq!(decision(Outcome::Column(ColumnId(0))).unwrap_err().what, "column");
    assert_eq!(decision(allowed(0)).unwrap_err().what, "attribution");
    assert_eq!(decision(allowed(1 << 63)).unwrap_err().what, "attribution");
    assert_eq!(pair(ClassId(0), IdentityId(16)).unwrap_err().what, "class");
    assert!(decision(allowed((1 << 63) - 1)).is_ok());
}

#[test]
fn peer_says_service_and_unknown_pod() {
    let entry = PeerEntry { identity: IdentityId(17), service: true, unknown_pod: true, ..PeerEntry::default() };
    assert_eq!(peer(&entry).flags, peer_flag::SERVICE | peer_flag::UNKNOWN_POD);
    assert_eq!(peer(&PeerEntry::default()), WORLD);
}
