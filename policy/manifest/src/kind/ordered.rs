//! The kinds of the admin and baseline tiers to the model: subject, priority and ordered rules of `policy.networking.k8s.io`.
//!
//! Kinds and versions differ in the word for accept, in whether a rule may pass, in the forms of a peer, in the syntax of ports
//! and in the length of lists; a [`Dialect`] holds these differences. Where the subject cannot be read the object is not enforced; a
//! rule with an error fails closed (C-9).

mod dialect;
mod peers;

use netverdict_policy::model::{Action, Direction, Isolates, Peer, Policy, PortMatch, Rule, Selector, Subject, Tier};

pub(super) use self::{dialect::Dialect, peers::peers_of};

use self::{
    dialect::check_length,
    peers::{read_peers, read_pods},
};
use super::{
    policy_kind::{Parts, assemble},
    port,
    rule::{self, Faults},
};
use crate::{
    fields::{Field, Fields, Read, quoted},
    finding::{Invalid, Report, code},
    object::Object,
    selector::{selected, selector},
};

/// Characters of a rule's name (C-14).
const LONGEST_RULE_NAME: usize = 100;

/// Path of the subject.
pub(super) const SUBJECT: &str = "spec.subject";

/// The position of a policy in the order of evaluation.
pub(super) struct Precedence {
    pub(super) tier: Tier,
    pub(super) priority: i32,
}

/// Reads the whole object. `precedence` reads its fields from the specification, and returns `None`, with an error, where they
/// are invalid.
pub(super) fn read(
    object: &Object,
    dialect: &Dialect,
    report: &mut Report,
    precedence: impl FnOnce(&mut Fields<'_>, &mut Report) -> Option<Precedence>,
) -> Option<Policy> {
    let mut spec = take(Fields::of(object.spec()), report)?;
    let precedence = precedence(&mut spec, report);
    let subject = spec.required_object("subject").and_then(|subject| read_subject(subject, dialect));
    let subject = take(subject, report);
    let mut rules = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let before = rules.len();
        rules.extend(rule::each(&mut spec, direction, Action::Deny, report, |index, rule, report| {
            read_rule(dialect, direction, index, rule, report)
        }));
        let path = format!("spec.{}", direction.as_str());
        check_length(rules.len() - before, dialect.most_items, &path, report);
    }
    if let Err(invalid) = spec.finish() {
        // The field may narrow any rule, so no rule may accept anything. Rules that deny or pass stay as written:
        // denying everything because of a field that a later version adds would cut off the cluster.
        let fault = format!("{}: {}", invalid.field, invalid.message);
        for rule in rules.iter_mut().filter(|rule| rule.action == Action::Accept) {
            rule::fail(rule, fault.clone());
        }
        let message = format!("{}; rules that accept match nothing", invalid.message);
        report.error(Invalid { message, ..*invalid });
    }
    let (Precedence { tier, priority }, subject) = (precedence?, subject?);
    Some(assemble(object, Parts { tier, priority, subject, isolates: Isolates::default(), rules }, report))
}

/// The value, or `None` and an error that says that the object is not enforced.
pub(super) fn take<T>(read: Read<T>, report: &mut Report) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(invalid) => {
            let message = format!("{}; the object is not enforced", invalid.message);
            report.error(Invalid { message, ..*invalid });
            None
        }
    }
}

/// A priority from 0, evaluated first, to 1000 (C-2).
pub(super) fn priority(spec: &mut Fields<'_>) -> Read<i32> {
    let Some(priority) = spec.integer("priority")? else { return Err(spec.missing("priority")) };
    match i32::try_from(priority) {
        Ok(priority @ 0..=1000) => Ok(priority),
        Ok(_) | Err(_) => {
            let message = format!("expected a priority from 0 to 1000, found {priority}");
            let remedy = "write a number from 0, evaluated first, to 1000";
            Err(Box::new(Invalid::new(code::INVALID_PRIORITY, spec.path("priority"), message, remedy)))
        }
    }
}

/// The pods that the policy applies to: either `namespaces` or `pods` (C-7).
fn read_subject(mut fields: Fields<'_>, dialect: &Dialect) -> Read<Subject> {
    let namespaces = fields.field("namespaces").map(selector).transpose()?;
    let pods = fields.object("pods")?.map(|pods| read_pods(pods, dialect)).transpose()?;
    let path = fields.own_path().to_owned();
    fields.finish()?;
    let refuse = |message: &str| {
        Err(Box::new(Invalid::new(code::INVALID_SUBJECT, path, message, "write either namespaces or pods")))
    };
    match (namespaces, pods) {
        (Some(namespaces), None) => Ok(Subject { namespaces: selected(namespaces), pods: Selector::default() }),
        (None, Some((namespaces, pods))) => Ok(Subject { namespaces: selected(namespaces), pods }),
        (None, None) => refuse("the subject has no field"),
        (Some(_), Some(_)) => refuse("the subject has both namespaces and pods"),
    }
}

