//! A connection that a suite has tried, with what the policies ask for.

use std::fmt;

use serde::Deserialize;

/// Pods and policies are `namespace/name`.
#[derive(Debug, Deserialize)]
pub(super) struct Probe {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) expected: String,
    pub(super) observed: String,
    /// Sent to a Service that does not choose the pod, where it ends whatever the policies say.
    #[serde(default)]
    pub(super) unserved: bool,
    /// The policies that deny it, by direction.
    #[serde(default)]
    pub(super) egress: Vec<String>,
    #[serde(default)]
    pub(super) ingress: Vec<String>,
}

impl Probe {
    /// Where it is denied first, and by which policies; `None` if it is allowed.
    pub(super) fn denial(&self) -> Option<(&'static str, &[String])> {
        match (self.egress.as_slice(), self.ingress.as_slice()) {
            ([], []) => None,
            ([], ingress) => Some(("ingress", ingress)),
            (egress, _) => Some(("egress", egress)),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, host, port, protocol, .. } = self;
        write!(f, "{from} to {to} ({host}) port {port}/{protocol}")
    }
}
