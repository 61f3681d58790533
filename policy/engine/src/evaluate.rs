//! The direct evaluator: one flow against one snapshot, told the way the specification tells it.
//!
//! It is the reference for the compiler, and what answers whenever a person asks. It indexes nothing and remembers
//! nothing: each call reads the snapshot from the start.

mod near_miss;
pub(crate) mod peer;
pub(crate) mod ports;
pub(crate) mod selector;
#[cfg(test)]
mod tests;
pub(crate) mod tiers;

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::{
    peer::{Claim, Facts},
    tiers::Judgement,
};
use crate::{
    address,
    decision::{Decision, NearMiss, Reason, Verdict},
    model::{Direction, ObjectKey, Pod, Policy, Protocol, Rule, Snapshot},
};

/// Who is at one end of a flow. An address that a pod, a node or a Service of the snapshot owns stands for its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Pod(ObjectKey),
    Address(IpAddr),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => key.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    #[default]
    V4,
    V6,
}

impl Family {
    /// An IPv4 address mapped into IPv6 is IPv4.
    pub fn of(address: IpAddr) -> Self {
        match address::canonical(address) {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A flow in its original direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    pub source: End,
    pub destination: End,
    pub protocol: Protocol,
    /// Destination port. `None`: the protocol has no ports, or this is a fragment whose ports are not known.
    pub port: Option<u16>,
    /// Chooses among the addresses of pods. The family of an end that is an address goes before it.
    pub family: Family,
}

/// Where a flow is judged (points and verdicts in `docs/semantics.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointName {
    SourceEgress,
    DestinationIngress,
}

impl PointName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceEgress => "source-egress",
            Self::DestinationIngress => "destination-ingress",
        }
    }

    /// Seen from the subject.
    pub const fn direction(self) -> Direction {
        match self {
            Self::SourceEgress => Direction::Egress,
            Self::DestinationIngress => Direction::Ingress,
        }
    }
}

impl fmt::Display for PointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one end's policies conclude.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    pub name: PointName,
    pub subject: ObjectKey,
    pub decision: Decision,
    /// Per isolating policy; empty unless policies isolate and none of their rules matched.
    pub near_misses: Vec<NearMiss>,
}

/// What both ends conclude. A point that a packet would never reach is judged all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Denied if any point denies, else unknown if any point does not know or the destination is a Service's address,
    /// else allowed.
    pub verdict: Verdict,
    /// Source egress before destination ingress; only for ends that are pods and take part.
    pub points: Vec<Point>,
    /// Addresses that a point would have to know. Its verdict is unknown for want of one.
    pub missing: Vec<MissingAddress>,
}

/// An address that policies ask for and a pod does not have.
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

/// Judges a flow at both ends.
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
        let (mut decision, mut near_misses) = (question.decide(), question.near_misses());
        if let End::Pod(peer) = peer
            && question.hangs_on_an_address(&decision)
        {
            missing.push(MissingAddress { pod: peer.clone(), family });
            (decision, near_misses) = (unknown_endpoint(), Vec::new());
        }
        points.push(Point { name, subject: pod.key(), decision, near_misses });
    }
    // Also where no end is a pod that could be judged: a Service's backend is not known at the source.
    let unresolved = Facts::of(snapshot, &flow.destination, None, family).service.then_some(Verdict::Unknown);
    let verdict = conjunction(points.iter().map(|point| point.decision.verdict).chain(unresolved));
    Ok(Evaluation { verdict, points, missing })
}

/// Judges one end only. `None` when the subject is no pod that takes part.
///
/// `peer_address` is the packet's own where it is known; otherwise a pod's address of the family stands for it.
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
    Question::new(snapshot, pod, direction, &facts, protocol, port).near_misses()
}

/// One flow at one end, with the policies that concern it.
struct Question<'a> {
    snapshot: &'a Snapshot,
    subject: &'a Pod,
    direction: Direction,
    peer: &'a Facts<'a>,
    protocol: Protocol,
    port: Option<u16>,
    /// Those that select the subject and say something of the direction, in order of evaluation.
    policies: Vec<&'a Policy>,
    /// The same without the audited ones.
    in_force: Vec<&'a Policy>,
}

impl<'a> Question<'a> {
    fn new(
        snapshot: &'a Snapshot,
        subject: &'a Pod,
        direction: Direction,
        peer: &'a Facts<'a>,
        protocol: Protocol,
        port: Option<u16>,
    ) -> Self {
        let mut policies: Vec<&Policy> = snapshot
            .policies
            .values()
            .map(|policy| &**policy)
            .filter(|policy| tiers::concerns(policy, direction))
            .filter(|policy| selector::selects(snapshot, &policy.subject.namespaces, &policy.subject.pods, subject))
            .collect();
        policies.sort_by(|a, b| tiers::order(a, b));
        let in_force = policies.iter().copied().filter(|policy| !audited(snapshot, policy)).collect();
        // A port of a protocol without ports means nothing.
        let port = port.filter(|_| protocol.has_ports());
        Self { snapshot, subject, direction, peer, protocol, port, policies, in_force }
    }

    fn decide(&self) -> Decision {
        if self.peer.is(self.subject) {
            return self_traffic();
        }
        if self.direction == Direction::Egress && self.peer.service {
            return service_not_resolved();
        }
        let staged = (self.in_force.len() < self.policies.len()).then(|| self.judge(&self.policies));
        self.judge(&self.in_force).with_staged(staged.as_ref())
    }