fn read_rule(dialect: &Dialect, direction: Direction, index: u32, field: Field<'_>, report: &mut Report) -> Rule {
    let mut faults = Faults::default();
    let mut rule = rule::empty(direction, index, Action::Deny);
    let Some(mut fields) = faults.take(Fields::of(field)) else { return faults.finish(rule, report) };
    if let Some(Some(name)) = faults.take(fields.text("name")) {
        rule.name = read_name(name, fields.path("name"), report);
    }
    let action_path = fields.path("action");
    match faults.take(fields.required_text("action")) {
        None => {}
        Some(action) => match read_action(action, dialect, action_path) {
            Ok(action) => rule.action = action,
            Err((action, invalid)) => {
                rule.action = action;
                faults.add(invalid);
            }
        },
    }
    rule.peers = read_peers(&mut fields, direction, rule.action, dialect, &mut faults, report);
    let ports_path = fields.path(dialect.ports);
    rule.ports = read_ports(&mut fields, dialect, &mut faults, report);
    faults.take(fields.finish());
    let names_a_port = rule.ports.iter().flatten().any(|port| matches!(port, PortMatch::Named { .. }));
    let names_no_pod = rule.peers.iter().flatten().any(|peer| !matches!(peer, Peer::Pods { .. }));
    if names_a_port && names_no_pod {
        let message = "a named port beside networks, nodes or domain names, which have no port names";
        let remedy = "write the number, or a rule of its own";
        faults.add(Invalid::new(code::NAMED_PORT_WITHOUT_PODS, ports_path, message, remedy));
    }
    faults.finish(rule, report)
}

/// `None` for all ports.
fn read_ports(
    fields: &mut Fields<'_>,
    dialect: &Dialect,
    faults: &mut Faults,
    report: &mut Report,
) -> Option<Vec<PortMatch>> {
    let list = faults.take(fields.list(dialect.ports))??;
    check_length(list.items.len(), dialect.most_items, &list.path, report);
    if list.items.is_empty() {
        let message = "an empty list may mean all ports or none";
        let remedy = "remove the field for all ports, or name some";
        faults.add(Invalid::new(code::INVALID_PORT, &list.path, message, remedy));
    }
    let ports = list.iter().filter_map(|field| {
        let path = field.path.clone();
        let port = faults.take((dialect.read_port)(field))?;
        warn_of_port(&port, path, report);
        Some(port)
    });
    Some(ports.collect())
}

/// Warns of ports that are enforced as written but rarely intended.
fn warn_of_port(port: &PortMatch, path: String, report: &mut Report) {
    match port {
        // The documentation gives it this meaning, and the schema refuses it.
        PortMatch::Protocol(_) => {
            let message = "no port is named, which means all ports of the protocol; an API server refuses that";
            report.warning(Invalid::new(code::MISSING_FIELD, path, message, "write the range 1 to 65535"));
        }
        // An API server takes any name here.
        PortMatch::Named { name, .. } => {
            if let Err(invalid) = port::name(name, path) {
                let message = format!("{}; it matches nothing", invalid.message);
                let remedy = "write the name of a container port, or the port by its number";
                report.warning(Invalid::new(code::INVALID_PORT, invalid.field, message, remedy));
            }
        }
        PortMatch::Range { .. } => {}
    }
}

fn read_name(name: &str, path: String, report: &mut Report) -> String {
    match name.char_indices().nth(LONGEST_RULE_NAME) {
        None => name.to_owned(),
        Some((end, _)) => {
            let message = format!("the name has more than {LONGEST_RULE_NAME} characters; the rest is cut");
            report.warning(Invalid::new(code::INVALID_NAME, path, message, "choose a shorter name"));
            name[..end].to_owned()
        }
    }
}

/// On failure: the action to assume. A word that means accept in another kind accepts nothing, any other denies everything
/// (C-9).
fn read_action(word: &str, dialect: &Dialect, path: String) -> Result<Action, (Action, Invalid)> {
    match word {
        word if word == dialect.accept => return Ok(Action::Accept),
        "Deny" => return Ok(Action::Deny),
        "Pass" if dialect.can_pass => return Ok(Action::Pass),
        _ => {}
    }
    let assumed = match word.to_ascii_lowercase().as_str() {
        "accept" | "allow" => Action::Accept,
        _ => Action::Deny,
    };
    let pass = if dialect.can_pass { ", Deny or Pass" } else { " or Deny" };
    let message = format!("expected an action of this kind, found {}", quoted(word));
    Err((assumed, Invalid::new(code::INVALID_ACTION, path, message, format!("write {}{pass}", dialect.accept))))
}
