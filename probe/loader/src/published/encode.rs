//! Parts of map entries that several maps share, from the engine's types to those of the ABI. Pure.

use std::net::IpAddr;

use netverdict_abi::{self as abi, AddressKey, Peer, PolicyEntry, address::v4_mapped, map::peer_flag};
use netverdict_policy::{
    AttributionId, Verdict,
    tables::{ClassId, ColumnId, IdentityId, Outcome, PeerEntry},
};

/// An id without an encoding: it is reserved, or does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadId {
    pub(crate) what: &'static str,
    pub(crate) id: u64,
    pub(crate) expected: &'static str,
}

/// No peer is at this address: the side of a record on which the address is removed.
pub(crate) const ABSENT: Peer = Peer { identity: 0, owner: 0, flags: peer_flag::ABSENT, reserved: 0 };

/// An address of which nothing is known. A lookup that finds nothing gives the same answer.
pub(crate) const WORLD: Peer = Peer { identity: IdentityId::WORLD.0, owner: 0, flags: 0, reserved: 0 };

pub(crate) fn address(address: IpAddr) -> AddressKey {
    let address = match address {
        IpAddr::V4(address) => v4_mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    };
    AddressKey { address }
}

pub(crate) fn peer(entry: &PeerEntry) -> Peer {
    let PeerEntry { identity, owner, service, unknown_pod, own_node } = *entry;
    let mut flags = 0;
    if service {
        flags |= peer_flag::SERVICE;
    }
    if unknown_pod {
        flags |= peer_flag::UNKNOWN_POD;
    }
    if own_node {
        flags |= peer_flag::OWN_NODE;
    }
    Peer { identity: identity.0, owner: owner.0, flags, reserved: 0 }
}

/// # Errors
/// The attribution id or the column id is reserved or does not fit.
pub(crate) fn policy_entry(outcome: Outcome) -> Result<PolicyEntry, BadId> {
    match outcome {
        Outcome::Final { verdict, attribution: AttributionId(attribution) } => {
            if attribution == 0 || i64::try_from(attribution).is_err() {
                return Err(BadId { what: "attribution", id: attribution, expected: "1 to 2^63 - 1" });
            }
            Ok(PolicyEntry { attribution, column: 0, verdict: verdict_code(verdict) as u8, reserved: [0; 3] })
        }
        Outcome::Column(id) => Ok(PolicyEntry { column: column_number(id)?, ..PolicyEntry::default() }),
    }
}

pub(crate) fn class_number(ClassId(id): ClassId) -> Result<u32, BadId> {
    match id {
        0 => Err(BadId { what: "class", id: 0, expected: "1 or more" }),
        id => Ok(id),
    }
}

pub(crate) fn column_number(ColumnId(id): ColumnId) -> Result<u32, BadId> {
    match id {
        0 => Err(BadId { what: "column", id: 0, expected: "1 or more" }),
        id => Ok(id),
    }
}

const fn verdict_code(verdict: Verdict) -> abi::Verdict {
    match verdict {
        Verdict::Allowed => abi::Verdict::Allowed,
        Verdict::Denied => abi::Verdict::Denied,
        Verdict::Unknown => abi::Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(attribution: u64) -> Outcome {
        Outcome::Final { verdict: Verdict::Allowed, attribution: AttributionId(attribution) }
    }

    #[test]
    fn reserved_and_oversized_ids_are_refused() {
        assert_eq!(policy_entry(Outcome::Column(ColumnId(0))).unwrap_err().what, "column");
        assert_eq!(policy_entry(allowed(0)).unwrap_err().what, "attribution");
        assert_eq!(policy_entry(allowed(1 << 63)).unwrap_err().what, "attribution");
        assert!(policy_entry(allowed((1 << 63) - 1)).is_ok());
        assert_eq!(class_number(ClassId(0)).unwrap_err().what, "class");
    }

    #[test]
    fn peer_says_service_unknown_pod_and_own_node() {
        let entry = PeerEntry { identity: IdentityId(17), service: true, unknown_pod: true, ..PeerEntry::default() };
        assert_eq!(peer(&entry).flags, peer_flag::SERVICE | peer_flag::UNKNOWN_POD);
        let entry = PeerEntry { own_node: true, ..PeerEntry::default() };
        assert_eq!(peer(&entry).flags, peer_flag::OWN_NODE);
        assert_eq!(peer(&PeerEntry::default()), WORLD);
    }
}
