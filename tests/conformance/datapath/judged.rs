//! A packet's event, compared with the expected point.

use netverdict_abi::{self as abi, Disposition, KernelReason, VerdictEvent};
use netverdict_policy::{
    AttributionId, Decision, Direction, Reason, Verdict,
    tables::{Owner, OwnerId},
};
use netverdict_tests::conformance::ExpectedPoint;

use crate::node::{Node, Run};

/// The verdict of the one event that a packet left.
pub(crate) fn recorded_verdict(run: &Run) -> Result<Verdict, String> {
    let [event] = &run.events[..] else {
        return Err(format!("expected one record, found {:?}", run.events));
    };
    match abi::Verdict::try_from(event.verdict) {
        Ok(abi::Verdict::Allowed) => Ok(Verdict::Allowed),
        Ok(abi::Verdict::Denied) => Ok(Verdict::Denied),
        Ok(abi::Verdict::Unknown) => Ok(Verdict::Unknown),
        Err(byte) => Err(format!("{byte} is no verdict")),
    }
}

/// Differences of disposition, subject and attributed decision from the expected ones; empty where there are none.
pub(crate) fn differences(point: &ExpectedPoint, node: &Node, run: &Run) -> Vec<String> {
    let verdict = match recorded_verdict(run) {
        Ok(verdict) => verdict,
        Err(why) => return vec![format!("{}: {why}", point.name)],
    };
    let event = &run.events[0];
    let mut differences = Vec::new();
    let mut compare = |what: &str, expected: String, found: String| {
        if expected != found {
            differences.push(format!("{} {what}: expected {expected}, found {found}", point.name));
        }
    };
    let denied = verdict == Verdict::Denied;
    let disposition = if denied { Disposition::Dropped } else { Disposition::Forwarded };
    compare("dropped", denied.to_string(), run.dropped.to_string());
    compare(
        "disposition",
        format!("{:?}", Ok::<_, u8>(disposition)),
        format!("{:?}", Disposition::try_from(event.disposition)),
    );
    let direction = match point.name.direction() {
        Direction::Egress => abi::Direction::Egress,
        Direction::Ingress => abi::Direction::Ingress,
    };
    compare(
        "direction",
        format!("{:?}", Ok::<_, u8>(direction)),
        format!("{:?}", abi::Direction::try_from(event.direction)),
    );
    let endpoint = match node.compiler.owner(OwnerId(event.endpoint_owner)) {
        Some(Owner::Pod { key, .. }) => key.to_string(),
        other => format!("{other:?}"),
    };
    compare("subject", point.subject.to_string(), endpoint);
    match decision(node, event, verdict) {
        Ok(Some(decision)) => differences.extend(point.differences(&decision, None)),
        // No policy was asked, so there is none to name.
        Ok(None) if point.reason == Reason::ServiceNotResolved && verdict == point.verdict => {}
        Ok(None) => differences.push(format!("{}: expected {}, found service_not_resolved", point.name, point.reason)),
        Err(why) => differences.push(format!("{}: {why}", point.name)),
    }
    differences
}

/// The decision that a record would have; `None` for a Service's address.
fn decision(node: &Node, event: &VerdictEvent, verdict: Verdict) -> Result<Option<Decision>, String> {
    let named = || {
        let id = AttributionId(event.attribution);
        node.compiler.decision(id).map(|decision| Decision::clone(decision)).ok_or(format!("{verdict} by nobody known"))
    };
    match KernelReason::try_from(event.reason) {
        Ok(KernelReason::ByPolicy) => {
            let decision = named()?;
            if decision.verdict != verdict {
                return Err(format!("{verdict} in the maps, {} by its id", decision.verdict));
            }
            Ok(Some(decision))
        }
        // The attribution names the policies that would deny it now.
        Ok(KernelReason::EstablishedStale) => {
            Ok(Some(Decision { verdict, reason: Reason::EstablishedStale, ..named()? }))
        }
        Ok(KernelReason::ServiceNotResolved) => Ok(None),
        other => Err(format!("{verdict} for the kernel's own reason {other:?}")),
    }
}
