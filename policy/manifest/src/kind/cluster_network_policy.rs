//! `policy.networking.k8s.io` ClusterNetworkPolicy to the model: ordered rules of the admin or the baseline tier.
//!
//! v1beta1 has the fields of v1alpha2 with the same meaning.

use netverdict_policy::model::{Policy, PortMatch, Protocol, Tier};

use super::{
    ordered::{self, Dialect, Precedence, SUBJECT, peers_of, priority, take},
    policy_kind::{Layout, PolicyKind, Scope},
    port,
};
use crate::{
    fields::{Field, Fields, Read, quoted},
    finding::{Invalid, Report, code},
    object::Object,
};

#[derive(Debug)]
pub(super) struct ClusterNetworkPolicy;

const DIALECT: Dialect = Dialect {
    accept: "Accept",
    can_pass: true,
    names_domains: true,
    required_selectors: &["podSelector"],
    ports: "protocols",
    read_port: read_protocol,
    most_items: 25,
};

impl PolicyKind for ClusterNetworkPolicy {
    fn kind(&self) -> &'static str {
        "ClusterNetworkPolicy"
    }

    fn api_versions(&self) -> &'static [&'static str] {
        &["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"]
    }

    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn layout(&self) -> &'static Layout {
        &Layout { subject: SUBJECT, ports: DIALECT.ports, peers_of }
    }

    fn read(&self, object: &Object, report: &mut Report) -> Option<Policy> {
        ordered::read(object, &DIALECT, report, |spec, report| {
            let tier = take(read_tier(spec), report);
            let priority = take(priority(spec), report);
            Some(Precedence { tier: tier?, priority: priority? })
        })
    }
}

fn read_tier(spec: &mut Fields<'_>) -> Read<Tier> {
    match spec.required_text("tier")? {
        "Admin" => Ok(Tier::Admin),
        "Baseline" => Ok(Tier::Baseline),
        other => {
            let message = format!("expected a tier, found {}", quoted(other));
            Err(Box::new(Invalid::new(code::INVALID_TIER, spec.path("tier"), message, "write Admin or Baseline")))
        }
    }
}

/// Exactly one of `tcp`, `udp`, `sctp` and `destinationNamedPort`.
fn read_protocol(field: Field<'_>) -> Read<PortMatch> {
    let mut fields = Fields::of(field)?;
    let mut ports = Vec::new();
    for (name, protocol) in [("tcp", Protocol::TCP), ("udp", Protocol::UDP), ("sctp", Protocol::SCTP)] {
        if let Some(fields) = fields.object(name)? {
            ports.push(read_destination(fields, protocol)?);
        }
    }
    let name_path = fields.path("destinationNamedPort");
    if let Some(name) = fields.text("destinationNamedPort")? {
        ports.push(PortMatch::Named { protocol: None, name: port::any_name(name, name_path)? });
    }
    let path = fields.own_path().to_owned();
    fields.finish()?;
    match (ports.pop(), ports.is_empty()) {
        (Some(port), true) => Ok(port),
        (Some(_) | None, _) => port::misplaced(
            path,
            "expected exactly one protocol or named port",
            "write one of tcp, udp, sctp and destinationNamedPort",
        ),
    }
}

/// All ports of the protocol where it names none.
fn read_destination(mut fields: Fields<'_>, protocol: Protocol) -> Read<PortMatch> {
    let port = fields.object("destinationPort")?;
    fields.finish()?;
    let Some(mut port) = port else { return Ok(PortMatch::Protocol(protocol)) };
    let number = port.field("number").map(port::number).transpose()?;
    let range = port.object("range")?;
    let path = port.own_path().to_owned();
    port.finish()?;
    match (number, range) {
        (Some(number), None) => port::range(protocol, number, number, path),
        (None, Some(mut range)) => {
            let (first, last) =
                (port::required_number(&mut range, "start")?, port::required_number(&mut range, "end")?);
            let path = range.path("end");
            range.finish()?;
            if first == last {
                return port::misplaced(path, "the range begins and ends with the same port", "write number instead");
            }
            port::range(protocol, first, last, path)
        }
        (None, None) | (Some(_), Some(_)) => {
            port::misplaced(path, "expected either a number or a range", "write one of number and range")
        }
    }
}
