//! The evaluator's decision for a cell, and its comparison with an event.

use netverdict_abi::{
    Direction as AbiDirection, Disposition, KernelReason, Lane, Mode, Verdict as AbiVerdict, VerdictEvent,
    address::{Address, v4_mapped},
};
use netverdict_policy::{
    AttributionId, Compiler, Decision, Direction, End, Family, Flow, Snapshot, Verdict, evaluate, evaluate_point,
    tables::{Owner, OwnerId},
};
use netverdict_tests::topology::PodNetwork;

use crate::{cells::Cell, node::key};

/// The decisions of both ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) egress: Decision,
    pub(crate) ingress: Decision,
    pub(crate) verdict: Verdict,
}

impl Expected {
    pub(crate) fn of(snapshot: &Snapshot, pods: &[PodNetwork], cell: &Cell) -> Self {
        let (source, destination) = (&pods[cell.source], &pods[cell.destination]);
        let family = if cell.family == 4 { Family::V4 } else { Family::V6 };
        let (source_end, destination_end) = (End::Pod(key(source)), End::Pod(key(destination)));
        let at = |subject: &PodNetwork, direction, peer: &PodNetwork| {
            let address = peer.address(cell.family);
            let peer = End::Address(address);
            evaluate_point(
                snapshot,
                &key(subject),
                direction,
                &peer,
                Some(address),
                family,
                cell.protocol,
                Some(cell.port),
            )
            .expect("the pod takes part")
        };
        let egress = at(source, Direction::Egress, destination);
        let ingress = at(destination, Direction::Ingress, source);
        let flow = Flow {
            source: source_end,
            destination: destination_end,
            protocol: cell.protocol,
            port: Some(cell.port),
            family,
        };
        let whole = evaluate(snapshot, &flow).unwrap();
        let decisions: Vec<_> = whole.points.into_iter().map(|point| point.decision).collect();
        assert_eq!(decisions, [egress.clone(), ingress.clone()], "by name or by address, it is the same pod");
        Self { egress, ingress, verdict: whole.verdict }
    }

    pub(crate) fn at(&self, direction: Direction) -> &Decision {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    pub(crate) fn reaches(&self) -> bool {
        self.verdict == Verdict::Allowed
    }
}

/// The first fault in an event of a cell on a node that enforces; `None` if it is as expected. Does not check the revision.
pub(crate) fn fault(
    event: &VerdictEvent,
    compiler: &Compiler,
    pods: &[PodNetwork],
    cell: &Cell,
    direction: Direction,
    decision: &Decision,
) -> Option<String> {
    let told = match compiler.decision(AttributionId(event.attribution)) {
        None => return Some(format!("attribution {} is in no catalogue", event.attribution)),
        Some(told) => told,
    };
    if **told != *decision {
        return Some(format!("recorded {told:?}, expected {decision:?}"));
    }
    let verdict = verdict(decision);
    let (disposition, lane) = match verdict {
        AbiVerdict::Denied => (Disposition::Dropped, Lane::Denied),
        AbiVerdict::Allowed | AbiVerdict::Unknown => (Disposition::Forwarded, Lane::Flow),
    };
    let owner = |id: u32| match compiler.owner(OwnerId(id)) {
        Some(Owner::Pod { key, .. }) => key.to_string(),
        other => format!("{other:?}"),
    };
    let (source, destination) = (&pods[cell.source], &pods[cell.destination]);
    let own = if direction == Direction::Egress { source } else { destination };
    let found = (
        (event.verdict, event.disposition, event.lane, event.reason, event.mode),
        (event.direction, event.family, event.protocol, event.flags),
        (owner(event.source_owner), owner(event.destination_owner), owner(event.endpoint_owner)),
    );
    let right = (
        (verdict as u8, disposition as u8, lane as u8, KernelReason::ByPolicy as u8, Mode::Enforce as u8),
        (of(direction) as u8, cell.family, cell.protocol.0, 0),
        (source.pod.clone(), destination.pod.clone(), own.pod.clone()),
    );
    (found != right).then(|| format!("recorded {found:?}, expected {right:?}"))
}

/// In the encoding of events.
pub(crate) fn verdict(decision: &Decision) -> AbiVerdict {
    match decision.verdict {
        Verdict::Denied => AbiVerdict::Denied,
        Verdict::Allowed => AbiVerdict::Allowed,
        Verdict::Unknown => AbiVerdict::Unknown,
    }
}

pub(crate) fn of(direction: Direction) -> AbiDirection {
    match direction {
        Direction::Egress => AbiDirection::Egress,
        Direction::Ingress => AbiDirection::Ingress,
    }
}

/// A pod's address in the encoding of events.
pub(crate) fn address(pod: &PodNetwork, family: u8) -> Address {
    if family == 4 { v4_mapped(pod.v4.octets()) } else { pod.v6.octets() }
}
