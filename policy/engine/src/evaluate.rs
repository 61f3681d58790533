//! The direct evaluator: one flow against one snapshot, in the order of the specification.
//!
//! It is the reference for the compiler, and answers people's questions. It keeps no index and no state: each call reads
//! the snapshot from the start.

mod decisions;
mod flow;
mod near_miss;
pub(crate) mod peer;
pub(crate) mod ports;
mod question;
pub(crate) mod selector;
#[cfg(test)]
mod tests;
pub(crate) mod tiers;

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::flow::{End, Family, Flow, PointName};
use self::{decisions::unknown_endpoint, peer::Facts, question::Question};
pub(crate) use self::{
    decisions::{audited, self_traffic},
    ports::is_tunnel,
};
use crate::{
    decision::{Decision, NearMiss, Verdict},
    model::{Direction, ObjectKey, Pod, Protocol, Snapshot},
};

/// The decision of one end's policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    pub name: PointName,
    pub subject: ObjectKey,
    pub decision: Decision,
    /// Per isolating policy; empty unless policies isolate and none of their rules matched.
    pub near_misses: Vec<NearMiss>,
}

/// The decisions of both ends. A point that a packet would never reach is evaluated too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Denied if any point denies, else unknown if any point does not know or the destination is a Service's address,
    /// else allowed.
    pub verdict: Verdict,
    /// Source egress before destination ingress; only for ends that are pods and take part.
    pub points: Vec<Point>,
    /// Addresses that a point needs and that are not known. Its verdict is unknown then.
    pub missing: Vec<MissingAddress>,
}

/// An address that policies read and a pod does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingAddress {
    pub pod: ObjectKey,
    pub family: Family,
}

