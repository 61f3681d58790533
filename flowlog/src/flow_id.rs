//! Which rows are of one flow: a number that both nodes, and both directions of evaluation, compute alike.
//!
//! It is not stored: numbers that look random do not compress and would cost six bytes a row, so views compute it. It is
//! not unique over time, because ports are reused.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use crate::row::FlowRow;

/// XXH3-64 (seed 0) of the flow in its original direction, client to server, after DNAT: family (4 or 6), protocol,
/// source and destination address (16 bytes each, IPv4 as `::ffff:a.b.c.d`), source and destination port (big endian,
/// 0 without ports). As a signed number, for PostgreSQL has no other.
pub fn flow_id(protocol: u8, source: (IpAddr, u16), destination: (IpAddr, u16)) -> i64 {
    let (source_ip, destination_ip) = (source.0.to_canonical(), destination.0.to_canonical());
    let family = if source_ip.is_ipv4() { 4 } else { 6 };
    let mut bytes = [0; 38];
    bytes[0] = family;
    bytes[1] = protocol;
    bytes[2..18].copy_from_slice(&sixteen(source_ip));
    bytes[18..34].copy_from_slice(&sixteen(destination_ip));
    bytes[34..36].copy_from_slice(&source.1.to_be_bytes());
    bytes[36..38].copy_from_slice(&destination.1.to_be_bytes());
    xxh3_64(&bytes).cast_signed()
}

/// The id of the flow that a row is about. Rows hold the original direction already: a reply is no flow of its own.
pub fn of_row(row: &FlowRow) -> i64 {
    flow_id(row.protocol, (row.source_ip, row.source_port), (row.destination_ip, row.destination_port))
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(protocol: u8, source: &str, source_port: u16, destination: &str, destination_port: u16) -> i64 {
        flow_id(protocol, (source.parse().unwrap(), source_port), (destination.parse().unwrap(), destination_port))
    }

    #[test]
    fn the_id_never_changes() {
        // Views, dashboards and other people's notebooks hold these.
        assert_eq!(id(6, "10.0.0.1", 40_000, "10.0.0.2", 5432), KNOWN_V4);
        assert_eq!(id(17, "fd00::1", 53, "fd00::2", 53), KNOWN_V6);
    }

    // Computed with another implementation (xxHash's own, through Python).
    const KNOWN_V4: i64 = -6_321_156_330_337_476_892;
    const KNOWN_V6: i64 = 584_667_706_522_272_314;

    #[test]
    fn direction_protocol_and_ports_tell_flows_apart() {
        let one = id(6, "10.0.0.1", 40_000, "10.0.0.2", 5432);
        assert_ne!(one, id(6, "10.0.0.2", 5432, "10.0.0.1", 40_000));
        assert_ne!(one, id(17, "10.0.0.1", 40_000, "10.0.0.2", 5432));
        assert_ne!(one, id(6, "10.0.0.1", 40_001, "10.0.0.2", 5432));
    }

    #[test]
    fn an_address_has_one_spelling() {
        assert_eq!(id(6, "::ffff:10.0.0.1", 1, "10.0.0.2", 2), id(6, "10.0.0.1", 1, "10.0.0.2", 2));
    }
}
