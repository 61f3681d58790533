//! Why a cluster could not be read, and what to do about it.

use std::error::Error;

use kube::config::{InClusterError, KubeconfigError};
use thiserror::Error;

/// What a role needs so that its holders can ask us about a whole cluster.
const RIGHTS: &str = "list on pods, namespaces, nodes, services and the network policies of all namespaces";

#[derive(Debug, Error)]
pub(crate) enum ClusterError {
    #[error("no cluster to read: {0}\n  name manifests with -f, or a kubeconfig with --kubeconfig or KUBECONFIG")]
    Kubeconfig(#[source] KubeconfigError),
    #[error("no cluster to read: {0}\n  the pod's service account has to be mounted, or name manifests with -f")]
    InCluster(#[source] InClusterError),
    #[error("the kubeconfig has no context `{context}`\n  it has {known}")]
    UnknownContext { context: String, known: String },
    #[error(
        "the API server {server} refused our credentials\n  log in to the cluster again, or choose another one with --context"
    )]
    Credentials { server: String },
    #[error("may not {doing}: {message}\n  ask for a role with {RIGHTS}, or name manifests with -f")]
    Forbidden { doing: String, message: String },
    #[error("the API server {server} did not {doing}: {message}")]
    Refused { server: String, doing: String, message: String },
    #[error(
        "cannot reach the API server {server}: {reason}\n  is it the right cluster? `kubectl config get-contexts` lists them, --context chooses"
    )]
    Unreachable { server: String, reason: String },
    #[error("an object among {plural} cannot be read: {source}")]
    Object { plural: String, source: serde_json::Error },
}

impl ClusterError {
    /// What went wrong between us and an API server that was to do something for us.
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

/// The clients' errors are wrapped several times; the innermost says what happened.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
