//! The decider of a verdict. Of our probe's: the decision behind its attribution id, or the kernel's own reason,
//! and for a denial how near each isolating policy came to allowing it. Of another system's: the decider that it named.
//!
//! It asks the snapshot that decided, never the present one. An id whose meaning is lost has reason
//! `attribution_unknown`. Reports of other systems are recorded and never re-evaluated.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use netverdict_flowlog::row::{AttributionValue, DropReason};
use netverdict_policy::{
    AttributionId, Confidence, Decision, Direction, End, Family, NearMiss, ObjectKey, Reason, Snapshot, Verdict,
    model::Protocol, near_misses, tables::OwnerId,
};

use crate::{
    enrich::EndRows,
    meaning::{Catalogue, SnapshotState},
    observation::{Decider, Observation, ReasonSource, Report},
};

/// Answers that are cached: a scan over all ports of a pod is 65 536 questions.
const MOST_CACHED: usize = 65_536;
/// Full snapshots that are cached: most events are of the newest, a few of the one before.
const MOST_WHOLE: usize = 2;

#[derive(Clone, Debug)]
pub struct Attributed {
    pub attribution: Option<Arc<AttributionValue>>,
    /// As the kernel gave it, even where its meaning is lost; none for decisions of another system.
    pub id: AttributionId,
    /// Number of the snapshot that decided; 0 where it is not known.
    pub snapshot: u64,
    pub reason: Reason,
    pub drop_reason: Option<DropReason>,
    pub confidence: Confidence,
    pub verdict_if_enforced: Option<Verdict>,
    pub near_misses: Arc<[NearMiss]>,
    /// Verbatim, when another system named a policy.
    pub reported_by: Option<Arc<str>>,
}

#[derive(Debug)]
pub struct Attributor {
    near: HashMap<Question, Arc<[NearMiss]>>,
    none: Arc<[NearMiss]>,
    /// By number, the last asked first.
    whole: VecDeque<(u64, Arc<Snapshot>)>,
    /// Decisions of other systems: rows that share one point to the same value.
    reported: HashMap<Decision, Arc<AttributionValue>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    snapshot: u64,
    attribution: AttributionId,
    subject: ObjectKey,
    direction: Direction,
    peer: OwnerId,
    /// Where the owner alone does not identify the peer.
    address: std::net::IpAddr,
    protocol: u8,
    port: Option<u16>,
}

impl Default for Attributor {
    fn default() -> Self {
        Self { near: HashMap::new(), none: Arc::from(Vec::new()), whole: VecDeque::new(), reported: HashMap::new() }
    }
}

impl Attributor {
    pub fn attribute(&mut self, catalogue: &Catalogue, observation: &Observation, ends: &EndRows) -> Attributed {
        match &observation.decider {
            Decider::Tables { attribution, revision, reason } => {
                let state = catalogue.snapshot(*revision);
                self.by_tables(catalogue, state, observation, (*attribution, *reason), ends)
            }
            Decider::Reported(report) => self.by_report(report),
        }
    }

    fn by_tables(
        &mut self,
        catalogue: &Catalogue,
        state: Option<&Arc<SnapshotState>>,
        observation: &Observation,
        (id, source): (AttributionId, ReasonSource),
        ends: &EndRows,
    ) -> Attributed {
        let attribution = catalogue.attribution(id).cloned();
        let decision = attribution.as_ref().map(|value| &value.decision);
        let verdict_if_enforced = decision.and_then(|decision| decision.verdict_if_enforced);
        let (reason, drop_reason) = match (source, decision) {
            (ReasonSource::Kernel { reason, drop }, _) => (reason, drop),
            (ReasonSource::Attribution, Some(decision)) => (decision.reason, None),
            (ReasonSource::Attribution, None) => (Reason::AttributionUnknown, None),
        };
        let confidence = match decision {
            Some(decision) => decision.confidence,
            // The kernel's reason is the whole of it.
            None if id == AttributionId::NONE && source != ReasonSource::Attribution => Confidence::Exact,
            None => Confidence::Partial,
        };
        let denies = decision
            .is_some_and(|decision| [Some(decision.verdict), verdict_if_enforced].contains(&Some(Verdict::Denied)));
        let near_misses = match state {
            Some(state) if denies => self.near_misses(state, id, observation, ends),
            _ => self.none.clone(),
        };
        let snapshot = state.map_or(0, |state| state.number);
        Attributed {
            attribution,
            id,
            snapshot,
            reason,
            drop_reason,
            confidence,
            verdict_if_enforced,
            near_misses,
            reported_by: None,
        }
    }

    fn by_report(&mut self, report: &Report) -> Attributed {
        let Report { decision, verbatim } = report;
        let Decision { verdict: _, verdict_if_enforced, reason, tier: _, confidence, references: _ } = decision;
        // `None` for the policies means that none is known; an empty list would mean that none took part.
        let attribution = (*reason != Reason::AttributionUnknown).then(|| self.reported(decision));
        Attributed {
            attribution,
            id: AttributionId::NONE,
            snapshot: 0,
            reason: *reason,
            drop_reason: None,
            confidence: *confidence,
            verdict_if_enforced: *verdict_if_enforced,
            near_misses: self.none.clone(),
            reported_by: (!verbatim.is_empty()).then(|| verbatim.clone()),
        }
    }

    fn reported(&mut self, decision: &Decision) -> Arc<AttributionValue> {
        if let Some(value) = self.reported.get(decision) {
            return value.clone();
        }
        if self.reported.len() >= MOST_CACHED {
            self.reported.clear();
        }
        let value = Arc::new(AttributionValue { id: AttributionId::NONE, decision: decision.clone() });
        self.reported.insert(decision.clone(), value.clone());
        value
    }

    fn near_misses(
        &mut self,
        state: &Arc<SnapshotState>,
        attribution: AttributionId,
        observation: &Observation,
        ends: &EndRows,
    ) -> Arc<[NearMiss]> {
        let (Some(subject), Some(peer_end)) = (&ends.subject, &ends.peer) else { return self.none.clone() };
        let flow = &observation.flow;
        let protocol = Protocol(flow.protocol);
        let question = Question {
            snapshot: state.number,
            attribution,
            subject: subject.clone(),
            direction: flow.direction,
            peer: peer_end.owner,
            address: peer_end.address,
            protocol: flow.protocol,
            port: (protocol.has_ports() && !flow.fragment).then_some(flow.destination_port),
        };
        if let Some(near) = self.near.get(&question) {
            return near.clone();
        }
        let address = peer_end.address;
        let peer = peer_end.pod.clone().map_or(End::Address(address), End::Pod);
        let snapshot = self.whole(state);
        let near: Arc<[NearMiss]> = near_misses(
            &snapshot,
            subject,
            flow.direction,
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
