//! `networking.k8s.io/v1` NetworkPolicy: a union of what rules accept, for the pods that a policy isolates.
//!
//! Normalisation N-1 to N-13. A subject or `policyTypes` that cannot be read makes the object unusable, as it is to
//! an API server; anything wrong in a rule only makes that rule match nothing.

use netverdict_policy::model::{
    Action, Direction, Isolates, NamespaceScope, Peer, Policy, PortMatch, Rule, Selector, Subject, Tier,
};
use serde_json::{Map, Value};

use super::{
    Parts, PolicyKind, Scope, assemble, port,
    rule::{self, Faults},
};
use crate::{
    address,
    fields::{Fields, Read, describe, quoted, text, wrong_type},
    finding::{Invalid, Report, code},
    nulls,
    object::Object,
    selector::{selected, selector, selector_or_all},
};

#[derive(Debug)]
pub(super) struct NetworkPolicy;

impl PolicyKind for NetworkPolicy {
    fn kind(&self) -> &'static str {
        "NetworkPolicy"
    }

    fn api_versions(&self) -> &'static [&'static str] {
        &["networking.k8s.io/v1"]
    }

    fn scope(&self) -> Scope {
        Scope::Namespace
    }

    fn read(&self, object: &Object, report: &mut Report) -> Option<Policy> {
        let empty = Value::Object(Map::new());
        let spec = match object.value.get("spec") {
            Some(spec) if !spec.is_null() => spec,
            _ => {
                let message = "spec is missing: the policy isolates every pod of its namespace for ingress";
                report.warning(Invalid::new(code::MISSING_FIELD, "spec", message, "write podSelector and policyTypes"));
                &empty
            }
        };
        let spec = nulls::filled(spec, "spec", report);
        let mut spec = match Fields::of(&spec, "spec".into()) {
            Ok(spec) => spec,
            Err(invalid) => {
                report.error(not_enforced(*invalid));
                return None;
            }
        };
        let subject = selector_or_all(&mut spec, "podSelector");
        let isolates = isolates(&mut spec, report);
        let mut rules = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            rules.extend(rule::each(&mut spec, direction, Action::Accept, report, |index, value, path, report| {
                read_rule(direction, index, value, path, &object.namespace, report)
            }));
        }
        if let Err(invalid) = spec.finish() {
            // Nobody can say what the field would have narrowed, so what it may belong to accepts nothing.
            let fault = format!("{}: {}", invalid.field, invalid.message);
            rules.iter_mut().for_each(|rule| rule::fail(rule, fault.clone()));
            let message = format!("{}; the rules match nothing", invalid.message);
            report.error(Invalid { message, ..*invalid });
        }
        let pods = match subject {
            Ok(pods) => Some(pods),
            Err(invalid) => {
                report.error(not_enforced(*invalid));
                None
            }
        };
        let (pods, isolates) = (pods?, isolates?);
        ignore_rules(&mut rules, isolates, report);
        let subject = Subject { namespaces: NamespaceScope::Named(object.namespace.clone()), pods };
        let parts = Parts { tier: Tier::NetworkPolicy, priority: 0, subject, isolates, rules };
        Some(assemble(object, parts, report))
    }
}

fn not_enforced(invalid: Invalid) -> Invalid {
    let message = format!("{}; the object is not enforced", invalid.message);
    Invalid { message, ..invalid }
}

