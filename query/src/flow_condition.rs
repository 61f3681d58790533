//! Conditions on flows in SQL, for parameters of questions. Texts of clients stand in them quoted.

use crate::{question::Asked, records::quoted};

/// An end of a flow is the one asked about: by the name that it had then, or by its address before or after translation.
/// `side` is `source` or `destination`.
pub(crate) fn end_condition(side: &str, end: &Asked) -> String {
    match end {
        Asked::Pod(key) => {
            format!("{side}_namespace = {} AND {side}_pod = {}", quoted(&key.namespace), quoted(&key.name))
        }
        Asked::Address(address) => {
            let other = if side == "source" { "translated_source_ip" } else { "original_destination_ip" };
            format!("({side}_ip = '{address}' OR {other} = '{address}')")
        }
    }
}

/// The destination port before or after translation.
pub(crate) fn port_condition(port: u16) -> String {
    format!("(destination_port = {port} OR original_destination_port = {port})")
}

/// Either end is in the namespace.
pub(crate) fn namespace_condition(namespace: &str) -> String {
    let namespace = quoted(namespace);
    format!("(source_namespace = {namespace} OR destination_namespace = {namespace})")
}

/// Either end is the pod: `pod` of any namespace, or `namespace/pod`.
pub(crate) fn pod_condition(pod: &str) -> String {
    let of = |side: &str| match pod.split_once('/') {
        Some((namespace, pod)) => {
            format!("({side}_namespace = {} AND {side}_pod = {})", quoted(namespace), quoted(pod))
        }
        None => format!("{side}_pod = {}", quoted(pod)),
    };
    format!("({} OR {})", of("source"), of("destination"))
}

/// A policy decided: `name` of any namespace or of none, or `namespace/name`. `None`: the text is no name.
pub(crate) fn policy_condition(policy: &str) -> Option<String> {
    if !policy.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte)) {
        return None;
    }
    let names = "concat(', ', policy_names(decided_by), ',')";
    let before: &[&str] = if policy.contains('/') { &[", "] } else { &["/", ", "] };
    let forms = before.iter().flat_map(|before| [format!("{before}{policy},"), format!("{before}{policy}#")]);
    let forms: Vec<String> = forms.map(|form| format!("{names} LIKE {}", quoted(&format!("%{form}%")))).collect();
    Some(format!("({})", forms.join(" OR ")))
}
