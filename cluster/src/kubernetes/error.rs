//! Why a cluster cannot be read. The remedy depends on the caller, so it is not part of these messages.

use std::error::Error;

use kube::config::{InClusterError, KubeconfigError};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ClusterError {
    #[error("no cluster to read: {0}")]
    Kubeconfig(#[source] KubeconfigError),
    #[error("no cluster to read: {0}")]
    InCluster(#[source] InClusterError),
    #[error("the kubeconfig has no context `{context}`; expected one of {known}")]
    UnknownContext { context: String, known: String },
    #[error("the API server {server} refused our credentials")]
    Credentials { server: String },
    #[error("may not {doing}: {message}")]
    Forbidden { doing: String, message: String },
    #[error("the API server {server} did not {doing}: {message}")]
    Refused { server: String, doing: String, message: String },
    #[error("cannot reach the API server {server}: {reason}")]
    Unreachable { server: String, reason: String },
    #[error("an object among {plural} cannot be read: {source}")]
    Object { plural: String, source: serde_json::Error },
}

impl ClusterError {
    /// The error of a request to an API server.
    pub(super) fn asking(server: &str, doing: &str, source: kube::Error) -> Self {
        let (server, doing) = (server.trim_end_matches('/').to_owned(), doing.to_owned());
        match source {
            kube::Error::Api(status) => match status.code {
                401 => Self::Credentials { server },
                403 => Self::Forbidden { doing, message: status.message },
                _ => Self::Refused { server, doing, message: status.message },
            },
            kube::Error::Service(source) => Self::Unreachable { server, reason: innermost(source.as_ref()) },
            kube::Error::HyperError(source) => Self::Unreachable { server, reason: innermost(&source) },
            other => Self::Refused { server, doing, message: innermost(&other) },
        }
    }
}

/// The client wraps its errors several times; the innermost names the cause.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
