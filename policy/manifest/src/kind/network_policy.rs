//! `networking.k8s.io/v1` NetworkPolicy to the model: rules that accept, for the pods that the policy isolates.
//!
//! Normalisation follows N-1 to N-13. Where the subject or `policyTypes` cannot be read, the object is not enforced, since an
//! API server refuses it; an error in a rule makes that rule match nothing.

use netverdict_policy::model::{
    Action, Direction, Isolates, NamespaceScope, Peer, Policy, PortMatch, Rule, Selector, Subject, Tier,
};
use serde_json::{Map, Value};

use super::{
    policy_kind::{Layout, Parts, PolicyKind, Scope, assemble},
    port,
    rule::{self, Faults},
};
use crate::{
    address,
    fields::{Field, Fields, List, Read, quoted},
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

    fn layout(&self) -> &'static Layout {
        &Layout { subject: "spec.podSelector", ports: "ports", peers_of }
    }

    fn read(&self, object: &Object, report: &mut Report) -> Option<Policy> {
        let empty = Value::Object(Map::new());
        let mut field = object.spec();
        if field.value.is_null() {
            let message = "spec is missing: the policy isolates every pod of its namespace for ingress";
            report.warning(Invalid::new(code::MISSING_FIELD, "spec", message, "write podSelector and policyTypes"));
            field = field.with_value(&empty);
        }
        let spec = nulls::filled(field.value, "spec", report);
        let mut spec = match Fields::of(field.with_value(&spec)) {
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
            rules.extend(rule::each(&mut spec, direction, Action::Accept, report, |index, rule, report| {
                read_rule(direction, index, rule, &object.namespace, report)
            }));
        }
        if let Err(invalid) = spec.finish() {
            // The field may narrow any rule, so no rule may accept anything.
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

/// The directions that the policy isolates (N-1). `None`, with an error, where `policyTypes` cannot be read.
fn isolates(spec: &mut Fields<'_>, report: &mut Report) -> Option<Isolates> {
    match read_policy_types(spec) {
        Ok(Some(isolates)) => Some(isolates),
        Ok(None) => Some(default_isolates(spec, report)),
        Err(invalid) => {
            report.error(not_enforced(*invalid));
            None
        }
    }
}

/// `None` where `policyTypes` is missing or empty.
fn read_policy_types(spec: &mut Fields<'_>) -> Read<Option<Isolates>> {
    let refuse = |path: String, message: String, remedy: &str| {
        Err(Box::new(Invalid::new(code::INVALID_POLICY_TYPES, path, message, remedy)))
    };
    let Some(field) = spec.field("policyTypes") else { return Ok(None) };
    let list = match field.clone().list() {
        Ok(list) if list.items.is_empty() => return Ok(None),
        Ok(list) => list,
        Err(invalid) => {
            let remedy = match field.value.as_str() {
                Some(text) => format!("write [{text}]"),
                None => "write a list of Ingress and Egress".to_owned(),
            };
            return refuse(field.path, invalid.message, &remedy);
        }
    };
    let mut isolates = Isolates::default();
    for entry in list.iter() {
        match entry.value.as_str() {
            Some("Ingress") => isolates.ingress = true,
            Some("Egress") => isolates.egress = true,
            _ => {
                let message = format!("expected a policy type, found {}", entry.describe());
                return refuse(entry.path, message, "write Ingress or Egress");
            }
        }
    }
    match list.items.len() {
        0..=2 => Ok(Some(isolates)),
        count => refuse(field.path, format!("expected at most two policy types, found {count}"), "name each type once"),
    }
}

/// Without `policyTypes`: ingress always, egress where there are egress rules.
fn default_isolates(spec: &mut Fields<'_>, report: &mut Report) -> Isolates {
    let mut has_rules =
        |name: &'static str| spec.field(name).is_some_and(|field| *field.value != Value::Array(Vec::new()));
    let (ingress_rules, egress_rules) = (has_rules("ingress"), has_rules("egress"));
    if egress_rules && !ingress_rules {
        let message =
            "egress rules alone, without policyTypes, isolate the pods for ingress too: nothing may reach them";
        let remedy = "write policyTypes: [Egress], or [Ingress, Egress] where that is meant";
        report.warning(Invalid::new(code::ISOLATES_INGRESS_TOO, spec.path("policyTypes"), message, remedy));
    }
    Isolates { ingress: true, egress: egress_rules }
}

/// Removes the rules of a direction that the policy does not isolate: they have no effect (N-2).
fn ignore_rules(rules: &mut Vec<Rule>, isolates: Isolates, report: &mut Report) {
    for direction in [Direction::Ingress, Direction::Egress] {
        if !isolates.in_direction(direction) && rules.iter().any(|rule| rule.direction == direction) {
            let name = direction.as_str();
            let message = format!("the {name} rules have no effect, since policyTypes leaves {name} out");
            let remedy = "add the type to policyTypes, or remove the rules";
            report.warning(Invalid::new(code::IGNORED_RULES, format!("spec.{name}"), message, remedy));
        }
    }
    rules.retain(|rule| isolates.in_direction(rule.direction));
}

fn read_rule(direction: Direction, index: u32, field: Field<'_>, namespace: &str, report: &mut Report) -> Rule {
    let mut faults = Faults::default();
    let mut rule = rule::empty(direction, index, Action::Accept);
    let Some(mut fields) = faults.take(Fields::of(field)) else { return faults.finish(rule, report) };
    let peers = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    if let Some(Some(list)) = faults.take(fields.list(peers)).filter(|list| !is_unrestricted(list)) {
        let mut peers = Vec::new();
        for peer in list.iter() {
            peers.extend(faults.take(read_peer(peer, namespace, report)).flatten());
        }
        rule.peers = Some(peers);
    }
    if let Some(Some(list)) = faults.take(fields.list("ports")).filter(|list| !is_unrestricted(list)) {
        let ports = list.iter().filter_map(|port| faults.take(read_port(port)));
        rule.ports = Some(ports.collect());
    }
    faults.take(fields.finish());
    faults.finish(rule, report)
}

/// A missing or empty list restricts nothing (N-5).
fn is_unrestricted(list: &Option<List<'_>>) -> bool {
    list.as_ref().is_none_or(|list| list.items.is_empty())
}

/// `None` for a peer without a field, or with fields that exclude each other: it matches nothing, and the other peers of the
/// rule are not affected (N-9).
fn read_peer(field: Field<'_>, namespace: &str, report: &mut Report) -> Read<Option<Peer>> {
    let mut fields = Fields::of(field)?;
    let mut read = |name: &'static str| fields.field(name).map(selector).transpose();
    let (pods, namespaces) = (read("podSelector")?, read("namespaceSelector")?);
    let block = fields.object("ipBlock")?;
    let path = fields.own_path().to_owned();
    fields.finish()?;
    let has_block = block.is_some();
    // Read even where the peer is refused, so that one run reports every error.
    let block = block.map(|block| read_block(block, report)).transpose()?;
    let mut refuse = |message: &str, remedy: &str| {
        report.error(Invalid::new(code::INVALID_PEER, path.clone(), message, remedy));
        Ok(None)
    };
    match (pods, namespaces, block) {
        (None, None, None) => {
            refuse("the peer has no field, so it matches nothing", "write podSelector, namespaceSelector or ipBlock")
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

/// Number of peers: a value that [`read_peer`] accepts becomes one, others none.
fn peers_of(peer: &Value) -> usize {
    let has = |name: &str| peer.get(name).is_some_and(|value| !value.is_null());
    usize::from((has("podSelector") || has("namespaceSelector")) != has("ipBlock"))
}

fn read_block(mut fields: Fields<'_>, report: &mut Report) -> Read<Peer> {
    let field = fields.required("cidr")?;
    let block = address::block(&field)?;
    block.legacy_warning(&field.path).into_iter().for_each(|warning| report.warning(warning));
    let mut except = Vec::new();
    if let Some(list) = fields.list("except")? {
        for field in list.iter() {
            let (written, part) = (field.text()?, address::block(&field)?);
            part.legacy_warning(&field.path).into_iter().for_each(|warning| report.warning(warning));
            if !block.cidr.contains(&part.cidr) || block.cidr == part.cidr {
                let (message, remedy) = match part.cidr.contains(&block.cidr) {
                    true => (
                        format!("{} takes all of {} out: the peer matches nothing", quoted(written), block.cidr),
                        "remove the peer, or let except take out a part of its block",
                    ),
                    false => (
                        format!("expected a part of {}, found {}", block.cidr, quoted(written)),
                        "an except takes addresses out of its own block and nothing else; \
                         to deny others, let no rule name them",
                    ),
                };
                report.warning(Invalid::new(code::EXCEPT_OUTSIDE_BLOCK, field.path, message, remedy));
            }
            except.push(part.cidr);
        }
    }
    fields.finish()?;
    Ok(Peer::Block { cidr: block.cidr, except })
}

/// A port, a range of ports or a named port (N-6, N-7).
fn read_port(field: Field<'_>) -> Read<PortMatch> {
    let mut fields = Fields::of(field)?;
    let protocol = port::protocol(&mut fields, "protocol")?;
    let (port, end) = (fields.field("port"), fields.field("endPort"));
    fields.finish()?;
    let Some(port) = port else {
        return match end {
            None => Ok(PortMatch::Protocol(protocol)),
            Some(end) => misplaced_end(end.path),
        };
    };
    match (port.value, end) {
        (Value::String(_), Some(end)) => misplaced_end(end.path),
        (Value::String(text), None) => {
            Ok(PortMatch::Named { protocol: Some(protocol), name: port::name(text, port.path)? })
        }
        (Value::Number(_), None) => {
            let path = port.path.clone();
            let number = port::number(port)?;
            port::range(protocol, number, number, path)
        }
        (Value::Number(_), Some(end)) => {
            let path = end.path.clone();
            let last = port::number(end)?;
            port::range(protocol, port::number(port)?, last, path)
        }
        _ => Err(port.wrong_type("a number or a name")),
    }
}

fn misplaced_end(path: String) -> Read<PortMatch> {
    port::misplaced(path, "endPort needs a port that is a number", "write the first port as a number")
}
