//! Parameters of questions: times, ends, protocols. Parsing only.

use std::{fmt, net::IpAddr, time::Duration};

use chrono::{DateTime, Utc};
use netverdict_policy::{ObjectKey, model::Protocol};
use netverdict_service::quantity::duration;

use crate::QueryError;

/// An end of a flow, as a question names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Pod(ObjectKey),
    Address(IpAddr),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => key.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// `namespace/pod`, an address, or an IPv6 address in brackets.
///
/// # Errors
/// Names the expected form of the parameter `name`.
pub fn end(name: &str, text: &str) -> Result<Asked, QueryError> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Asked::Address(address.to_canonical()));
    }
    match text.split_once('/') {
        Some((namespace, pod)) if is_name(namespace) && is_name(pod) => Ok(Asked::Pod(ObjectKey::new(namespace, pod))),
        _ => Err(QueryError::BadRequest {
            message: format!("{name} is `{}`", shortened(text)),
            remedy: format!("expected {name} as namespace/pod or as an address"),
        }),
    }
}

fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
}

/// A protocol's name or number; empty is any.
///
/// # Errors
/// Names the expected values.
pub fn protocol(text: &str) -> Result<Option<Protocol>, QueryError> {
    let text = text.trim();
    Ok(Some(match text.to_ascii_uppercase().as_str() {
        "" | "ANY" => return Ok(None),
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        "ICMP" => Protocol::ICMP,
        "ICMPV6" => Protocol::ICMPV6,
        _ => Protocol(text.parse().map_err(|_| QueryError::BadRequest {
            message: format!("protocol is `{}`", shortened(text)),
            remedy: "expected tcp, udp, sctp, icmp, icmpv6 or a protocol number".into(),
        })?),
    }))
}

/// The time asked about: from `since` (a length of time before its end, or a time) to `at` (a time; now if empty).
///
/// # Errors
/// Names the expected form, or says that the range is empty.
pub fn range(
    since: &str,
    at: &str,
    usual: Duration,
    now: DateTime<Utc>,
) -> Result<(DateTime<Utc>, DateTime<Utc>), QueryError> {
    let to = match at.trim() {
        "" | "now" => now,
        text => time("at", text)?,
    };
    let from = match since.trim() {
        "" => before(to, usual),
        text => match duration(text) {
            Ok(length) => before(to, length),
            Err(_) => time("since", text)?,
        },
    };
    if from > to {
        return Err(QueryError::BadRequest {
            message: format!("the time asked about ends at {to}, before it begins at {from}"),
            remedy: "choose an earlier since or a later at".into(),
        });
    }
    Ok((from, to))
}

fn before(to: DateTime<Utc>, length: Duration) -> DateTime<Utc> {
    chrono::Duration::from_std(length)
        .ok()
        .and_then(|length| to.checked_sub_signed(length))
        .unwrap_or(DateTime::UNIX_EPOCH)
}

fn time(name: &str, text: &str) -> Result<DateTime<Utc>, QueryError> {
    // In a query string a plus sign means a blank.
    let fixed = text.replace(' ', "+");
    DateTime::parse_from_rfc3339(&fixed)
        .or_else(|_| DateTime::parse_from_rfc3339(text))
        .map(|time| time.to_utc())
        .map_err(|_| QueryError::BadRequest {
            message: format!("{name} is `{}`", shortened(text)),
            remedy: format!(
                "expected {name} as a time such as 2026-11-21T09:30:00Z{}",
                if name == "since" { ", or a length of time such as 15m" } else { "" }
            ),
        })
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_pods_or_addresses() {
        assert_eq!(end("source", "shop/web").ok(), Some(Asked::Pod(ObjectKey::new("shop", "web"))));
        assert_eq!(end("source", "pod/shop/web").ok(), None);
        assert_eq!(end("source", "10.0.0.7").ok(), Some(Asked::Address(IpAddr::from([10, 0, 0, 7]))));
        assert_eq!(end("source", "::ffff:10.0.0.7").ok(), Some(Asked::Address(IpAddr::from([10, 0, 0, 7]))));
        assert_eq!(end("source", "[2001:db8::1]").ok().map(|end| end.to_string()), Some("2001:db8::1".into()));
        for text in ["", "web", "shop/", "/web", "shop/web/x", "shop/we'b", "Shop/web", "300.1.1.1"] {
            let error = end("source", text).expect_err(text);
            assert_eq!(
                (error.code(), error.remedy()),
                ("bad-request", "expected source as namespace/pod or as an address")
            );
        }
    }

    #[test]
    fn a_range_ends_at_at_and_begins_since() {
        let now = DateTime::from_timestamp(1_000_000, 0).expect("a time");
        let usual = Duration::from_secs(900);
        let minutes = chrono::Duration::minutes;
        assert_eq!(range("", "", usual, now).ok(), Some((now - minutes(15), now)));
        assert_eq!(range("1h", "", usual, now).ok(), Some((now - minutes(60), now)));
        let at = "1970-01-05T00:00:00+01:00";
        let to = DateTime::from_timestamp(4 * 86_400 - 3_600, 0).expect("a time");
        assert_eq!(range("5m", at, usual, now).ok(), Some((to - minutes(5), to)));
        assert_eq!(range("5m", &at.replace('+', " "), usual, now).ok(), Some((to - minutes(5), to)));
        assert!(range(at, "1970-01-01T00:00:00Z", usual, now).is_err());
        assert!(range("yesterday", "", usual, now).is_err());
    }

    #[test]
    fn protocols_have_names_and_numbers() {
        assert_eq!(protocol("").ok(), Some(None));
        assert_eq!(protocol("tcp").ok(), Some(Some(Protocol::TCP)));
        assert_eq!(protocol("47").ok(), Some(Some(Protocol(47))));
        assert!(protocol("tpc").is_err() && protocol("256").is_err());
    }
}
