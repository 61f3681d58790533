//! A question to the evaluator: a flow, and the point where it is evaluated.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    address,
    model::{Direction, ObjectKey, Protocol},
};

/// One end of a flow. An address that a pod, a node or a Service of the snapshot owns stands for its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Pod(ObjectKey),
    Address(IpAddr),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => key.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    #[default]
    V4,
    V6,
}

impl Family {
    /// An IPv4 address mapped into IPv6 is IPv4.
    pub fn of(address: IpAddr) -> Self {
        match address::canonical(address) {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A flow in its original direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    pub source: End,
    pub destination: End,
    pub protocol: Protocol,
    /// Destination port. `None`: the protocol has no ports, or this is a fragment whose ports are not known.
    pub port: Option<u16>,
    /// Chooses among the addresses of pods. The family of an end that is an address goes before it.
    pub family: Family,
}

/// Where a flow is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointName {
    SourceEgress,
    DestinationIngress,
}

impl PointName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceEgress => "source-egress",
            Self::DestinationIngress => "destination-ingress",
        }
    }

    /// Seen from the subject.
    pub const fn direction(self) -> Direction {
        match self {
            Self::SourceEgress => Direction::Egress,
            Self::DestinationIngress => Direction::Ingress,
        }
    }
}

impl fmt::Display for PointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
