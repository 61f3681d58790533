//! Which ids are in use. A compiler gives out only higher ones.

use netverdict_abi::{EndpointClasses, Peer};
use netverdict_policy::tables::{IdFloor, Owner, OwnerId, Tables};

use crate::{error::ProbeError, maps::Maps};

fn raise(floor: &mut u32, id: u32) {
    *floor = (*floor).max(id.saturating_add(1));
}

/// The lowest ids above all that tables and owners use.
pub(super) fn floor_above(tables: &Tables, owners: &[(OwnerId, Owner)]) -> IdFloor {
    let Tables { addresses, blocks, subjects, pairs, columns } = tables;
    let mut floor = IdFloor::default();
    for entry in addresses.values().chain(blocks.values()) {
        raise(&mut floor.identity, entry.identity.0);
        raise(&mut floor.owner, entry.owner.0);
    }
    for subject in subjects.values() {
        raise(&mut floor.class, subject.egress_class.0);
        raise(&mut floor.class, subject.ingress_class.0);
        raise(&mut floor.owner, subject.owner.0);
    }
    for (class, identity) in pairs.keys() {
        raise(&mut floor.class, class.0);
        raise(&mut floor.identity, identity.0);
    }
    for id in columns.keys() {
        raise(&mut floor.column, id.0);
    }
    for (id, _) in owners {
        raise(&mut floor.owner, id.0);
    }
    floor
}

/// The lowest ids above all that the maps hold.
pub(super) fn floor_above_maps(maps: &Maps) -> Result<IdFloor, ProbeError> {
    let mut floor = IdFloor::default();
    for key in maps.addresses.keys()? {
        if let Some(versions) = maps.addresses.get(&key)? {
            raise_for_peers(&mut floor, [versions.before, versions.after]);
        }
    }
    for block in maps.blocks.keys()? {
        if let Some(versions) = maps.blocks.get_exact(&block)? {
            raise_for_peers(&mut floor, [versions.before, versions.after]);
        }
    }
    for key in maps.pairs.keys()? {
        raise(&mut floor.class, key.class);
        raise(&mut floor.identity, key.identity);
    }
    for ifindex in maps.endpoints.keys()? {
        if let Some(known) = maps.endpoints.get(&ifindex)? {
            raise(&mut floor.owner, known.owner);
            for EndpointClasses { egress_class, ingress_class, .. } in [known.before, known.after] {
                raise(&mut floor.class, egress_class);
                raise(&mut floor.class, ingress_class);
            }
        }
    }
    let columns = maps.columns.keys()?.into_iter();
    let columns = columns.chain(maps.column_ports.keys()?.into_iter().map(|key| key.column));
    let ranges = maps.column_ranges.keys()?.into_iter().map(|prefix| u32::from_be_bytes(prefix.data.column));
    for id in columns.chain(ranges) {
        raise(&mut floor.column, id);
    }
    Ok(floor)
}

fn raise_for_peers(floor: &mut IdFloor, peers: [Peer; 2]) {
    for peer in peers {
        raise(&mut floor.identity, peer.identity);
        raise(&mut floor.owner, peer.owner);
    }
}