/// N-1. `None` where it cannot be read.
fn isolates(spec: &mut Fields<'_>, report: &mut Report) -> Option<Isolates> {
    let path = spec.path("policyTypes");
    let types = match spec.value("policyTypes") {
        None => &[],
        Some(Value::Array(types)) => types.as_slice(),
        Some(other) => {
            let message = format!("expected a list, found {}; the object is not enforced", describe(other));
            let remedy = match other.as_str() {
                Some(text) => format!("write [{text}]"),
                None => "write a list of Ingress and Egress".to_owned(),
            };
            report.error(Invalid::new(code::INVALID_POLICY_TYPES, path, message, remedy));
            return None;
        }
    };
    let mut isolates = Isolates::default();
    for (index, entry) in types.iter().enumerate() {
        match entry.as_str() {
            Some("Ingress") => isolates.ingress = true,
            Some("Egress") => isolates.egress = true,
            _ => {
                let message = format!("{} is no policy type; the object is not enforced", describe(entry));
                let path = format!("{path}[{index}]");
                report.error(Invalid::new(code::INVALID_POLICY_TYPES, path, message, "write Ingress or Egress"));
                return None;
            }
        }
    }
    if types.len() > 2 {
        let message = format!("{} policy types, and there are two; the object is not enforced", types.len());
        report.error(Invalid::new(code::INVALID_POLICY_TYPES, path, message, "name each type once"));
        return None;
    }
    if types.is_empty() {
        let has_rules = |value: Option<&Value>| value.is_some_and(|value| value != &Value::Array(Vec::new()));
        isolates = Isolates { ingress: true, egress: has_rules(spec.value("egress")) };
        if isolates.egress && !has_rules(spec.value("ingress")) {
            let message =
                "egress rules alone, without policyTypes, isolate the pods for ingress too: nothing may reach them";
            let remedy = "write policyTypes: [Egress], or [Ingress, Egress] where that is meant";
            report.warning(Invalid::new(code::ISOLATES_INGRESS_TOO, path, message, remedy));
        }
    }
    Some(isolates)
}

/// N-2: rules of a direction that the policy does not isolate count for nothing.
fn ignore_rules(rules: &mut Vec<Rule>, isolates: Isolates, report: &mut Report) {
    for direction in [Direction::Ingress, Direction::Egress] {
        if !isolates.in_direction(direction) && rules.iter().any(|rule| rule.direction == direction) {
            let name = direction.as_str();
            let message = format!("the {name} rules count for nothing, since policyTypes leaves {name} out");
            let remedy = "add the type to policyTypes, or remove the rules";
            report.warning(Invalid::new(code::IGNORED_RULES, format!("spec.{name}"), message, remedy));
        }
    }
    rules.retain(|rule| isolates.in_direction(rule.direction));
}

fn read_rule(
    direction: Direction,
    index: u32,
    value: &Value,
    path: String,
    namespace: &str,
    report: &mut Report,
) -> Rule {
    let mut faults = Faults::default();
    let mut rule = rule::empty(direction, index, Action::Accept);
    let Some(mut fields) = faults.take(Fields::of(value, path)) else { return faults.finish(rule, report) };
    let peers = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    if let Some(Some(list)) = faults.take(fields.list(peers)).filter(|list| !is_unrestricted(list)) {
        let mut peers = Vec::new();
        for (path, value) in list.iter() {
            peers.extend(faults.take(read_peer(value, path, namespace, report)).flatten());
        }
        rule.peers = Some(peers);
    }
    if let Some(Some(list)) = faults.take(fields.list("ports")).filter(|list| !is_unrestricted(list)) {
        let ports = list.iter().filter_map(|(path, value)| faults.take(read_port(value, path)));
        rule.ports = Some(ports.collect());
    }
    faults.take(fields.finish());
    faults.finish(rule, report)
}

/// N-5: missing and empty restrict nothing.
fn is_unrestricted(list: &Option<crate::fields::List<'_>>) -> bool {
    list.as_ref().is_none_or(|list| list.items.is_empty())
}

