//! What the kinds of the ordered tiers share: subject, peers and rules of `policy.networking.k8s.io`.
//!
//! The versions differ in the word for accept, in whether pass exists, in what a peer may be, in how ports are written and
//! in how long lists may be; a [`Dialect`] says how. A subject that cannot be read makes the object unusable; a rule fails closed (C-9).

use std::collections::BTreeSet;

use netverdict_policy::model::{
    Action, Direction, Isolates, NamePattern, Peer, Policy, PortMatch, Rule, Selector, Subject, Tier,
};

use super::{
    policy_kind::{Parts, assemble},
    port,
    rule::{self, Faults},
};
use crate::{
    address,
    fields::{Field, Fields, List, Read, quoted},
    finding::{Invalid, Report, code},
    object::Object,
    selector::{selected, selector, selector_or_all},
};

/// How one kind words its rules.
pub(super) struct Dialect {
    /// The word for accept.
    pub(super) accept: &'static str,
    pub(super) can_pass: bool,
    /// Whether peers may be domain names.
    pub(super) names_domains: bool,
    /// The selectors that `pods` may not leave out.
    pub(super) required_selectors: &'static [&'static str],
    /// The field that holds the ports.
    pub(super) ports: &'static str,
    /// One entry of it.
    pub(super) read_port: fn(Field<'_>) -> Read<PortMatch>,
    /// Items that an API server takes in a list of rules, peers or ports.
    pub(super) most_items: usize,
}

/// Characters of a rule's name (C-14).
const LONGEST_RULE_NAME: usize = 100;

/// Networks or domain names in one peer (C-14).
const MOST_NETWORKS: usize = 25;

/// Where a policy stands in its tier.
pub(super) struct Place {
    pub(super) tier: Tier,
    pub(super) priority: i32,
}

/// Reads the whole object; `place` takes its fields from the specification and says `None`, with an error, where it
/// cannot tell.
pub(super) fn read(
    object: &Object,
    dialect: &Dialect,
    report: &mut Report,
    place: impl FnOnce(&mut Fields<'_>, &mut Report) -> Option<Place>,
) -> Option<Policy> {
    let mut spec = take(Fields::of(object.spec()), report)?;
    let place = place(&mut spec, report);
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
        // Whatever it would have narrowed must not open anything. Rules that deny or pass stay as they are written:
        // to deny everything because a later version has one field more would cut off the cluster.
        let fault = format!("{}: {}", invalid.field, invalid.message);
        for rule in rules.iter_mut().filter(|rule| rule.action == Action::Accept) {
            rule::fail(rule, fault.clone());
        }
        let message = format!("{}; rules that accept match nothing", invalid.message);
        report.error(Invalid { message, ..*invalid });
    }
    let (Place { tier, priority }, subject) = (place?, subject?);
    Some(assemble(object, Parts { tier, priority, subject, isolates: Isolates::default(), rules }, report))
}

/// What was read, or an error that says that the object is not enforced.
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

/// 0 to 1000 (C-2).
pub(super) fn priority(spec: &mut Fields<'_>) -> Read<i32> {
    let Some(priority) = spec.integer("priority")? else { return Err(spec.missing("priority")) };
    match i32::try_from(priority) {
        Ok(priority @ 0..=1000) => Ok(priority),
        Ok(_) | Err(_) => {
            let message = format!("{priority} is no priority");
            let remedy = "write a number from 0, evaluated first, to 1000";
            Err(Box::new(Invalid::new(code::INVALID_PRIORITY, spec.path("priority"), message, remedy)))
        }
    }
}

/// C-7.
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
        (None, None) => refuse("the subject names nothing"),
        (Some(_), Some(_)) => refuse("the subject has both namespaces and pods"),
    }
}

