//! The endpoints at both ends of an observation.
//!
//! Of our probe's: by owner id, as the kernel had it, with the labels of the snapshot that decided. The end whose
//! interface decided is known by that interface, independent of the packet's addresses. Where the kernel and the
//! snapshots disagree on the owner of an address, the row says so; it is never corrected silently. A pod that the kernel
//! did not know is named if the address history by now has the owner of its address at that time. Of another system's: as
//! that system names them, with nothing added.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use netverdict_flowlog::row::{EndpointKind, EndpointRow};
use netverdict_policy::{
    Direction, ObjectKey, Reason,
    model::Pod,
    tables::{Owner, OwnerId},
};

use crate::{
    address_history::AddressHistory,
    meaning::{Catalogue, SnapshotState},
    observation::{ClaimedEnd, ClaimedEnds, Decider, Ends, FlowTuple, Observation, OwnerEnds, ReasonSource},
};

/// Rows that are kept for reuse. Other rows are built anew; equal ones then no longer share a pointer.
const MOST_CACHED: usize = 65_536;
const ZONE: &str = "topology.kubernetes.io/zone";

/// Both ends of an observation as rows have them.
#[derive(Clone, Debug)]
pub struct EndRows {
    pub source: Arc<EndpointRow>,
    pub destination: Arc<EndpointRow>,
    /// The pod whose interface decided, where it is known.
    pub subject: Option<ObjectKey>,
    /// The other end; `None` where another system names the ends.
    pub peer: Option<PeerEnd>,
    pub identity_window_open: bool,
}

/// The end that a policy would call the peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerEnd {
    pub owner: OwnerId,
    pub address: IpAddr,
    /// `Some`: that pod, and the snapshot has it.
    pub pod: Option<ObjectKey>,
}

/// Builds ends, and shares those that are built already.
#[derive(Debug, Default)]
pub struct Enricher {
    cache: HashMap<Key, Arc<EndpointRow>>,
    claimed: HashMap<ClaimedEnd, Arc<EndpointRow>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    snapshot: u64,
    who: Who,
    address: IpAddr,
    /// Of Services only: which port was asked.
    port: u16,
    /// Of the destination: where the sender addressed it, if that was translated.
    addressed: Option<(IpAddr, u16)>,
}

/// The kernel's answer for an end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Owner(OwnerId),
    /// No known owner, in a pod range.
    UnknownPod,
    Nobody,
    /// The pod that the interface is bound to: the kernel had no tables for it yet.
    Bound(ObjectKey, String),
}

impl Enricher {
    pub fn ends(&mut self, catalogue: &Catalogue, history: &AddressHistory, observation: &Observation) -> EndRows {
        match &observation.ends {
            Ends::Owners(owners) => self.owned(catalogue, history, observation, owners),
            Ends::Claimed(ends) => self.claimed(ends),
        }
    }

    fn claimed(&mut self, ends: &ClaimedEnds) -> EndRows {
        let ClaimedEnds { source, destination } = ends;
        EndRows {
            source: self.claimed_row(source),
            destination: self.claimed_row(destination),
            subject: None,
            peer: None,
            identity_window_open: false,
        }
    }

    fn claimed_row(&mut self, end: &ClaimedEnd) -> Arc<EndpointRow> {
        if let Some(row) = self.claimed.get(end) {
            return row.clone();
        }
        if self.claimed.len() >= MOST_CACHED {
            self.claimed.clear();
        }
        let row = Arc::new(claimed_row(end.clone()));
        self.claimed.insert(end.clone(), row.clone());
        row
    }

