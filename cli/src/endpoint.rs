//! The endpoints of a connection as arguments: `ns/pod`, `pod`, `10.0.0.7`, `[2001:db8::1]:443/tcp`.
//!
//! It reads no cluster: it cannot say whether the pod exists.

use std::{fmt, net::IpAddr, str::FromStr};

use netverdict_policy::{ObjectKey, model::Protocol};
use thiserror::Error;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Pod {
        /// `None`: the namespace of `--namespace`.
        namespace: Option<String>,
        name: String,
    },
    Address(IpAddr),
}

/// The destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) endpoint: Endpoint,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<Protocol>,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum EndpointError {
    #[error("expected NAMESPACE/POD, POD or an address, found `{0}`")]
    Shape(String),
    #[error(
        "`{0}` is no {1} name: expected lower-case letters, digits{2}, at most {3} characters, a letter or digit first and last"
    )]
    Name(String, &'static str, &'static str, usize),
    #[error("expected an IPv6 address in brackets with an optional port, like [2001:db8::1]:443, found `{0}`")]
    Brackets(String),
    #[error("expected a port from 1 to 65535, found `{0}`")]
    Port(String),
    #[error("expected tcp, udp, sctp, icmp, icmpv6 or a protocol number, found `{0}`")]
    Protocol(String),
    #[error("{0} has no ports; leave `:{1}` out")]
    NoPorts(Protocol, u16),
}

impl Endpoint {
    /// For clap.
    pub(crate) fn parse(text: &str) -> Result<Self, EndpointError> {
        let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(inner) = unbracketed {
            return inner.parse().map(Self::Address).map_err(|_| EndpointError::Brackets(text.to_owned()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let parts: Vec<_> = text.split('/').collect();
        match parts[..] {
            [name] => Ok(Self::Pod { namespace: None, name: pod_name(name)? }),
            [namespace, name] => Ok(Self::Pod { namespace: Some(namespace_name(namespace)?), name: pod_name(name)? }),
            _ => Err(EndpointError::Shape(text.to_owned())),
        }
    }

    /// `namespace/pod` or the address.
    pub(crate) fn text(&self, default_namespace: &str) -> String {
        match self {
            Self::Pod { .. } => self.pod(default_namespace).map_or_else(String::new, |key| key.to_string()),
            Self::Address(address) => address.to_string(),
        }
    }

    /// `None` for an address.
    pub(crate) fn pod(&self, default_namespace: &str) -> Option<ObjectKey> {
        match self {
            Self::Pod { namespace, name } => {
                Some(ObjectKey::new(namespace.as_deref().unwrap_or(default_namespace), name))
            }
            Self::Address(_) => None,
        }
    }
}

impl Destination {
    /// For clap.
    pub(crate) fn parse(text: &str) -> Result<Self, EndpointError> {
        let (endpoint, port, protocol) = split(text)?;
        // The endpoint first: an error in it is the one that people want to read.
        let endpoint = Endpoint::parse(endpoint)?;
        let port = port.map(parse_port).transpose()?;
        let protocol = protocol.map(parse_protocol).transpose()?;
        match (protocol, port) {
            (Some(protocol), Some(port)) if !protocol.has_ports() => Err(EndpointError::NoPorts(protocol, port)),
            _ => Ok(Self { endpoint, port, protocol }),
        }
    }
}

/// Cuts `endpoint[:port][/protocol]`. A slash may also be part of the endpoint: before a port it is, and `a/b` alone is a
/// namespace and a pod.
fn split(text: &str) -> Result<(&str, Option<&str>, Option<&str>), EndpointError> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or_else(|| EndpointError::Brackets(text.to_owned()))? + 1;
        let (endpoint, rest) = text.split_at(end);
        let (port, protocol) = match rest.split_once('/') {
            Some((port, protocol)) => (port, Some(protocol)),
            None => (rest, None),
        };
        return match port.strip_prefix(':') {
            Some(port) => Ok((endpoint, Some(port), protocol)),
            None if port.is_empty() => Ok((endpoint, None, protocol)),
            None => Err(EndpointError::Brackets(text.to_owned())),
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, None, None));
    }
    if let Some((endpoint, rest)) = text.split_once(':').filter(|(_, rest)| !rest.contains(':')) {
        return Ok(match rest.split_once('/') {
            Some((port, protocol)) => (endpoint, Some(port), Some(protocol)),
            None => (endpoint, Some(rest), None),
        });
    }
    match text.rsplit_once('/') {
        Some((endpoint, protocol)) if endpoint.contains('/') || endpoint.parse::<IpAddr>().is_ok() => {
            Ok((endpoint, None, Some(protocol)))
        }
        _ if text.contains(':') => Err(EndpointError::Brackets(text.to_owned())),
        _ => Ok((text, None, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, EndpointError> {
    match u16::from_str(text) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(EndpointError::Port(text.to_owned())),
    }
}

/// By name in any case, or by IP protocol number.
pub(crate) fn parse_protocol(text: &str) -> Result<Protocol, EndpointError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        "sctp" => Ok(Protocol::SCTP),
        "icmp" => Ok(Protocol::ICMP),
        "icmpv6" => Ok(Protocol::ICMPV6),
        number => number.parse().map(Protocol).map_err(|_| EndpointError::Protocol(text.to_owned())),
    }
}

/// For clap: a namespace by itself.
pub(crate) fn namespace_name(text: &str) -> Result<String, EndpointError> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if is_name(text, 63, label) {
        Ok(text.to_owned())
    } else {
        Err(EndpointError::Name(text.to_owned(), "namespace", " and -", 63))
    }
}

