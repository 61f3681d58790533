//! The id floor: the lowest ids that a compiler may give out. Ids below it may be in a map, in an event or in the state
//! file.

use netverdict_abi::{EndpointClasses, Peer};
use netverdict_policy::tables::IdFloor;

/// Raises one floor above an id.
pub(crate) fn raise(floor: &mut u32, id: u32) {
    *floor = (*floor).max(id.saturating_add(1));
}

pub(super) fn raise_for_peers(floor: &mut IdFloor, peers: [Peer; 2]) {
    for peer in peers {
        raise(&mut floor.identity, peer.identity);
        raise(&mut floor.owner, peer.owner);
    }
}

pub(super) fn raise_for_classes(floor: &mut IdFloor, classes: &EndpointClasses) {
    raise(&mut floor.class, classes.egress_class);
    raise(&mut floor.class, classes.ingress_class);
}
