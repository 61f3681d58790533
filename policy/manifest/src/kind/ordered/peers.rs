//! Peers of the ordered tiers: namespaces, pods and, for egress, nodes, networks and domain names.

use std::collections::BTreeSet;

use netverdict_policy::model::{Action, Direction, NamePattern, Peer, Selector};
use serde_json::Value;

use super::dialect::{Dialect, check_length};
use crate::{
    address,
    fields::{Field, Fields, List, Read, quoted},
    finding::{Invalid, Report, code},
    kind::rule::Faults,
    selector::{selected, selector, selector_or_all},
};

/// Networks or domain names in one peer (C-14).
const MOST_NETWORKS: usize = 25;

/// `None` where the rule names no peers, which is a fault.
pub(super) fn read_peers(
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
            // In a rule that accepts, an unreadable peer matches nothing, and the peers beside it do (C-9).
            Err(invalid) if action == Action::Accept && list.items.len() > 1 => {
                let message = format!("{}; the peer matches nothing", invalid.message);
                report.error(Invalid { message, ..*invalid });
            }
            Err(invalid) => faults.add(*invalid),
        }
    }
    Some(peers)
}

/// A peer with exactly one field (C-8). Networks and domain names become one peer of the model each.
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
        (Some(_) | None, _) => refuse("the peer has no field"),
    }
}

/// How many peers of the model a written one becomes: one for each network or domain name.
pub(crate) fn peers_of(peer: &Value) -> usize {
    let list = |name: &str| peer.get(name).and_then(Value::as_array);
    if let Some(items) = ["networks", "domainNames"].into_iter().find_map(list) {
        return items.len();
    }
    let has = |name: &str| peer.get(name).is_some_and(|value| !value.is_null());
    usize::from(["namespaces", "pods", "nodes"].into_iter().any(has))
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

/// Domain names are valid only in rules that accept (C-12).
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
                let message = format!("expected a domain name, found {}", quoted(name));
                return refuse(
                    &field.path,
                    message,
                    "write a name of two labels or more; *. before it matches all names below it",
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

/// Warns of networks or domain names that are too many or appear twice.
fn check_set(list: &List<'_>, report: &mut Report) {
    check_length(list.items.len(), MOST_NETWORKS, &list.path, report);
    let mut seen = BTreeSet::new();
    for item in list.iter() {
        if let Some(text) = item.value.as_str().filter(|text| !seen.insert(*text)) {
            let message = format!("{} appears twice, which an API server refuses", quoted(text));
            report.warning(Invalid::new(code::DUPLICATE_ITEM, item.path, message, "remove one of the two"));
        }
    }
}

/// Namespaces and pods; a selector that may be absent then selects everything, as an empty one does.
pub(super) fn read_pods(mut fields: Fields<'_>, dialect: &Dialect) -> Read<(Selector, Selector)> {
    for name in dialect.required_selectors {
        fields.field(name).ok_or_else(|| fields.missing(name))?;
    }
    let namespaces = selector_or_all(&mut fields, "namespaceSelector")?;
    let pods = selector_or_all(&mut fields, "podSelector")?;
    fields.finish()?;
    Ok((namespaces, pods))
}
