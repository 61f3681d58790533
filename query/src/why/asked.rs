//! The parameters of `GET /v1/why`, and the question that they are.

use std::time::Duration;

use chrono::{DateTime, Utc};
use netverdict_policy::model::Protocol;
use serde::Deserialize;

use crate::{
    QueryError,
    question::{self, Asked},
};

const USUAL: Duration = Duration::from_secs(15 * 60);
/// How far ahead the clock of a client may be.
const AHEAD: Duration = Duration::from_secs(60);

/// The parameters of the URL.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// `namespace/pod` or an address.
    pub source: String,
    pub destination: String,
    /// Destination port; any if not given.
    pub port: Option<u16>,
    /// Name or number; any if empty.
    pub protocol: String,
    /// Begin of the time: a length of time before its end (15m), or a time.
    pub since: String,
    /// End of the time; now if empty.
    pub at: String,
}

/// A question whose parameters are understood.
#[derive(Clone, Debug)]
pub struct Question {
    pub source: Asked,
    pub destination: Asked,
    pub port: Option<u16>,
    pub protocol: Option<Protocol>,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

impl Question {
    /// # Errors
    /// Names the parameter that is not as expected.
    pub fn of(parameters: &Parameters, now: DateTime<Utc>) -> Result<Self, QueryError> {
        let Parameters { source, destination, port, protocol, since, at } = parameters;
        let (from, to) = question::range(since, at, USUAL, now)?;
        if to > now + AHEAD {
            return Err(QueryError::BadRequest {
                message: format!("the time asked about, {}, has not come yet", to.format("%Y-%m-%d %H:%M:%S UTC")),
                remedy: "leave at out to ask about now".into(),
            });
        }
        let protocol = question::protocol(protocol)?;
        if let (Some(port), Some(protocol)) = (port, protocol.filter(|protocol| !protocol.has_ports())) {
            return Err(QueryError::BadRequest {
                message: format!("port {port} is asked about with {protocol}, which has none"),
                remedy: "leave the port out, or ask about tcp, udp or sctp".into(),
            });
        }
        Ok(Self {
            source: question::end("source", source)?,
            destination: question::end("destination", destination)?,
            port: port.filter(|port| *port != 0),
            protocol,
            from,
            to,
            now,
        })
    }
}
