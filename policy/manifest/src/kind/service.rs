//! Services: their addresses, ports and selector.

use std::net::IpAddr;

use netverdict_policy::model::{Service, ServicePort};
use serde_json::Value;

use super::{node::invalid_address, port};
use crate::{
    address,
    fields::{Fields, List, Read, text, wrong_type},
    finding::{Finding, Report},
    object::Object,
};

/// Reads a Service. What cannot be read in it is left out, with a finding.
pub fn service(object: &Object) -> (Option<Service>, Vec<Finding>) {
    let mut report = Report::of(object);
    let mut service = Service {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        uid: object.uid.clone(),
        ..Service::default()
    };
    let Ok(mut fields) = Fields::of(&object.value, String::new()) else { return (None, report.finish()) };
    if let Some(Some(mut spec)) = report.lenient(fields.object("spec")) {
        for name in ["clusterIPs", "externalIPs"] {
            if let Some(Some(list)) = report.lenient(spec.list(name)) {
                add_all(&list, &mut service.addresses, &mut report);
            }
        }
        let path = spec.path("clusterIP");
        if let Some(Some(text)) = report.lenient(spec.text("clusterIP")) {
            add(text, path, &mut service.addresses, &mut report);
        }
        if let Some(Some(list)) = report.lenient(spec.list("ports")) {
            for (path, value) in list.iter() {
                service.ports.extend(report.lenient(Fields::of(value, path).and_then(read_port)));
            }
        }
        let path = spec.path("selector");
        match spec.value("selector") {
            None => {}
            Some(Value::Object(labels)) => {
                for (key, value) in labels {
                    let value = report.lenient(text(value, format!("{path}[{key:?}]")));
                    service.selector.extend(value.map(|value| (key.clone(), value.to_owned())));
                }
            }
            Some(other) => report.warning(*wrong_type(path, "a mapping", other)),
        }
    }
    if let Some(Some(mut status)) = report.lenient(fields.object("status")) {
        let balancer = report.lenient(status.object("loadBalancer")).flatten();
        let list = balancer.and_then(|mut balancer| report.lenient(balancer.list("ingress")).flatten());
        for (path, value) in list.iter().flat_map(List::iter) {
            // Some load balancers have a host name instead.
            let read = Fields::of(value, path).and_then(|mut fields| Ok((fields.text("ip")?, fields.path("ip"))));
            if let Some((Some(text), path)) = report.lenient(read) {
                add(text, path, &mut service.addresses, &mut report);
            }
        }
    }
    (Some(service), report.finish())
}

fn add_all(list: &List<'_>, addresses: &mut Vec<IpAddr>, report: &mut Report) {
    for (path, value) in list.iter() {
        if let Some(text) = report.lenient(text(value, path.clone())) {
            add(text, path, addresses, report);
        }
    }
}

fn add(text: &str, path: String, addresses: &mut Vec<IpAddr>, report: &mut Report) {
    match address::address(text) {
        Some(address) if !addresses.contains(&address) => addresses.push(address),
        Some(_) => {}
        // A headless Service, and one that has no address yet.
        None if matches!(text, "None" | "") => {}
        None => report.warning(invalid_address(text, path)),
    }
}

fn read_port(mut fields: Fields<'_>) -> Read<ServicePort> {
    let protocol = port::protocol(&mut fields, "protocol")?;
    let port = port::required_number(&mut fields, "port")?;
    let name = fields.text("name")?.unwrap_or_default().to_owned();
    let path = fields.path("targetPort");
    let target_port = match fields.value("targetPort") {
        None => port.to_string(),
        Some(Value::String(text)) if text.is_empty() => port.to_string(),
        Some(Value::String(text)) => text.clone(),
        // Kubernetes writes 0 for a target port that nobody set.
        Some(value) if value.as_u64() == Some(0) => port.to_string(),
        Some(value) => port::number(value, path)?.to_string(),
    };
    Ok(ServicePort { name, port, target_port, protocol })
}
