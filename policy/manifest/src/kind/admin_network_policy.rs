//! `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy to the model: ordered rules of the admin tier, and the port
//! syntax of that version.

use netverdict_policy::model::{Policy, PortMatch, Tier};

use super::{
    ordered::{self, Dialect, Precedence, SUBJECT, peers_of, priority, take},
    policy_kind::{Layout, PolicyKind, Scope},
    port,
};
use crate::{
    fields::{Field, Fields, Read},
    finding::Report,
    object::Object,
};

#[derive(Debug)]
pub(super) struct AdminNetworkPolicy;

const DIALECT: Dialect = Dialect {
    accept: "Allow",
    can_pass: true,
    names_domains: true,
    required_selectors: SELECTORS,
    ports: "ports",
    read_port,
    most_items: 100,
};

/// Selectors that `pods` requires in this version.
pub(super) const SELECTORS: &[&str] = &["namespaceSelector", "podSelector"];

impl PolicyKind for AdminNetworkPolicy {
    fn kind(&self) -> &'static str {
        "AdminNetworkPolicy"
    }

    fn api_versions(&self) -> &'static [&'static str] {
        &["policy.networking.k8s.io/v1alpha1"]
    }

    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn layout(&self) -> &'static Layout {
        &Layout { subject: SUBJECT, ports: DIALECT.ports, peers_of }
    }

    fn read(&self, object: &Object, report: &mut Report) -> Option<Policy> {
        ordered::read(object, &DIALECT, report, |spec, report| {
            Some(Precedence { tier: Tier::Admin, priority: take(priority(spec), report)? })
        })
    }
}

/// Exactly one of `portNumber`, `portRange` and `namedPort`.
pub(super) fn read_port(field: Field<'_>) -> Read<PortMatch> {
    let mut fields = Fields::of(field)?;
    let mut ports = Vec::new();
    if let Some(mut single) = fields.object("portNumber")? {
        let protocol = port::protocol(&mut single, "protocol")?;
        let number = port::required_number(&mut single, "port")?;
        let path = single.own_path().to_owned();
        single.finish()?;
        ports.push(port::range(protocol, number, number, path)?);
    }
    if let Some(mut range) = fields.object("portRange")? {
        let protocol = port::protocol(&mut range, "protocol")?;
        let (first, last) = (port::required_number(&mut range, "start")?, port::required_number(&mut range, "end")?);
        let path = range.path("end");
        range.finish()?;
        ports.push(port::range(protocol, first, last, path)?);
    }
    let name_path = fields.path("namedPort");
    if let Some(name) = fields.text("namedPort")? {
        ports.push(PortMatch::Named { protocol: None, name: port::any_name(name, name_path)? });
    }
    let path = fields.own_path().to_owned();
    fields.finish()?;
    match (ports.pop(), ports.is_empty()) {
        (Some(port), true) => Ok(port),
        (Some(_) | None, _) => port::misplaced(
            path,
            "expected exactly one way to name a port",
            "write one of portNumber, portRange and namedPort",
        ),
    }
}
