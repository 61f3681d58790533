//! Whether a port entry of a rule matches a flow, and at which ports the answer may change.

use std::collections::BTreeSet;

use super::tiers::Match;
use crate::model::{ContainerPort, PortMatch, Protocol};

/// Where a named port is resolved: the destination of the flow.
#[derive(Clone, Copy)]
pub(crate) enum NamedOn<'a> {
    /// A pod with these container ports.
    Pod(&'a [ContainerPort]),
    /// A pod of which nothing is known: any of its ports may have the name.
    UnknownPod,
    /// A named port of something that is no pod never matches (E-2).
    NoPod,
}

/// `port` `None` means a protocol without ports, which no entry of a rule matches (E-11).
pub(crate) fn matches(term: &PortMatch, on: NamedOn<'_>, protocol: Protocol, port: Option<u16>) -> Match {
    let Some(port) = port else { return Match::No };
    match term {
        PortMatch::Protocol(own) => (*own == protocol).into(),
        PortMatch::Range { protocol: own, first, last } => {
            (*own == protocol && (*first..=*last).contains(&port)).into()
        }
        PortMatch::Named { protocol: own, name } => match on {
            NamedOn::Pod(ports) => resolve(ports, name, *own).any(|found| found == (protocol, port)).into(),
            NamedOn::UnknownPod if own.is_none_or(|own| own == protocol) => Match::Possible,
            NamedOn::UnknownPod | NamedOn::NoPod => Match::No,
        },
    }
}

/// Protocol and number of a named port on a pod: name and protocol must both agree.
pub(crate) fn resolve<'a>(
    ports: &'a [ContainerPort],
    name: &'a str,
    protocol: Option<Protocol>,
) -> impl Iterator<Item = (Protocol, u16)> + 'a {
    ports
        .iter()
        .filter(move |port| port.name == name && protocol.is_none_or(|own| own == port.protocol))
        .map(|port| (port.protocol, port.port))
}

/// First ports of the ranges of one protocol that no rule tells apart. Port 0 is no port.
pub(crate) struct PortBoundaries(BTreeSet<u16>);

impl Default for PortBoundaries {
    fn default() -> Self {
        Self(BTreeSet::from([1]))
    }
}

impl PortBoundaries {
    pub(crate) fn add(&mut self, term: &PortMatch, on: NamedOn<'_>, protocol: Protocol) {
        match term {
            PortMatch::Protocol(_) => {}
            PortMatch::Range { protocol: own, first, last } if *own == protocol => self.add_range(*first, *last),
            PortMatch::Range { .. } => {}
            PortMatch::Named { protocol: own, name } => {
                if let NamedOn::Pod(ports) = on {
                    for (_, port) in resolve(ports, name, *own).filter(|(found, _)| *found == protocol) {
                        self.add_range(port, port);
                    }
                }
            }
        }
    }

    pub(crate) fn add_range(&mut self, first: u16, last: u16) {
        self.0.insert(first.max(1));
        self.0.extend(last.checked_add(1));
    }

    pub(crate) fn into_ports(self) -> Vec<u16> {
        self.0.into_iter().collect()
    }
}

/// Ports on which nodes take VXLAN (the assigned one and Linux's) and Geneve.
const TUNNEL_PORTS: [u16; 3] = [4789, 8472, 6081];
/// IPv4 and IPv6 in IP, GRE, ESP.
const TUNNEL_PROTOCOLS: [u8; 4] = [4, 41, 47, 50];

/// Whether a node may take this for a packet in a packet. A later fragment whose first one was not seen is not: it is never
/// put together.
pub(crate) fn is_tunnel(protocol: Protocol, port: Option<u16>) -> bool {
    match protocol {
        Protocol::UDP => port.is_some_and(|port| TUNNEL_PORTS.contains(&port)),
        Protocol(number) => TUNNEL_PROTOCOLS.contains(&number),
    }
}
