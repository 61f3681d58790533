//! `v1` Service to the model: addresses, ports and selector.

use std::net::IpAddr;

use netverdict_policy::model::{Service, ServicePort};
use serde_json::Value;

use super::port;
use crate::{
    address,
    fields::{Field, Fields, List, Read},
    finding::{Finding, Report},
    object::Object,
};

/// Reads a Service. A field that cannot be read is left out, with a finding.
pub fn service(object: &Object) -> (Option<Service>, Vec<Finding>) {
    let mut report = object.report();
    let mut service = Service {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        uid: object.uid.clone(),
        ..Service::default()
    };
    let Ok(mut fields) = object.fields() else { return (None, report.finish()) };
    if let Some(Some(spec)) = report.lenient(fields.object("spec")) {
        read_spec(spec, &mut service, &mut report);
    }
    if let Some(Some(status)) = report.lenient(fields.object("status")) {
        read_status(status, &mut service, &mut report);
    }
    (Some(service), report.finish())
}

fn read_spec(mut spec: Fields<'_>, service: &mut Service, report: &mut Report) {
    for name in ["clusterIPs", "externalIPs"] {
        if let Some(Some(list)) = report.lenient(spec.list(name)) {
            list.iter().for_each(|item| add(&item, &mut service.addresses, report));
        }
    }
    if let Some(address) = spec.field("clusterIP") {
        add(&address, &mut service.addresses, report);
    }
    if let Some(Some(list)) = report.lenient(spec.list("ports")) {
        for port in list.iter() {
            service.ports.extend(report.lenient(Fields::of(port).and_then(read_port)));
        }
    }
    if let Some(Some(labels)) = report.lenient(spec.object("selector")) {
        for (key, value) in labels.entries() {
            let value = report.lenient(value.text());
            service.selector.extend(value.map(|value| (key.clone(), value.to_owned())));
        }
    }
}

/// The addresses of load balancers; some have a host name instead.
fn read_status(mut status: Fields<'_>, service: &mut Service, report: &mut Report) {
    let balancer = report.lenient(status.object("loadBalancer")).flatten();
    let list = balancer.and_then(|mut balancer| report.lenient(balancer.list("ingress")).flatten());
    for item in list.iter().flat_map(List::iter) {
        let address = report.lenient(Fields::of(item)).and_then(|mut fields| fields.field("ip"));
        if let Some(address) = address {
            add(&address, &mut service.addresses, report);
        }
    }
}

fn add(field: &Field<'_>, addresses: &mut Vec<IpAddr>, report: &mut Report) {
    let Some(text) = report.lenient(field.text()) else { return };
    match address::address(text) {
        Some(address) if !addresses.contains(&address) => addresses.push(address),
        Some(_) => {}
        // A headless Service, or a Service without an address so far.
        None if matches!(text, "None" | "") => {}
        None => report.warning(address::invalid_address(text, &field.path)),
    }
}

fn read_port(mut fields: Fields<'_>) -> Read<ServicePort> {
    let protocol = port::protocol(&mut fields, "protocol")?;
    let port = port::required_number(&mut fields, "port")?;
    let name = fields.text("name")?.unwrap_or_default().to_owned();
    let target_port = match fields.field("targetPort") {
        None => port.to_string(),
        Some(target) => match target.value {
            Value::String(text) if text.is_empty() => port.to_string(),
            Value::String(text) => text.clone(),
            // Kubernetes writes 0 for a target port that is not set.
            value if value.as_u64() == Some(0) => port.to_string(),
            _ => port::number(target)?.to_string(),
        },
    };
    Ok(ServicePort { name, port, target_port, protocol })
}
