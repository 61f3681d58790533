//! `v1` Pod to the model: labels, addresses, container ports, phase and owner. Unknown fields are ignored, since most
//! fields of a pod do not matter to network policy.

use chrono::DateTime;
use netverdict_policy::model::{ContainerPort, Phase, Pod, Workload};
use serde_json::Value;

use super::port;
use crate::{
    address,
    fields::{Fields, Read, quoted},
    finding::{Finding, Invalid, Report, code},
    object::Object,
};

/// On the mirror of a static pod: the hash of its configuration, which the kubelet uses as its uid.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";

/// Reads a Pod. A field that cannot be read is left out, with a finding.
pub fn pod(object: &Object) -> (Option<Pod>, Vec<Finding>) {
    let mut report = object.report();
    let mut pod = Pod {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        uid: object.uid.clone(),
        cgroup_uid: static_uid(object).unwrap_or_default().to_owned(),
        labels: object.metadata_map("labels").map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        ..Pod::default()
    };
    let Ok(mut fields) = object.fields() else { return (None, report.finish()) };
    if let Some(Some(mut metadata)) = report.lenient(fields.object("metadata")) {
        pod.terminating = metadata.field("deletionTimestamp").is_some();
        let owner = report.lenient(read_owner(&mut metadata)).flatten();
        pod.workload = owner.map(|owner| top_of(owner, &pod));
    }
    if let Some(Some(mut spec)) = report.lenient(fields.object("spec")) {
        pod.node = report.lenient(spec.text("nodeName")).flatten().unwrap_or_default().to_owned();
        pod.host_network = report.lenient(spec.boolean("hostNetwork")).flatten().unwrap_or(false);
        let account = report.lenient(spec.text("serviceAccountName")).flatten();
        pod.service_account = account.unwrap_or("default").to_owned();
        read_ports(&mut spec, &mut pod.container_ports, &mut report);
    }
    if let Some(Some(mut status)) = report.lenient(fields.object("status")) {
        read_addresses(&mut status, &mut pod, &mut report);
        pod.phase = report.lenient(read_phase(&mut status)).flatten().unwrap_or_default();
        if status.field("phase").is_none() && !pod.addresses.is_empty() {
            pod.phase = Phase::Running;
        }
    }
    if !pod.addresses.is_empty() {
        (pod.started, pod.ended) = lifetime(object, pod.finished());
    }
    (Some(pod), report.finish())
}

/// A kubelet sets both to the hash. It never looks like a uid that an API server gives.
fn static_uid(object: &Object) -> Option<&str> {
    let (mirror, hash) = (object.annotation(MIRROR_ANNOTATION)?, object.annotation(HASH_ANNOTATION)?);
    let is_hash = !mirror.is_empty() && mirror.bytes().all(|byte| byte.is_ascii_hexdigit());
    (mirror == hash && is_hash).then_some(mirror)
}

fn read_phase(status: &mut Fields<'_>) -> Read<Option<Phase>> {
    Ok(Some(match status.text("phase")? {
        None => return Ok(None),
        Some("Pending") => Phase::Pending,
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some("Unknown") => Phase::Unknown,
        Some(other) => {
            let message = format!("expected a pod phase, found {}; the pod counts as pending", quoted(other));
            let remedy = "write Pending, Running, Succeeded, Failed or Unknown";
            return Err(Box::new(Invalid::new(code::WRONG_TYPE, status.path("phase"), message, remedy)));
        }
    }))
}

/// The time when its kubelet accepted it, and the end of its last container if it has `finished`. A value that is no time
/// is left out: only the naming of past flows depends on it.
fn lifetime(object: &Object, finished: bool) -> (Option<i64>, Option<i64>) {
    let seconds = |value: &Value| DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|time| time.timestamp());
    let status = |name: &str| object.value.get("status").and_then(|status| status.get(name));
    let started = status("startTime").and_then(seconds);
    let containers = ["containerStatuses", "initContainerStatuses"].into_iter().filter_map(status);
    let containers = containers.filter_map(Value::as_array).flatten();
    let ends = containers.filter_map(|container| container.pointer("/state/terminated/finishedAt").and_then(seconds));
    (started, ends.max().filter(|_| finished))
}

/// `podIPs` and `podIP`, each address once.
fn read_addresses(status: &mut Fields<'_>, pod: &mut Pod, report: &mut Report) {
    let mut add = |text: &str, path: String, report: &mut Report| match address::address(text) {
        Some(address) if !pod.addresses.contains(&address) => pod.addresses.push(address),
        Some(_) => {}
        None if text.is_empty() => {}
        None => report.warning(address::invalid_address(text, &path)),
    };
    if let Some(Some(list)) = report.lenient(status.list("podIPs")) {
        for item in list.iter() {
            let read =
                Fields::of(item).and_then(|mut fields| Ok((fields.text("ip")?.unwrap_or_default(), fields.path("ip"))));
            if let Some((text, path)) = report.lenient(read) {
                add(text, path, report);
            }
        }
    }
    let path = status.path("podIP");
    if let Some(Some(text)) = report.lenient(status.text("podIP")) {
        add(text, path, report);
    }
}

/// Ports of regular containers and of restartable init containers (E-2).
fn read_ports(spec: &mut Fields<'_>, ports: &mut Vec<ContainerPort>, report: &mut Report) {
    for list in ["containers", "initContainers"] {
        let Some(Some(containers)) = report.lenient(spec.list(list)) else { continue };
        for container in containers.iter() {
            let Some(mut container) = report.lenient(Fields::of(container)) else { continue };
            let keeps_running = container.field("restartPolicy").is_some_and(|policy| policy.value == "Always");
            if list == "initContainers" && !keeps_running {
                continue;
            }
            let Some(Some(list)) = report.lenient(container.list("ports")) else { continue };
            for item in list.iter() {
                ports.extend(report.lenient(Fields::of(item).and_then(read_port)));
            }
        }
    }
    ports.sort();
    ports.dedup();
}

fn read_port(mut fields: Fields<'_>) -> Read<ContainerPort> {
    let protocol = port::protocol(&mut fields, "protocol")?;
    let port = port::required_number(&mut fields, "containerPort")?;
    let name = match fields.text("name")? {
        None | Some("") => String::new(),
        Some(name) => port::name(name, fields.path("name"))?,
    };
    Ok(ContainerPort { name, port, protocol })
}

/// The controlling owner, or else the first one.
fn read_owner(metadata: &mut Fields<'_>) -> Read<Option<Workload>> {
    let mut first = None;
    for owner in metadata.list("ownerReferences")?.iter().flat_map(|list| list.iter()) {
        let mut fields = Fields::of(owner)?;
        let (kind, name) = (fields.required_text("kind")?.to_owned(), fields.required_text("name")?.to_owned());
        let owner = Workload { kind, name };
        if fields.boolean("controller")? == Some(true) {
            return Ok(Some(owner));
        }
        first.get_or_insert(owner);
    }
    Ok(first)
}

/// The Deployment above a ReplicaSet: the ReplicaSet's name is the Deployment's with the pods' template hash appended.
fn top_of(owner: Workload, pod: &Pod) -> Workload {
    let hash = pod.labels.get("pod-template-hash").filter(|hash| !hash.is_empty());
    let deployment = match (owner.kind.as_str(), hash) {
        ("ReplicaSet", Some(hash)) => owner.name.strip_suffix(hash.as_str()).and_then(|rest| rest.strip_suffix('-')),
        _ => None,
    };
    match deployment.filter(|name| !name.is_empty()) {
        Some(name) => Workload { kind: "Deployment".into(), name: name.to_owned() },
        None => owner,
    }
}
