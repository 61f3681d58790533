//! Ports and protocols of rules, containers and Services.

use netverdict_policy::model::{PortMatch, Protocol};

use crate::{
    fields::{Field, Fields, Read, quoted},
    finding::{Invalid, code},
};

fn refuse<T>(path: String, message: String, remedy: &str) -> Read<T> {
    Err(Box::new(Invalid::new(code::INVALID_PORT, path, message, remedy)))
}

/// A protocol; TCP where the field is missing (N-6).
pub(super) fn protocol(fields: &mut Fields<'_>, name: &'static str) -> Read<Protocol> {
    match fields.text(name)? {
        None | Some("TCP") => Ok(Protocol::TCP),
        Some("UDP") => Ok(Protocol::UDP),
        Some("SCTP") => Ok(Protocol::SCTP),
        Some(other) => {
            refuse(fields.path(name), format!("expected a protocol, found {}", quoted(other)), "write TCP, UDP or SCTP")
        }
    }
}

/// A port number from 1 to 65535.
pub(super) fn number(field: Field<'_>) -> Read<u16> {
    let found = field.describe();
    match field.value.as_u64().map(u16::try_from) {
        Some(Ok(port)) if port > 0 => Ok(port),
        _ if field.value.as_str().is_some_and(|text| text.parse::<u16>().is_ok()) => {
            refuse(field.path, format!("expected a number, found {found}"), "write the number without quotes")
        }
        _ => refuse(field.path, format!("expected a port, found {found}"), "write a number from 1 to 65535"),
    }
}

pub(super) fn required_number(fields: &mut Fields<'_>, name: &'static str) -> Read<u16> {
    match fields.field(name) {
        Some(field) => number(field),
        None => Err(fields.missing(name)),
    }
}

/// A named port in a rule of the ordered tiers. An API server accepts any text there; a text that no container port can have
/// matches no pod.
pub(super) fn any_name(text: &str, path: String) -> Read<String> {
    if text.is_empty() {
        return refuse(path, "the name is empty".into(), "write the name of a container port, or remove the field");
    }
    Ok(text.to_owned())
}

/// The name of a container port, by the rules of an API server.
pub(super) fn name(text: &str, path: String) -> Read<String> {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=15).contains(&text.len())
        && text.bytes().all(inside)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    if fits {
        return Ok(text.to_owned());
    }
    if text.parse::<u16>().is_ok() {
        return refuse(path, format!("expected a number, found the text {}", quoted(text)), "write it without quotes");
    }
    let remedy = "use up to 15 lower-case letters, digits and single '-', with at least one letter";
    refuse(path, format!("expected the name of a port, found {}", quoted(text)), remedy)
}

/// All ports from first to last.
pub(super) fn range(protocol: Protocol, first: u16, last: u16, path: String) -> Read<PortMatch> {
    if first <= last {
        return Ok(PortMatch::Range { protocol, first, last });
    }
    refuse(path, format!("the range ends at {last}, before its begin at {first}"), "swap the two")
}

/// A field that another one excludes.
pub(super) fn misplaced<T>(path: String, message: &str, remedy: &str) -> Read<T> {
    refuse(path, message.to_owned(), remedy)
}