    fn owned(
        &mut self,
        catalogue: &Catalogue,
        history: &AddressHistory,
        observation: &Observation,
        owners: &OwnerEnds,
    ) -> EndRows {
        let (revision, spoofed) = match &observation.decider {
            Decider::Tables { revision, reason, .. } => {
                (*revision, matches!(reason, ReasonSource::Kernel { reason: Reason::SpoofedSource, .. }))
            }
            Decider::Reported(_) => (0, false),
        };
        let state = catalogue.snapshot(revision);
        let FlowTuple { direction, source, destination, destination_port, .. } = observation.flow;
        let (endpoint_address, peer_address, claimed, peer_owner) = match direction {
            Direction::Egress => (source, destination, owners.source, owners.destination),
            Direction::Ingress => (destination, source, owners.destination, owners.source),
        };
        let endpoint = deciding_end(catalogue, owners, claimed, spoofed);
        let peer = match peer_owner {
            OwnerId::NOBODY if owners.unknown_pod => Who::UnknownPod,
            OwnerId::NOBODY => Who::Nobody,
            owner => Who::Owner(owner),
        };
        let newest = catalogue.seen_by(observation.last_ns);
        let is_contradicted = |owner, address| match catalogue.owner(owner).map(|owner| &**owner) {
            Some(Owner::Pod { uid, .. }) => history.contradicts(address, observation.last_ns, uid),
            Some(Owner::Node { .. } | Owner::Service { .. }) | None => false,
        };
        let disagrees =
            |owner, address| disagrees(catalogue, state, newest, owner, address) || is_contradicted(owner, address);
        let identity_window_open = owners.unknown_pod
            || owners.endpoint == OwnerId::NOBODY
            || disagrees(peer_owner, peer_address)
            || (!spoofed && disagrees(owners.endpoint, endpoint_address));
        let subject = match &endpoint {
            Who::Owner(owner) => catalogue.owner(*owner).and_then(|owner| pod_key(owner)),
            Who::Bound(key, _) => Some(key.clone()),
            Who::UnknownPod | Who::Nobody => None,
        };
        let pod = catalogue.owner(peer_owner).and_then(|owner| match &**owner {
            Owner::Pod { key, uid } => state.and_then(|state| pod(state, key, uid)).map(Pod::key),
            Owner::Node { .. } | Owner::Service { .. } => None,
        });
        let peer_end = PeerEnd { owner: peer_owner, address: peer_address, pod };
        let addressed = observation.flow.original_destination;
        let (at_endpoint, at_peer) = match direction {
            Direction::Egress => (None, addressed),
            Direction::Ingress => (addressed, None),
        };
        let endpoint_row = self.row(catalogue, state, endpoint, endpoint_address, 0, at_endpoint);
        let asked_port = if direction == Direction::Egress { destination_port } else { 0 };
        let known_since = unknown_peer(observation).and_then(|address| history.owner(address, observation.last_ns));
        let peer_row = match known_since {
            Some(pod) => Arc::new(known_since_row(state.map(|state| &**state), peer_address, pod)),
            None => self.row(catalogue, state, peer, peer_address, asked_port, at_peer),
        };
        let (source, destination) = match direction {
            Direction::Egress => (endpoint_row, peer_row),
            Direction::Ingress => (peer_row, endpoint_row),
        };
        EndRows { source, destination, subject, peer: Some(peer_end), identity_window_open }
    }

    fn row(
        &mut self,
        catalogue: &Catalogue,
        state: Option<&Arc<SnapshotState>>,
        who: Who,
        address: IpAddr,
        port: u16,
        addressed: Option<(IpAddr, u16)>,
    ) -> Arc<EndpointRow> {
        let owner = match &who {
            Who::Owner(id) => catalogue.owner(*id),
            _ => None,
        };
        let port = if matches!(owner.map(|owner| &**owner), Some(Owner::Service { .. })) { port } else { 0 };
        let key = Key { snapshot: state.map_or(0, |state| state.number), who, address, port, addressed };
        if let Some(row) = self.cache.get(&key) {
            return row.clone();
        }
        let row = Arc::new(build(state.map(|state| &**state), &key, owner.map(|owner| &**owner)));
        // Without its snapshot a row is incomplete and not cached: for the next event the snapshot may be known.
        if state.is_some() {
            if self.cache.len() >= MOST_CACHED {
                self.cache.clear();
            }
            self.cache.insert(key, row.clone());
        }
        row
    }

    /// Another boot: its numbers mean other things.
    pub fn forget(&mut self) {
        self.cache.clear();
    }
}

/// The address of a peer that the kernel took for a pod with no known owner.
pub fn unknown_peer(observation: &Observation) -> Option<IpAddr> {
    let Ends::Owners(OwnerEnds { source, destination, unknown_pod: true, .. }) = &observation.ends else { return None };
    let (owner, address) = match observation.flow.direction {
        Direction::Egress => (destination, observation.flow.destination),
        Direction::Ingress => (source, observation.flow.source),
    };
    (*owner == OwnerId::NOBODY).then_some(address)
}

/// The end whose interface decided.
fn deciding_end(catalogue: &Catalogue, owners: &OwnerEnds, claimed: OwnerId, spoofed: bool) -> Who {
    if owners.endpoint != OwnerId::NOBODY {
        return Who::Owner(owners.endpoint);
    }
    match catalogue.bound(owners.interface) {
        Some((key, uid)) => Who::Bound(key.clone(), uid.clone()),
        None if claimed == OwnerId::NOBODY || spoofed => Who::Nobody,
        None => Who::Owner(claimed),
    }
}

fn pod_key(owner: &Owner) -> Option<ObjectKey> {
    match owner {
        Owner::Pod { key, .. } => Some(key.clone()),
        Owner::Node { .. } | Owner::Service { .. } => None,
    }
}

