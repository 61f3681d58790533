//! The engine's tables as map bytes. The only place that knows both. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use netverdict_abi::{
    self as abi, AddressKey, ColumnPortKey, ColumnRangeKey, EndpointClasses, PairKey, Peer,
    address::{v4_mapped, v4_prefix_length},
    map::{column_flag, peer_flag},
};
use netverdict_policy::{
    AttributionId, Verdict,
    model::Protocol,
    tables::{ClassId, Column, ColumnId, IdentityId, Outcome, PeerEntry, PortSpace, SubjectEntry},
};

use crate::maps::Prefix;

/// An id that means something else, or does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadId {
    pub(crate) what: &'static str,
    pub(crate) id: u64,
    pub(crate) expected: &'static str,
}

/// Bits of a [`ColumnRangeKey`] before the port: column and protocol.
const RANGE_HEAD_BITS: u32 = 40;

/// Nobody, with certainty: in a version that removes an address.
pub(crate) const ABSENT: Peer = Peer { identity: 0, owner: 0, flags: peer_flag::ABSENT, reserved: 0 };

/// An address of which nothing is known. Answers just as a lookup that finds nothing.
pub(crate) const WORLD: Peer = Peer { identity: IdentityId::WORLD.0, owner: 0, flags: 0, reserved: 0 };

pub(crate) fn address(address: IpAddr) -> AddressKey {
    let address = match address {
        IpAddr::V4(address) => v4_mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    };
    AddressKey { address }
}

/// A block, host bits cleared.
pub(crate) fn block(block: &IpNet) -> Prefix<AddressKey> {
    let block = block.trunc();
    let length = match block {
        IpNet::V4(block) => v4_prefix_length(block.prefix_len()),
        IpNet::V6(block) => u32::from(block.prefix_len()),
    };
    Prefix { length, data: address(block.network()) }
}

/// All of IPv4. It is always in the trie, lest an IPv6 block like `::/0` match addresses of the other family.
pub(crate) const ALL_V4: Prefix<AddressKey> =
    Prefix { length: v4_prefix_length(0), data: AddressKey { address: v4_mapped([0; 4]) } };

pub(crate) fn peer(entry: &PeerEntry) -> Peer {
    let PeerEntry { identity, owner, service, unknown_pod } = *entry;
    let mut flags = 0;
    if service {
        flags |= peer_flag::SERVICE;
    }
    if unknown_pod {
        flags |= peer_flag::UNKNOWN_POD;
    }
    Peer { identity: identity.0, owner: owner.0, flags, reserved: 0 }
}

pub(crate) fn pair(class: ClassId, identity: IdentityId) -> Result<PairKey, BadId> {
    Ok(PairKey { class: class_number(class)?, identity: identity.0 })
}

pub(crate) fn decision(outcome: Outcome) -> Result<abi::Decision, BadId> {
    match outcome {
        Outcome::Final { verdict, attribution } => final_decision(verdict, attribution),
        Outcome::Column(id) => Ok(abi::Decision { column: column_number(id)?, ..abi::Decision::default() }),
    }
}

pub(crate) fn classes(subject: &SubjectEntry) -> Result<EndpointClasses, BadId> {
    let SubjectEntry { owner: _, egress_class, ingress_class, egress_default, ingress_default } = *subject;
    Ok(EndpointClasses {
        egress_class: class_number(egress_class)?,
        ingress_class: class_number(ingress_class)?,
        egress_default: decision(egress_default)?,
        ingress_default: decision(ingress_default)?,
    })
}

/// A column, taken apart into what three maps hold of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnParts {
    pub(crate) id: u32,
    pub(crate) column: abi::Column,
    pub(crate) ports: Vec<(ColumnPortKey, abi::Decision)>,
    pub(crate) ranges: Vec<(Prefix<ColumnRangeKey>, abi::Decision)>,
}

