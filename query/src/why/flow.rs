//! The flow that a question is about, as the engine evaluates it.

use netverdict_policy::{End, Flow, evaluate::Family, model::Protocol};

use super::asked::Question;
use crate::{question::Asked, state::State};

/// A flow for an incomplete question.
pub(super) struct Assumed {
    pub flow: Flow,
    /// The assumption as text; empty where there is none.
    pub text: String,
}

/// The flow that a question is about. Where it names no port, the only port that the destination declares is assumed, else
/// all ports: then *allowed* means that all are.
pub(super) fn assumed(state: &State, question: &Question) -> Assumed {
    let (source, destination) = (engine_end(&question.source), engine_end(&question.destination));
    let protocol = question.protocol.unwrap_or(Protocol::TCP);
    if question.port.is_some() || !protocol.has_ports() {
        return Assumed { flow: flow(state, source, destination, protocol, question.port), text: String::new() };
    }
    let declared = match &destination {
        End::Pod(key) => state.snapshot.pods.get(key).map(|pod| pod.container_ports.as_slice()).unwrap_or_default(),
        End::Address(_) => &[],
    };
    let mut fitting = declared.iter().filter(|port| question.protocol.is_none_or(|protocol| port.protocol == protocol));
    if let (Some(port), None) = (fitting.next(), fitting.next()) {
        let text = format!("for port {}/{}, the only one that it declares", port.port, port.protocol);
        return Assumed { flow: flow(state, source, destination, port.protocol, Some(port.port)), text };
    }
    Assumed { flow: flow(state, source, destination, protocol, None), text: format!("for {protocol} on whatever port") }
}

/// An end as the engine names it.
fn engine_end(end: &Asked) -> End {
    match end {
        Asked::Pod(key) => End::Pod(key.clone()),
        Asked::Address(address) => End::Address(*address),
    }
}

/// A flow between two ends, of the family that both have: IPv4 if they have both.
fn flow(state: &State, source: End, destination: End, protocol: Protocol, port: Option<u16>) -> Flow {
    let families = |end: &End| -> Vec<Family> {
        match end {
            End::Address(address) => vec![Family::of(*address)],
            End::Pod(key) => state
                .snapshot
                .pods
                .get(key)
                .map(|pod| pod.addresses.iter().map(|address| Family::of(*address)).collect())
                .unwrap_or_default(),
        }
    };
    let (ours, theirs) = (families(&source), families(&destination));
    let family = match ours.contains(&Family::V6) && theirs.contains(&Family::V6) {
        true if !(ours.contains(&Family::V4) && theirs.contains(&Family::V4)) => Family::V6,
        _ => Family::V4,
    };
    Flow { source, destination, protocol, port, family }
}