/// Whether the kernel's owner differs from that of its revision's snapshot, or from the owner that the cluster source
/// already reported when the kernel decided.
fn disagrees(
    catalogue: &Catalogue,
    state: Option<&Arc<SnapshotState>>,
    newest: Option<&Arc<SnapshotState>>,
    kernel_owner: OwnerId,
    address: IpAddr,
) -> bool {
    if address.is_unspecified() {
        return false;
    }
    let Some(state) = state else { return true };
    if state.owner_id(address) != kernel_owner {
        return true;
    }
    newest.is_some_and(|newest| {
        newest.number != state.number && newest.owner_of(address) != catalogue.owner(kernel_owner).map(|owner| &**owner)
    })
}

fn pod<'a>(state: &'a SnapshotState, key: &ObjectKey, uid: &str) -> Option<&'a Pod> {
    state.pod(key).filter(|pod| pod.uid == uid)
}

fn build(state: Option<&SnapshotState>, key: &Key, owner: Option<&Owner>) -> EndpointRow {
    let mut row = EndpointRow {
        identity: state.and_then(|state| state.peer(key.address)).map_or(0, |peer| peer.identity.0),
        ..EndpointRow::default()
    };
    match (&key.who, owner) {
        (Who::Owner(_), Some(Owner::Pod { key, uid })) | (Who::Bound(key, uid), _) => {
            fill_pod(&mut row, state, key, uid)
        }
        (Who::Owner(_), Some(Owner::Node { name })) => {
            row.kind = EndpointKind::Node;
            row.node.clone_from(name);
            if let Some(node) = state.and_then(|state| state.node(name)) {
                row.labels.clone_from(&node.labels);
                row.zone = node.labels.get(ZONE).cloned().unwrap_or_default();
            }
        }
        (Who::Owner(_), Some(Owner::Service { key: service })) => {
            row.kind = EndpointKind::Service;
            row.namespace.clone_from(&service.namespace);
            fill_service(&mut row, state, service, key.port);
        }
        (Who::Owner(_), None) => row.kind = EndpointKind::UnknownOwner,
        (Who::UnknownPod, _) => row.kind = EndpointKind::UnknownPod,
        (Who::Nobody, _) => row.kind = nobody(state, key.address),
    }
    if let (Some(state), Some((address, port))) = (state, key.addressed)
        && let Some(Owner::Service { key: service }) = state.owner_of(address)
    {
        fill_service(&mut row, Some(state), service, port);
    }
    row
}

/// The Service that was addressed.
fn fill_service(row: &mut EndpointRow, state: Option<&SnapshotState>, service: &ObjectKey, port: u16) {
    row.service = service.to_string();
    let ports = state.and_then(|state| state.service(service)).map(|service| &service.ports);
    let port = ports.into_iter().flatten().find(|known| known.port == port);
    row.service_port = port.map(|port| port.name.clone()).unwrap_or_default();
}

/// The kind of an address for which the kernel had no owner.
fn nobody(state: Option<&SnapshotState>, address: IpAddr) -> EndpointKind {
    match state {
        _ if address.is_unspecified() => EndpointKind::Unknown,
        None => EndpointKind::Unknown,
        Some(state) if state.is_in_pod_range(address) => EndpointKind::UnknownPod,
        Some(_) => EndpointKind::External,
    }
}

fn fill_pod(row: &mut EndpointRow, state: Option<&SnapshotState>, key: &ObjectKey, uid: &str) {
    row.kind = EndpointKind::Pod;
    row.namespace.clone_from(&key.namespace);
    row.pod.clone_from(&key.name);
    uid.clone_into(&mut row.pod_uid);
    let Some(state) = state else { return };
    if let Some(pod) = pod(state, key, uid) {
        describe_pod(row, state, pod);
    }
}

/// A pod that was not in the snapshot that decided, as it was when it became known.
fn known_since_row(state: Option<&SnapshotState>, address: IpAddr, pod: &Pod) -> EndpointRow {
    let identity = state.and_then(|state| state.peer(address)).map_or(0, |peer| peer.identity.0);
    let mut row = EndpointRow { identity, ..EndpointRow::default() };
    fill_pod(&mut row, None, &pod.key(), &pod.uid);
    if let Some(state) = state {
        describe_pod(&mut row, state, pod);
    }
    row
}

fn describe_pod(row: &mut EndpointRow, state: &SnapshotState, pod: &Pod) {
    row.labels.clone_from(&pod.labels);
    row.service_account.clone_from(&pod.service_account);
    row.node.clone_from(&pod.node);
    if let Some(workload) = &pod.workload {
        row.workload_kind.clone_from(&workload.kind);
        row.workload.clone_from(&workload.name);
    }
    let node = state.node(&pod.node);
    row.zone = node.and_then(|node| node.labels.get(ZONE)).cloned().unwrap_or_default();
}

fn claimed_row(end: ClaimedEnd) -> EndpointRow {
    let ClaimedEnd { kind, namespace, pod, workload_kind, workload, node, service, service_port, labels } = end;
    EndpointRow {
        kind,
        namespace,
        pod,
        workload_kind,
        workload,
        node,
        service,
        service_port,
        labels,
        ..EndpointRow::default()
    }
}
