//! One flow at one end: the matching rules, and the decision of the policies.

use super::{
    decisions::{audited, self_traffic, service_not_resolved},
    peer::{self, Claim, Facts},
    ports, selector,
    tiers::{self, Conclusion, Match},
};
use crate::{
    decision::{Decision, Verdict},
    model::{Direction, Pod, Policy, Protocol, Rule, Snapshot},
};

/// One flow at one end, with the policies that concern it.
pub(super) struct Question<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) subject: &'a Pod,
    pub(super) direction: Direction,
    pub(super) peer: &'a Facts<'a>,
    pub(super) protocol: Protocol,
    pub(super) port: Option<u16>,
    /// The policies that select the subject and apply to the direction, in order of evaluation.
    pub(super) policies: Vec<&'a Policy>,
    /// The policies of these that are not audited.
    pub(super) in_force: Vec<&'a Policy>,
}

impl<'a> Question<'a> {
    pub(super) fn new(
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

    pub(super) fn decide(&self) -> Decision {
        if self.peer.is(self.subject) {
            return self_traffic();
        }
        if self.direction == Direction::Egress && self.peer.service {
            return service_not_resolved();
        }
        let decision = self.decide_as_it_is();
        if decision.verdict != Verdict::Denied && self.is_tunnel_to_own_node() {
            // The node unpacks it, but the packet inside may be from any sender.
            let peer = self.peer.unowned(self.snapshot);
            let (policies, in_force) = (self.policies.clone(), self.in_force.clone());
            let stricter = Question { peer: &peer, policies, in_force, ..*self }.decide_as_it_is();
            if stricter.verdict == Verdict::Denied {
                return stricter;
            }
        }
        decision
    }

    fn decide_as_it_is(&self) -> Decision {
        let staged = (self.in_force.len() < self.policies.len()).then(|| self.evaluate(&self.policies));
        self.evaluate(&self.in_force).with_staged(staged.as_ref())
    }

    /// Whether the subject sends a packet that its own node would unpack (E-6).
    fn is_tunnel_to_own_node(&self) -> bool {
        self.direction == Direction::Egress
            && ports::is_tunnel(self.protocol, self.port)
            && self.peer.claims().flatten().any(|claim| claim.is_node_of(self.subject))
    }

    /// Whether the decision depends on the peer's address, and that is not known: with some address it would be another.
    pub(super) fn depends_on_peer_address(&self, decision: &Decision) -> bool {
        self.peer.address.is_none()
            && [Match::Possible, Match::Certain].into_iter().any(|address_matches| {
                let peer = self.peer.assuming(address_matches);
                let (policies, in_force) = (self.policies.clone(), self.in_force.clone());
                let other = Question { peer: &peer, policies, in_force, ..*self }.decide();
                (other.verdict, other.verdict_if_enforced) != (decision.verdict, decision.verdict_if_enforced)
            })
    }

    /// A flow whose port is not known counts as the most restricted of all ports (E-15): the decision is that of the lowest
    /// denied port, or, where all are allowed, of port 1.
    pub(super) fn evaluate(&self, policies: &[&'a Policy]) -> Conclusion<'a> {
        if self.port.is_none() && self.protocol.has_ports() {
            let ports = self.boundary_ports(policies);
            return Conclusion::safest(ports.into_iter().map(|port| self.evaluate_port(policies, Some(port))));
        }
        self.evaluate_port(policies, self.port)
    }

    /// An address with several owners counts as the most restricted of them.
    fn evaluate_port(&self, policies: &[&'a Policy], port: Option<u16>) -> Conclusion<'a> {
        Conclusion::safest(self.peer.claims().map(|claim| self.evaluate_claim(policies, claim, port)))
    }

    pub(super) fn evaluate_claim(
        &self,
        policies: &[&'a Policy],
        claim: Option<&Claim<'_>>,
        port: Option<u16>,
    ) -> Conclusion<'a> {
        let own_node = claim.is_some_and(|claim| claim.is_node_of(self.subject));
        tiers::evaluate(policies, self.direction, own_node, |policy, rule| {
            self.rule_matches(&policies[policy].rules[rule], claim, port)
        })
    }

    fn rule_matches(&self, rule: &Rule, claim: Option<&Claim<'_>>, port: Option<u16>) -> Match {
        if rule.fault.is_some() {
            return tiers::fault_matches(rule.action);
        }
        let peer = match &rule.peers {
            None => Match::Certain,
            Some(peers) => {
                peers.iter().map(|term| peer::matches(self.snapshot, term, self.peer, claim)).max().unwrap_or(Match::No)
            }
        };
        let ports = match &rule.ports {
            None => Match::Certain,
            Some(matches) => matches
                .iter()
                .map(|term| ports::matches(term, self.named_on(claim), self.protocol, port))
                .max()
                .unwrap_or(Match::No),
        };
        peer.min(ports)
    }

    /// Where named ports resolve: on the destination of the flow (E-2).
    pub(super) fn named_on<'b>(&'b self, claim: Option<&Claim<'b>>) -> ports::NamedOn<'b> {
        match (self.direction, claim) {
            (Direction::Ingress, _) => ports::NamedOn::Pod(&self.subject.container_ports),
            (Direction::Egress, Some(Claim::Pod(pod))) => ports::NamedOn::Pod(&pod.container_ports),
            (Direction::Egress, None) if self.peer.unknown_pod => ports::NamedOn::UnknownPod,
            (Direction::Egress, _) => ports::NamedOn::NoPod,
        }
    }

    /// The first port of each range of ports that no rule tells apart, in ascending order.
    fn boundary_ports(&self, policies: &[&Policy]) -> Vec<u16> {
        let mut starts = ports::PortBoundaries::default();
        for term in policies.iter().flat_map(|p| &p.rules).filter_map(|rule| rule.ports.as_ref()).flatten() {
            for claim in self.peer.claims() {
                starts.add(term, self.named_on(claim), self.protocol);
            }
        }
        starts.into_ports()
    }
}