pub(crate) fn column(id: ColumnId, column: &Column) -> Result<ColumnParts, BadId> {
    let Column { tcp, udp, sctp, other } = column;
    let number = column_number(id)?;
    let mut parts = ColumnParts {
        id: number,
        column: abi::Column {
            tcp: inner(id, tcp.default)?,
            udp: inner(id, udp.default)?,
            sctp: inner(id, sctp.default)?,
            other: inner(id, *other)?,
            tcp_fragment: inner(id, tcp.fragment)?,
            udp_fragment: inner(id, udp.fragment)?,
            sctp_fragment: inner(id, sctp.fragment)?,
            ..abi::Column::default()
        },
        ports: Vec::new(),
        ranges: Vec::new(),
    };
    parts.add(id, Protocol::TCP, tcp, column_flag::TCP_PORTS, column_flag::TCP_RANGES)?;
    parts.add(id, Protocol::UDP, udp, column_flag::UDP_PORTS, column_flag::UDP_RANGES)?;
    parts.add(id, Protocol::SCTP, sctp, column_flag::SCTP_PORTS, column_flag::SCTP_RANGES)?;
    Ok(parts)
}

impl ColumnParts {
    fn add(
        &mut self,
        id: ColumnId,
        protocol: Protocol,
        space: &PortSpace,
        has_ports: u32,
        has_ranges: u32,
    ) -> Result<(), BadId> {
        let PortSpace { default: _, ports, prefixes, fragment: _ } = space;
        for (&port, &outcome) in ports {
            let key = ColumnPortKey { column: self.id, port, protocol: protocol.0, reserved: 0 };
            self.ports.push((key, inner(id, outcome)?));
            self.column.flags |= has_ports;
        }
        for (&(first, length), &outcome) in prefixes {
            if length > 16 {
                return Err(BadId { what: "port prefix length", id: length.into(), expected: "0 to 16" });
            }
            let data = ColumnRangeKey {
                column: self.id.to_be_bytes(),
                protocol: protocol.0,
                port: first.to_be_bytes(),
                reserved: 0,
            };
            let prefix = Prefix { length: RANGE_HEAD_BITS + u32::from(length), data };
            self.ranges.push((prefix, inner(id, outcome)?));
            self.column.flags |= has_ranges;
        }
        Ok(())
    }
}

/// What a column holds must be final: the kernel asks once.
fn inner(id: ColumnId, outcome: Outcome) -> Result<abi::Decision, BadId> {
    match outcome {
        Outcome::Final { verdict, attribution } => final_decision(verdict, attribution),
        Outcome::Column(_) => {
            Err(BadId { what: "a column inside column", id: id.0.into(), expected: "final outcomes" })
        }
    }
}

fn final_decision(verdict: Verdict, attribution: AttributionId) -> Result<abi::Decision, BadId> {
    let id = attribution.0;
    if id == 0 || i64::try_from(id).is_err() {
        return Err(BadId { what: "attribution", id, expected: "1 to 2^63 - 1" });
    }
    Ok(abi::Decision { attribution: id, column: 0, verdict: verdict_code(verdict) as u8, reserved: [0; 3] })
}

const fn verdict_code(verdict: Verdict) -> abi::Verdict {
    match verdict {
        Verdict::Allowed => abi::Verdict::Allowed,
        Verdict::Denied => abi::Verdict::Denied,
        Verdict::Unknown => abi::Verdict::Unknown,
    }
}

fn class_number(ClassId(id): ClassId) -> Result<u32, BadId> {
    match id {
        0 => Err(BadId { what: "class", id: 0, expected: "1 or more" }),
        id => Ok(id),
    }
}

fn column_number(ColumnId(id): ColumnId) -> Result<u32, BadId> {
    match id {
        0 => Err(BadId { what: "column", id: 0, expected: "1 or more" }),
        id => Ok(id),
    }
}

#[cfg(test)]
mod tests;