    /// Whether the other end has no address, and one might make another decision of this.
    fn hangs_on_an_address(&self, decision: &Decision) -> bool {
        self.peer.address.is_none()
            && [tiers::Match::Possible, tiers::Match::Certain].into_iter().any(|unread| {
                let peer = self.peer.assuming(unread);
                let (policies, in_force) = (self.policies.clone(), self.in_force.clone());
                let other = Question { peer: &peer, policies, in_force, ..*self }.decide();
                (other.verdict, other.verdict_if_enforced) != (decision.verdict, decision.verdict_if_enforced)
            })
    }

    /// A flow whose port is not known is judged as the most restricted of all ports (E-15): blame goes to what denies the
    /// lowest denied port, or, where all are allowed, to what allows port 1.
    fn judge(&self, policies: &[&'a Policy]) -> Judgement<'a> {
        if self.port.is_none() && self.protocol.has_ports() {
            let ports = self.telling_ports(policies);
            return Judgement::safest(ports.into_iter().map(|port| self.judge_port(policies, Some(port))));
        }
        self.judge_port(policies, self.port)
    }

    /// An address that several claim is judged as each of them.
    fn judge_port(&self, policies: &[&'a Policy], port: Option<u16>) -> Judgement<'a> {
        Judgement::safest(self.peer.claims().map(|claim| self.judge_claim(policies, claim, port)))
    }

    fn judge_claim(&self, policies: &[&'a Policy], claim: Option<&Claim<'_>>, port: Option<u16>) -> Judgement<'a> {
        let own_node = claim.is_some_and(|claim| claim.is_node_of(self.subject));
        tiers::judge(policies, self.direction, own_node, |policy, rule| {
            self.rule_matches(&policies[policy].rules[rule], claim, port)
        })
    }

    fn rule_matches(&self, rule: &Rule, claim: Option<&Claim<'_>>, port: Option<u16>) -> tiers::Match {
        if rule.fault.is_some() {
            return tiers::fault_matches(rule.action);
        }
        let peer = match &rule.peers {
            None => tiers::Match::Certain,
            Some(peers) => peers
                .iter()
                .map(|term| peer::matches(self.snapshot, term, self.peer, claim))
                .max()
                .unwrap_or(tiers::Match::No),
        };
        let ports = match &rule.ports {
            None => tiers::Match::Certain,
            Some(matches) => matches
                .iter()
                .map(|term| ports::matches(term, self.named_on(claim), self.protocol, port))
                .max()
                .unwrap_or(tiers::Match::No),
        };
        peer.min(ports)
    }

    /// Where named ports resolve: on the destination of the flow (E-2).
    fn named_on<'b>(&'b self, claim: Option<&Claim<'b>>) -> ports::NamedOn<'b> {
        match (self.direction, claim) {
            (Direction::Ingress, _) => ports::NamedOn::Pod(&self.subject.container_ports),
            (Direction::Egress, Some(Claim::Pod(pod))) => ports::NamedOn::Pod(&pod.container_ports),
            (Direction::Egress, None) if self.peer.unknown_pod => ports::NamedOn::UnknownPod,
            (Direction::Egress, _) => ports::NamedOn::NoPod,
        }
    }

    /// The first port of each stretch of ports that no rule tells apart, in ascending order.
    fn telling_ports(&self, policies: &[&Policy]) -> Vec<u16> {
        let mut starts = ports::Starts::default();
        for term in policies.iter().flat_map(|p| &p.rules).filter_map(|rule| rule.ports.as_ref()).flatten() {
            for claim in self.peer.claims() {
                starts.add(term, self.named_on(claim), self.protocol);
            }
        }
        starts.into_ports()
    }

    fn near_misses(&self) -> Vec<NearMiss> {
        if self.peer.is(self.subject) || (self.direction == Direction::Egress && self.peer.service) {
            return Vec::new();
        }
        let missed = [&self.policies, &self.in_force]
            .into_iter()
            .find(|policies| self.judge(policies).reason == Reason::IsolatedNoMatch);
        missed.map(|policies| near_miss::of(self, policies, self.denied_claim(policies))).unwrap_or_default()
    }

    /// Of several owners of the peer's address, the first as which it is denied.
    fn denied_claim(&self, policies: &[&'a Policy]) -> Option<&Claim<'a>> {
        let denied = |claim: &Option<&Claim<'a>>| {
            let port = self.port.or_else(|| self.protocol.has_ports().then_some(1));
            self.judge_claim(policies, *claim, port).reason == Reason::IsolatedNoMatch
        };
        let mut claims = self.peer.claims();
        let first = self.peer.claims().next().flatten();
        claims.find(denied).map_or(first, |claim| claim)
    }
}

/// Whether a policy only stages its verdicts: by itself, by its namespace, or with the whole node.
pub(crate) fn audited(snapshot: &Snapshot, policy: &Policy) -> bool {
    snapshot.audit_all
        || policy.audit
        || snapshot.namespaces.get(&policy.key.namespace).is_some_and(|namespace| namespace.audit)
}

/// A pod's traffic to itself is nobody's to forbid (E-8, C-13).
pub(crate) fn self_traffic() -> Decision {
    Judgement::plain(Verdict::Allowed, Reason::SelfTraffic).with_staged(None)
}

/// The backend of a Service is not known at the source.
pub(crate) fn service_not_resolved() -> Decision {
    Judgement::plain(Verdict::Unknown, Reason::ServiceNotResolved).with_staged(None)
}

/// What its address would say is not known.
fn unknown_endpoint() -> Decision {
    Judgement::plain(Verdict::Unknown, Reason::UnknownEndpoint).with_staged(None)
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
