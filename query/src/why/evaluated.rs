//! A flow evaluated by a stored policy state, at both ends; and compared with the recorded verdicts.

use netverdict_flowlog::{
    answer::{Decider, WhyEnd, WhyPoint},
    row::{Method, ModeName},
};
use netverdict_policy::{
    End, Evaluation, Flow, Verdict,
    evaluate::{EvaluateError, Point, PointName, evaluate},
};

use super::{
    decider::decider,
    verdict::{PathVerdict, SOURCE_EGRESS},
};
use crate::{QueryError, state::State};

/// The evaluation of a flow.
pub(super) struct Evaluated<'a> {
    state: &'a State,
    evaluation: Evaluation,
}

impl<'a> Evaluated<'a> {
    /// # Errors
    /// When an end is not in the state, or several pods claim its address.
    pub(super) fn of(state: &'a State, flow: &Flow) -> Result<Self, QueryError> {
        let evaluation = evaluate(&state.snapshot, flow).map_err(|error| match error {
            EvaluateError::UnknownPod(_) => QueryError::UnknownPod {
                message: error.to_string(),
                remedy: "ask about a time when it was there, with at=".into(),
            },
            EvaluateError::ContestedAddress { .. } | EvaluateError::FamilyMismatch { .. } => {
                QueryError::BadRequest { message: error.to_string(), remedy: String::new() }
            }
        })?;
        Ok(Self { state, evaluation })
    }

    pub(super) fn points(&self) -> Vec<WhyPoint> {
        let stopped = false;
        let mut points: Vec<WhyPoint> =
            self.evaluation.points.iter().map(|point| self.as_answer(point, stopped)).collect();
        // A packet that is denied at the source does not reach the destination.
        let denied = points.first().is_some_and(|point| {
            point.point == SOURCE_EGRESS && point.verdict == Verdict::Denied && !self.audit_only()
        });
        points.iter_mut().skip(1).for_each(|point| point.hypothetical = denied);
        points
    }

    /// The verdict at one end; `None` where that is no pod that policies can select.
    pub(super) fn point(&self, name: PointName, hypothetical: bool) -> Option<WhyPoint> {
        let point = self.evaluation.points.iter().find(|point| point.name == name)?;
        Some(self.as_answer(point, hypothetical))
    }

    /// Writes this state's verdict into a recorded point.
    pub(super) fn compare(&self, point: &mut WhyPoint) {
        let Some(now) = self.evaluation.points.iter().find(|now| now.name.as_str() == point.point) else { return };
        let deciders: Vec<Decider> = now.decision.decided_by().map(decider).collect();
        point.now = Some(now.decision.verdict);
        let same = |a: &Decider, b: &Decider| a.uid == b.uid && a.rule_index == b.rule_index && a.role == b.role;
        let unchanged = now.decision.verdict == point.verdict
            && deciders.len() == point.decided_by.len()
            && deciders.iter().zip(&point.decided_by).all(|(a, b)| same(a, b));
        if !unchanged {
            point.now_decided_by = deciders;
        }
    }

    /// The verdict on the whole connection.
    pub(super) fn path(&self) -> PathVerdict {
        PathVerdict::of(self.points())
    }

    fn audit_only(&self) -> bool {
        self.state.snapshot.audit_all
    }

    fn as_answer(&self, point: &Point, hypothetical: bool) -> WhyPoint {
        let Point { name, subject: _, decision, near_misses } = point;
        WhyPoint {
            point: name.as_str().into(),
            verdict: decision.verdict,
            verdict_if_enforced: decision.verdict_if_enforced,
            disposition: String::new(),
            reason: decision.reason,
            drop_reason: String::new(),
            method: Method::Evaluated.as_str().into(),
            confidence: decision.confidence.as_str().into(),
            mode: if self.audit_only() { ModeName::Audit.as_str().into() } else { String::new() },
            decided_by: decision.decided_by().map(decider).collect(),
            passed: decision.passed().map(decider).collect(),
            staged: decision.staged().map(decider).collect(),
            near_misses: near_misses.clone(),
            snapshot: self.state.number,
            attribution_id: 0,
            last_seen: None,
            first_seen: None,
            count: 0,
            now: None,
            now_decided_by: Vec::new(),
            node: self.state.node.clone(),
            hypothetical,
            identity_window_open: false,
            mistaken_for: None,
        }
    }
}

/// An end as a state knows it.
pub(super) fn end(state: &State, end: &End) -> WhyEnd {
    match end {
        End::Pod(key) => {
            let pod = state.snapshot.pods.get(key);
            WhyEnd {
                name: key.to_string(),
                kind: "pod".into(),
                addresses: pod.map(|pod| pod.addresses.iter().map(ToString::to_string).collect()).unwrap_or_default(),
                labels: pod.map(|pod| pod.labels.clone()).unwrap_or_default(),
                deleted: None,
                candidates: Vec::new(),
            }
        }
        End::Address(address) => {
            let snapshot = &state.snapshot;
            let pod = snapshot.pods.values().find(|pod| pod.addresses.contains(address) && pod.takes_part());
            let node = snapshot.nodes.values().find(|node| node.addresses.contains(address));
            let service = snapshot.services.values().find(|service| service.addresses.contains(address));
            let (name, kind) = match (pod, node, service) {
                (Some(pod), _, _) => (pod.key().to_string(), "pod"),
                (_, Some(node), _) => (format!("node/{}", node.name), "node"),
                (_, _, Some(service)) => (format!("service/{}/{}", service.namespace, service.name), "service"),
                _ if snapshot.pod_ranges.iter().any(|range| range.contains(address)) => {
                    (address.to_string(), "unknown_pod")
                }
                _ => (address.to_string(), "external"),
            };
            WhyEnd {
                name,
                kind: kind.into(),
                addresses: vec![address.to_string()],
                labels: pod.map(|pod| pod.labels.clone()).unwrap_or_default(),
                deleted: None,
                candidates: node
                    .filter(|_| kind == "node")
                    .map(|node| on_network_of(state, &node.name))
                    .unwrap_or_default(),
            }
        }
    }
}

/// The pods on a node's network: its traffic may be any of theirs.
pub(super) fn on_network_of(state: &State, node: &str) -> Vec<String> {
    let pods = state.snapshot.pods.values().filter(|pod| pod.host_network && !pod.finished() && pod.node == node);
    pods.map(|pod| pod.key().to_string()).collect()
}