/// `None` for a peer that names nothing, or too much: it matches nothing and leaves the others be (N-9).
fn read_peer(value: &Value, path: String, namespace: &str, report: &mut Report) -> Read<Option<Peer>> {
    let mut fields = Fields::of(value, path)?;
    let mut read = |name: &'static str| {
        let path = fields.path(name);
        fields.value(name).map(|value| selector(value, path)).transpose()
    };
    let (pods, namespaces) = (read("podSelector")?, read("namespaceSelector")?);
    let block = fields.object("ipBlock")?;
    let path = fields.own_path().to_owned();
    fields.finish()?;
    let has_block = block.is_some();
    // Read even where it does not count, so that all that is wrong is said at once.
    let block = block.map(|block| read_block(block, report)).transpose()?;
    let mut refuse = |message: &str, remedy: &str| {
        report.error(Invalid::new(code::INVALID_PEER, path.clone(), message, remedy));
        Ok(None)
    };
    match (pods, namespaces, block) {
        (None, None, None) => {
            refuse("the peer names nothing, so it matches nothing", "write podSelector, namespaceSelector or ipBlock")
        }
        (pods, namespaces, _) if has_block && (pods.is_some() || namespaces.is_some()) => refuse(
            "ipBlock beside selectors is refused by an API server; the peer matches nothing",
            "write two peers: one with the block, one with the selectors",
        ),
        (None, None, Some(block)) => Ok(Some(block)),
        (pods, None, _) => {
            let namespaces = NamespaceScope::Named(namespace.to_owned());
            Ok(Some(Peer::Pods { namespaces, pods: pods.unwrap_or_default() }))
        }
        (pods, Some(namespaces), _) => {
            Ok(Some(Peer::Pods { namespaces: selected(namespaces), pods: pods.unwrap_or_else(Selector::default) }))
        }
    }
}

fn read_block(mut fields: Fields<'_>, report: &mut Report) -> Read<Peer> {
    let cidr_path = fields.path("cidr");
    let block = address::block(fields.required_text("cidr")?, &cidr_path)?;
    if block.legacy {
        report.warning(super::ordered::legacy(cidr_path, block.cidr));
    }
    let mut except = Vec::new();
    if let Some(list) = fields.list("except")? {
        for (path, value) in list.iter() {
            let written = text(value, path.clone())?;
            let part = address::block(written, &path)?;
            if part.legacy {
                report.warning(super::ordered::legacy(path.clone(), part.cidr));
            }
            if !block.cidr.contains(&part.cidr) || block.cidr == part.cidr {
                let (message, remedy) = match part.cidr.contains(&block.cidr) {
                    true => (
                        format!("{} takes all of {} out: the peer matches nothing", quoted(written), block.cidr),
                        "remove the peer, or let except take out a part of its block",
                    ),
                    false => (
                        format!("{} is no part of {}", quoted(written), block.cidr),
                        "an except takes addresses out of its own block and nothing else; \
                         to deny others, let no rule name them",
                    ),
                };
                report.warning(Invalid::new(code::EXCEPT_OUTSIDE_BLOCK, path, message, remedy));
            }
            except.push(part.cidr);
        }
    }
    fields.finish()?;
    Ok(Peer::Block { cidr: block.cidr, except })
}

/// N-6, N-7.
fn read_port(value: &Value, path: String) -> Read<PortMatch> {
    let mut fields = Fields::of(value, path)?;
    let protocol = port::protocol(&mut fields, "protocol")?;
    let (port_path, end_path) = (fields.path("port"), fields.path("endPort"));
    let port = fields.value("port");
    let end = fields.value("endPort").map(|value| port::number(value, end_path.clone())).transpose()?;
    fields.finish()?;
    match (port, end) {
        (None, None) => Ok(PortMatch::Protocol(protocol)),
        (Some(Value::String(text)), None) => {
            Ok(PortMatch::Named { protocol: Some(protocol), name: port::name(text, port_path)? })
        }
        (None | Some(Value::String(_)), Some(_)) => {
            port::misplaced(end_path, "endPort needs a port that is a number", "write the first port as a number")
        }
        (Some(value @ Value::Number(_)), end) => {
            let first = port::number(value, port_path)?;
            port::range(protocol, first, end.unwrap_or(first), end_path)
        }
        (Some(other), _) => Err(wrong_type(port_path, "a number or a name", other)),
    }
}
