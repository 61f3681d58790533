//! `v1` Node to the model: labels, addresses and pod ranges.

use std::net::IpAddr;

use netverdict_policy::model::Node;

use crate::{
    address,
    fields::{Field, Fields, Read},
    finding::{Finding, Report},
    object::Object,
};

/// Comma-separated addresses of the node's bridge or gateway, which belong to the node, too (E-6).
pub(crate) const GATEWAY_ANNOTATION: &str = "netverdict.io/gateway-addresses";

/// Reads a Node. A field that cannot be read is left out, with a finding.
pub fn node(object: &Object) -> (Option<Node>, Vec<Finding>) {
    let mut report = object.report();
    let mut node = Node {
        name: object.name.clone(),
        uid: object.uid.clone(),
        labels: object.metadata_map("labels").map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        ..Node::default()
    };
    let Ok(mut fields) = object.fields() else { return (None, report.finish()) };
    if let Some(Some(mut status)) = report.lenient(fields.object("status"))
        && let Some(Some(list)) = report.lenient(status.list("addresses"))
    {
        for item in list.iter() {
            let read = Fields::of(item).and_then(read_address);
            push_new(&mut node.addresses, report.lenient(read).flatten());
        }
    }
    for part in object.annotation(GATEWAY_ANNOTATION).into_iter().flat_map(|text| text.split(',')) {
        match (address::address(part.trim()), part.trim()) {
            (Some(address), _) => push_new(&mut node.addresses, Some(address)),
            (None, "") => {}
            (None, other) => {
                let path = format!("metadata.annotations[{GATEWAY_ANNOTATION:?}]");
                report.warning(address::invalid_address(other, &path));
            }
        }
    }
    if let Some(Some(mut spec)) = report.lenient(fields.object("spec")) {
        read_ranges(&mut spec, &mut node, &mut report);
    }
    (Some(node), report.finish())
}

/// `None` for a host name, which is valid here.
fn read_address(mut fields: Fields<'_>) -> Read<Option<IpAddr>> {
    let path = fields.path("address");
    let (kind, text) = (fields.text("type")?.unwrap_or_default(), fields.text("address")?.unwrap_or_default());
    match (address::address(text), kind) {
        (None, "InternalIP" | "ExternalIP") => Err(Box::new(address::invalid_address(text, &path))),
        (address, _) => Ok(address),
    }
}

fn read_ranges(spec: &mut Fields<'_>, node: &mut Node, report: &mut Report) {
    let mut add = |range: &Field<'_>, report: &mut Report| {
        if let Some(block) =
            report.lenient(address::block(range)).filter(|block| !node.pod_ranges.contains(&block.cidr))
        {
            node.pod_ranges.push(block.cidr);
        }
    };
    if let Some(Some(list)) = report.lenient(spec.list("podCIDRs")) {
        list.iter().for_each(|range| add(&range, report));
    }
    if let Some(range) = spec.field("podCIDR").filter(|range| range.value != "") {
        add(&range, report);
    }
}

fn push_new(addresses: &mut Vec<IpAddr>, address: Option<IpAddr>) {
    addresses.extend(address.filter(|address| !addresses.contains(address)));
}
