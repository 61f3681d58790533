//! Who is responsible for a verdict: the attribution id's decision, or the kernel's own reason, and for a denial how
//! near each isolating policy came to allowing it.
//!
//! It asks the snapshot that judged, never the present one. An id that has lost its meaning is said to have.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use netverdict_flowlog::row::{AttributionValue, DropReason};
use netverdict_policy::{
    AttributionId, Confidence, Direction, End, Family, NearMiss, ObjectKey, Reason, Snapshot, Verdict, model::Protocol,
    near_misses, tables::OwnerId,
};

use crate::{
    enrich::Ends,
    meaning::{Catalogue, SnapshotState},
    receive::{Cause, Judged},
};

/// Answers that are kept: a scan over all ports of a pod is 65 536 questions.
const MOST_CACHED: usize = 65_536;
/// Snapshots that are kept whole: events of the newest come first, stragglers of the one before beside them.
const MOST_WHOLE: usize = 2;

#[derive(Clone, Debug)]
pub struct Attributed {
    pub attribution: Option<Arc<AttributionValue>>,
    pub reason: Reason,
    pub drop_reason: Option<DropReason>,
    pub confidence: Confidence,
    pub verdict_if_enforced: Option<Verdict>,
    pub near_misses: Arc<[NearMiss]>,
}

#[derive(Debug)]
pub struct Attributor {
    near: HashMap<Question, Arc<[NearMiss]>>,
    none: Arc<[NearMiss]>,
    /// By number, the last asked first.
    whole: VecDeque<(u64, Arc<Snapshot>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    snapshot: u64,
    attribution: AttributionId,
    subject: ObjectKey,
    direction: Direction,
    peer: OwnerId,
    /// Where the owner does not say it all.
    address: std::net::IpAddr,
    protocol: u8,
    port: Option<u16>,
}

impl Default for Attributor {
    fn default() -> Self {
        Self { near: HashMap::new(), none: Arc::from(Vec::new()), whole: VecDeque::new() }
    }
}

impl Attributor {
    pub fn attribute(&mut self, catalogue: &Catalogue, event: &Judged, ends: &Ends) -> Attributed {
        let attribution = catalogue.attribution(event.attribution).cloned();
        let decision = attribution.as_ref().map(|value| &value.decision);
        let verdict_if_enforced = decision.and_then(|decision| decision.verdict_if_enforced);
        let (reason, drop_reason) = match (event.cause, decision) {
            (Cause::Kernel { reason, drop }, _) => (reason, drop),
            (Cause::Policy, Some(decision)) => (decision.reason, None),
            (Cause::Policy, None) => (Reason::AttributionUnknown, None),
        };
        let confidence = match decision {
            Some(decision) => decision.confidence,
            // The kernel's reason is the whole of it.
            None if event.attribution == AttributionId::NONE && event.cause != Cause::Policy => Confidence::Exact,
            None => Confidence::Partial,
        };
        let denies = decision
            .is_some_and(|decision| [Some(decision.verdict), verdict_if_enforced].contains(&Some(Verdict::Denied)));
        let near_misses = if denies { self.near_misses(catalogue, event, ends) } else { self.none.clone() };
        Attributed { attribution, reason, drop_reason, confidence, verdict_if_enforced, near_misses }
    }

    fn near_misses(&mut self, catalogue: &Catalogue, event: &Judged, ends: &Ends) -> Arc<[NearMiss]> {
        let (Some(state), Some(subject)) = (catalogue.snapshot(event.revision), &ends.subject) else {
            return self.none.clone();
        };
        let protocol = Protocol(event.protocol);
        let question = Question {
            snapshot: state.number,
            attribution: event.attribution,
            subject: subject.clone(),
            direction: event.direction,
            peer: ends.peer.owner,
            address: ends.peer.address,
            protocol: event.protocol,
            port: (protocol.has_ports() && !event.fragment).then_some(event.destination_port),
        };
        if let Some(near) = self.near.get(&question) {
            return near.clone();
        }
        let address = ends.peer.address;
        let peer = ends.peer.pod.clone().map_or(End::Address(address), End::Pod);
        let snapshot = self.whole(state);
        let near: Arc<[NearMiss]> = near_misses(
            &snapshot,
            subject,
            event.direction,
            &peer,
            Some(address),
            Family::of(address),
            protocol,
            question.port,
        )
        .into();
        if self.near.len() >= MOST_CACHED {
            self.near.clear();
        }
        self.near.insert(question, near.clone());
        near
    }

    fn whole(&mut self, state: &SnapshotState) -> Arc<Snapshot> {
        let known = self.whole.iter().position(|(number, _)| *number == state.number);
        let known = known.and_then(|index| self.whole.remove(index));
        let (number, snapshot) = known.unwrap_or_else(|| (state.number, state.snapshot()));
        self.whole.truncate(MOST_WHOLE - 1);
        self.whole.push_front((number, snapshot.clone()));
        snapshot
    }
}