/// Namespaces and pods; a selector that may be absent then selects everything, as an empty one does.
fn read_pods(mut fields: Fields<'_>, dialect: &Dialect) -> Read<(Selector, Selector)> {
    for name in dialect.required_selectors {
        fields.field(name).ok_or_else(|| fields.missing(name))?;
    }
    let namespaces = selector_or_all(&mut fields, "namespaceSelector")?;
    let pods = selector_or_all(&mut fields, "podSelector")?;
    fields.finish()?;
    Ok((namespaces, pods))
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
    if let Some(Some(list)) = faults.take(fields.list(dialect.ports)) {
        check_length(list.items.len(), dialect.most_items, &list.path, report);
        if list.items.is_empty() {
            let message = "an empty list may mean all ports or none";
            let remedy = "remove the field for all ports, or name some";
            faults.add(Invalid::new(code::INVALID_PORT, ports_path.clone(), message, remedy));
        }
        let ports = list.iter().filter_map(|field| {
            let path = field.path.clone();
            let port = faults.take((dialect.read_port)(field))?;
            warn_of_port(&port, path, report);
            Some(port)
        });
        rule.ports = Some(ports.collect());
    }
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

/// What has one meaning, and seldom the one that was meant.
fn warn_of_port(port: &PortMatch, path: String, report: &mut Report) {
    match port {
        // The documentation gives it this meaning, and the schema refuses it.
        PortMatch::Protocol(_) => {
            let message = "no port is named, which means all of the protocol; an API server refuses that";
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

/// On failure: the action to assume. A word that means accept elsewhere accepts nothing (T-126), any other denies.
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
    let message = format!("{} is no action of this kind", quoted(word));
    Err((assumed, Invalid::new(code::INVALID_ACTION, path, message, format!("write {}{pass}", dialect.accept))))
}

fn read_peers(
    fields: &mut Fields<'_>,
    direction: Direction,
    action: Action,
    dialect: &Dialect,
    faults: &mut Faults,
    report: &mut Report,
) -> Option<Vec<Peer>> {
    let name = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let missing = fields.missing(name);
    let list = faults.take(fields.list(name))?;
    let Some(list) = list.filter(|list| !list.items.is_empty()) else {
        faults.add(*missing);
        return None;
    };
    check_length(list.items.len(), dialect.most_items, &list.path, report);
    let mut peers = Vec::new();
    for peer in list.iter() {
        match read_peer(dialect, peer, direction, action, report) {
            Ok(peer) => peers.extend(peer),
            // In a rule that accepts, what cannot be read matches nothing, and the peers beside it do (C-9).
            Err(invalid) if action == Action::Accept && list.items.len() > 1 => {
                let message = format!("{}; the peer matches nothing", invalid.message);
                report.error(Invalid { message, ..*invalid });
            }
            Err(invalid) => faults.add(*invalid),
        }
    }
    Some(peers)
}

/// C-8: exactly one field.
fn read_peer(
    dialect: &Dialect,
    field: Field<'_>,
    direction: Direction,
    action: Action,
    report: &mut Report,
) -> Read<Vec<Peer>> {
    let mut fields = Fields::of(field)?;
    let mut peers: Vec<Vec<Peer>> = Vec::new();
    if let Some(namespaces) = fields.field("namespaces").map(selector).transpose()? {
        peers.push(vec![Peer::Pods { namespaces: selected(namespaces), pods: Selector::default() }]);
    }
    if let Some(pods) = fields.object("pods")? {
        let (namespaces, pods) = read_pods(pods, dialect)?;
        peers.push(vec![Peer::Pods { namespaces: selected(namespaces), pods }]);
    }
    if direction == Direction::Egress {
        if let Some(nodes) = fields.field("nodes").map(selector).transpose()? {
            peers.push(vec![Peer::Nodes(nodes)]);
        }
        if let Some(networks) = fields.list("networks")? {
            peers.push(read_networks(&networks, report)?);
        }
        if dialect.names_domains
            && let Some(names) = fields.list("domainNames")?
        {
            peers.push(read_domain_names(&names, action, report)?);
        }
    }
    let path = fields.own_path().to_owned();
    fields.finish()?;
    let refuse = |message: &str| {
        let remedy = "write exactly one of namespaces, pods and, for egress, nodes, networks, domainNames";
        Err(Box::new(Invalid::new(code::INVALID_PEER, path, message, remedy)))
    };
    match (peers.pop(), peers.is_empty()) {
        (Some(peer), true) if !peer.is_empty() => Ok(peer),
        (Some(_), false) => refuse("the peer has more than one field"),
        (Some(_) | None, _) => refuse("the peer names nothing"),
    }
}

fn read_networks(list: &List<'_>, report: &mut Report) -> Read<Vec<Peer>> {
    check_set(list, report);
    let mut peers = Vec::new();
    for network in list.iter() {
        let block = address::block(&network)?;
        block.legacy_warning(&network.path).into_iter().for_each(|warning| report.warning(warning));
        peers.push(Peer::Block { cidr: block.cidr, except: Vec::new() });
    }
    Ok(peers)
}

/// C-12.
fn read_domain_names(list: &List<'_>, action: Action, report: &mut Report) -> Read<Vec<Peer>> {
    check_set(list, report);
    let refuse = |path: &str, message: String, remedy: &str| {
        Err(Box::new(Invalid::new(code::INVALID_DOMAIN_NAME, path, message, remedy)))
    };
    if action != Action::Accept {
        let message = format!("domain names in a rule that says {}", action.as_str());
        return refuse(&list.path, message, "name domains in rules that accept, and deny the rest by networks");
    }
    let mut peers = Vec::new();
    for field in list.iter() {
        let name = field.text()?;
        match domain_name(name) {
            Some(pattern) => peers.push(Peer::Name(pattern)),
            None => {
                let message = format!("{} is no domain name", quoted(name));
                return refuse(
                    &field.path,
                    message,
                    "write a name of two labels or more, with *. before it for all below",
                );
            }
        }
    }
    Ok(peers)
}

fn domain_name(text: &str) -> Option<NamePattern> {
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && ends(bytes.first())
            && ends(bytes.last())
    };
    let fits = name.len() <= 253 && name.contains('.') && name.split('.').all(label);
    fits.then_some(if wildcard { NamePattern::Suffix(name) } else { NamePattern::Exact(name) })
}

/// Networks or domain names: not too many, and each once.
fn check_set(list: &List<'_>, report: &mut Report) {
    check_length(list.items.len(), MOST_NETWORKS, &list.path, report);
    let mut seen = BTreeSet::new();
    for item in list.iter() {
        if let Some(text) = item.value.as_str().filter(|text| !seen.insert(*text)) {
            let message = format!("{} is there twice, which an API server refuses", quoted(text));
            report.warning(Invalid::new(code::DUPLICATE_ITEM, item.path, message, "remove one of the two"));
        }
    }
}

/// More than an API server takes still counts: it is only never what a cluster holds (C-14).
fn check_length(length: usize, most: usize, path: &str, report: &mut Report) {
    if length > most {
        let message = format!("the list has {length} items, an API server takes {most}");
        report.warning(Invalid::new(code::TOO_MANY_ITEMS, path, message, "split the policy"));
    }
}