impl fmt::Display for MissingAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, family } = self;
        write!(f, "policies ask for the {} address of {pod}, which has none in its status.podIPs", family.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvaluateError {
    #[error("pod {0} is not in the snapshot")]
    UnknownPod(ObjectKey),
    #[error("address {address} is claimed by several pods ({}): name the pod instead", list(pods))]
    ContestedAddress { address: IpAddr, pods: Vec<ObjectKey> },
    #[error("source {source_address} and destination {destination_address} are of different address families")]
    FamilyMismatch { source_address: IpAddr, destination_address: IpAddr },
}

fn list(keys: &[ObjectKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Evaluates a flow at both ends.
pub fn evaluate(snapshot: &Snapshot, flow: &Flow) -> Result<Evaluation, EvaluateError> {
    let family = family(flow)?;
    let ends = [
        (PointName::SourceEgress, &flow.source, &flow.destination),
        (PointName::DestinationIngress, &flow.destination, &flow.source),
    ];
    let mut subjects = Vec::with_capacity(ends.len());
    for (name, end, peer) in ends {
        if let Some(pod) = pod_at(snapshot, end)? {
            subjects.push((name, pod, peer));
        }
    }
    let (mut points, mut missing) = (Vec::with_capacity(subjects.len()), Vec::new());
    for (name, pod, peer) in subjects.into_iter().filter(|(_, pod, _)| pod.takes_part()) {
        let facts = Facts::of(snapshot, peer, None, family);
        let question = Question::new(snapshot, pod, name.direction(), &facts, flow.protocol, flow.port);
        let (mut decision, mut near_misses) = (question.decide(), near_miss::of(&question));
        if let End::Pod(peer) = peer
            && question.depends_on_peer_address(&decision)
        {
            missing.push(MissingAddress { pod: peer.clone(), family });
            (decision, near_misses) = (unknown_endpoint(), Vec::new());
        }
        points.push(Point { name, subject: pod.key(), decision, near_misses });
    }
    // Also where no end is a pod with policies: the backend of a Service is not known at the source.
    let unresolved = Facts::of(snapshot, &flow.destination, None, family).service.then_some(Verdict::Unknown);
    let verdict = conjunction(points.iter().map(|point| point.decision.verdict).chain(unresolved));
    Ok(Evaluation { verdict, points, missing })
}

/// Evaluates one end only. `None` when the subject is no pod that takes part.
///
/// `peer_address` is the packet's own where it is known; `None` for the pod's address of the family.
#[expect(clippy::too_many_arguments, reason = "a flow seen from one end has this many parts")]
pub fn evaluate_point(
    snapshot: &Snapshot,
    subject: &ObjectKey,
    direction: Direction,
    peer: &End,
    peer_address: Option<IpAddr>,
    family: Family,
    protocol: Protocol,
    port: Option<u16>,
) -> Option<Decision> {
    let pod = snapshot.pods.get(subject).filter(|pod| pod.takes_part())?;
    let facts = Facts::of(snapshot, peer, peer_address, family);
    Some(Question::new(snapshot, pod, direction, &facts, protocol, port).decide())
}

/// How near the isolating policies came to allowing the flow, by policy. Empty unless they deny it for want of a
/// matching rule, as things are or once all audited policies are enforced; in the latter case these are listed too.
#[expect(clippy::too_many_arguments, reason = "a flow seen from one end has this many parts")]
pub fn near_misses(
    snapshot: &Snapshot,
    subject: &ObjectKey,
    direction: Direction,
    peer: &End,
    peer_address: Option<IpAddr>,
    family: Family,
    protocol: Protocol,
    port: Option<u16>,
) -> Vec<NearMiss> {
    let Some(pod) = snapshot.pods.get(subject).filter(|pod| pod.takes_part()) else { return Vec::new() };
    let facts = Facts::of(snapshot, peer, peer_address, family);
    near_miss::of(&Question::new(snapshot, pod, direction, &facts, protocol, port))
}

/// The family of a flow between two ends for which none was chosen: IPv6 where a pod has addresses of that family alone,
/// else IPv4.
pub fn usual_family(snapshot: &Snapshot, ends: [&End; 2]) -> Family {
    let only_v6 = |end: &End| match end {
        End::Pod(key) => snapshot.pods.get(key).is_some_and(|pod| {
            !pod.addresses.is_empty() && pod.addresses.iter().all(|address| Family::of(*address) == Family::V6)
        }),
        End::Address(address) => Family::of(*address) == Family::V6,
    };
    if ends.into_iter().any(only_v6) { Family::V6 } else { Family::V4 }
}

fn conjunction(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    verdicts.fold(Verdict::Allowed, |so_far, verdict| match (so_far, verdict) {
        (Verdict::Denied, _) | (_, Verdict::Denied) => Verdict::Denied,
        (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
        (Verdict::Allowed, Verdict::Allowed) => Verdict::Allowed,
    })
}

fn family(flow: &Flow) -> Result<Family, EvaluateError> {
    match (&flow.source, &flow.destination) {
        (&End::Address(source_address), &End::Address(destination_address)) => {
            if Family::of(source_address) != Family::of(destination_address) {
                return Err(EvaluateError::FamilyMismatch { source_address, destination_address });
            }
            Ok(Family::of(source_address))
        }
        (&End::Address(address), _) | (_, &End::Address(address)) => Ok(Family::of(address)),
        _ => Ok(flow.family),
    }
}

/// The pod that is at an end, whether or not it takes part.
fn pod_at<'a>(snapshot: &'a Snapshot, end: &End) -> Result<Option<&'a Pod>, EvaluateError> {
    match end {
        End::Pod(key) => match snapshot.pods.get(key) {
            Some(pod) => Ok(Some(pod)),
            None => Err(EvaluateError::UnknownPod(key.clone())),
        },
        &End::Address(address) => match peer::pods_at(snapshot, address).as_slice() {
            [] => Ok(None),
            [pod] => Ok(Some(pod)),
            several => {
                Err(EvaluateError::ContestedAddress { address, pods: several.iter().map(|p| p.key()).collect() })
            }
        },
    }
}