/// For clap: a pod by itself.
pub(crate) fn pod_name(text: &str) -> Result<String, EndpointError> {
    let subdomain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if is_name(text, 253, subdomain) {
        Ok(text.to_owned())
    } else {
        Err(EndpointError::Name(text.to_owned(), "pod", ", - and .", 253))
    }
}

fn is_name(text: &str, longest: usize, allowed: impl Fn(char) -> bool) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= longest && text.chars().all(allowed) && text.starts_with(ends) && text.ends_with(ends)
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, self.port) {
            (Endpoint::Address(IpAddr::V6(address)), Some(_)) => write!(f, "[{address}]")?,
            (endpoint, _) => f.write_str(&endpoint.text("default"))?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.protocol.map_or(Ok(()), |protocol| write!(f, "/{protocol}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, endpoint: &str, port: Option<u16>, protocol: Option<Protocol>) {
        let destination = Destination::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(destination.endpoint.text("default"), endpoint, "{text}");
        assert_eq!((destination.port, destination.protocol), (port, protocol), "{text}");
    }

    #[test]
    fn destinations_in_every_spelling() {
        check("db/pg:5432/tcp", "db/pg", Some(5432), Some(Protocol::TCP));
        check("db/pg:5432", "db/pg", Some(5432), None);
        check("db/pg/UDP", "db/pg", None, Some(Protocol::UDP));
        check("db/pg", "db/pg", None, None);
        check("pg:53/udp", "default/pg", Some(53), Some(Protocol::UDP));
        check("pg", "default/pg", None, None);
        check("10.0.0.7:443/sctp", "10.0.0.7", Some(443), Some(Protocol::SCTP));
        check("10.0.0.7/icmp", "10.0.0.7", None, Some(Protocol::ICMP));
        check("10.0.0.7/47", "10.0.0.7", None, Some(Protocol(47)));
        check("[2001:db8::1]:443/tcp", "2001:db8::1", Some(443), Some(Protocol::TCP));
        check("[2001:db8::1]/icmpv6", "2001:db8::1", None, Some(Protocol::ICMPV6));
        check("[2001:db8::1]", "2001:db8::1", None, None);
        check("2001:db8::1", "2001:db8::1", None, None);
    }

    #[test]
    fn what_is_no_destination_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "is no pod name"),
            ("db/", "is no pod name"),
            ("/pg", "is no namespace name"),
            ("Db/pg", "is no namespace name"),
            ("a/b/c/d", "expected NAMESPACE/POD"),
            ("db/pg:0", "expected a port from 1 to 65535"),
            ("db/pg:65536", "expected a port from 1 to 65535"),
            ("db/pg:http", "expected a port from 1 to 65535"),
            ("db/pg:80/quic", "expected tcp, udp"),
            ("db/pg:80/icmp", "ICMP has no ports"),
            ("2001:db8::1/tcp:80", "found `tcp:80`"),
            ("2001:db8::1:port/tcp", "in brackets"),
            ("[2001:db8::1", "in brackets"),
            ("[2001:db8::1]443", "in brackets"),
            ("[db/pg]:80", "in brackets"),
        ] {
            let error = Destination::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_destination_reads_back_as_it_was_typed() {
        for text in ["db/pg:5432/TCP", "[2001:db8::1]:443/TCP", "10.0.0.7/ICMP", "default/pg"] {
            assert_eq!(Destination::parse(text).unwrap().to_string(), text);
        }
    }
}
