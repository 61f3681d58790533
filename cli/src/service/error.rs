//! Why the query service has not answered, with the remedy.

use std::{path::PathBuf, time::Duration};

use netverdict_cluster::kubernetes::{ClusterError, ProxyError};
use netverdict_flowlog::answer::ErrorAnswer;
use reqwest::StatusCode;
use thiserror::Error;

/// The service gives up on a question long before.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// An answer is held in memory whole.
pub(super) const MOST_BYTES: usize = 256 << 20;

#[derive(Debug, Error)]
pub(crate) enum ServiceError {
    #[error("cannot read the token file {path}: {reason}\n  {remedy}", path = .path.display())]
    TokenFile { path: PathBuf, reason: std::io::Error, remedy: &'static str },
    #[error(
        "the token of {from} is empty or has more than one line\n  it has to be the secret of the query service (--secret-file)"
    )]
    Token { from: String },
    #[error(
        "the certificates of {path} cannot be used: {reason}\n  name the file of the authority that signed the server's certificate with --ca-file",
        path = .path.display()
    )]
    Authority { path: PathBuf, reason: String },
    #[error(
        "there is no {from} with the key {key}\n  name the release's Service with --service, or a file that holds the token with --token-file"
    )]
    NoSecret { from: String, key: &'static str },
    #[error(
        "the query service at {server} cannot be reached: {reason}\n  start netverdict-query, or name another one with --server or NETVERDICT_SERVER; --service asks one in a cluster"
    )]
    Unreachable { server: String, reason: String },
    #[error("{}", proxy_text(.0))]
    Proxy(ProxyError),
    #[error("the query service at {server} took longer than {} s\n  ask about less time with --since, or for less with --limit", ANSWER_TIMEOUT.as_secs())]
    TimedOut { server: String },
    #[error(
        "the query service at {server} refused the token of {from}\n  name the file that the service was started with (--secret-file) by --token-file or NETVERDICT_SERVER_TOKEN_FILE"
    )]
    Unauthorized { server: String, from: String },
    #[error("{}", answer_text(.0))]
    Answer(ErrorAnswer),
    #[error(
        "{server} answered {status}, and not as a query service does: {beginning}\n  check --server; its HTTP port is wanted, 9480 unless set otherwise"
    )]
    NotAService { server: String, status: StatusCode, beginning: String },
    #[error(
        "{server} answered {status}: the question took too long, or the service behind a proxy is not there\n  ask about less time with --since, or again later"
    )]
    GaveUp { server: String, status: StatusCode },
    #[error("cannot understand what {server} answered: {reason}\n  its version may be too far from this tool's")]
    NotUnderstood { server: String, reason: String },
    #[error("{server} answered with more than {} MiB\n  ask for less with --limit or LIMIT", MOST_BYTES >> 20)]
    TooLarge { server: String },
}

fn answer_text(answer: &ErrorAnswer) -> String {
    match answer.remedy.as_str() {
        "" => answer.message.clone(),
        remedy => format!("{}\n  {remedy}", answer.message),
    }
}

/// With the remedy.
fn proxy_text(error: &ProxyError) -> String {
    let remedy = match error {
        ProxyError::NoService { .. } => "name the release's Service with --service, or another cluster with --context",
        ProxyError::NoAnswer { .. } => "`kubectl -n NAMESPACE get pods` shows whether its pods are ready",
        ProxyError::Cluster(ClusterError::Forbidden { .. }) => {
            "ask for the role NAME-reader of the release (get and create on services/proxy, get on the Service and the Secret)"
        }
        ProxyError::Cluster(ClusterError::Credentials { .. }) => {
            "log in to the cluster again, or choose another one with --context"
        }
        ProxyError::Cluster(ClusterError::Kubeconfig(_) | ClusterError::InCluster(_)) => {
            "name a kubeconfig with --kubeconfig or KUBECONFIG, or a service outside of a cluster with --server"
        }
        ProxyError::Cluster(ClusterError::Unreachable { .. }) => {
            "is it the right cluster? `kubectl config get-contexts` lists them, --context chooses"
        }
        _ => return error.to_string(),
    };
    format!("{error}\n  {remedy}")
}

impl ServiceError {
    /// Whether asking again may help: the service is starting, or the network was away.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::GaveUp { .. } => true,
            Self::Proxy(error) => matches!(
                error,
                ProxyError::NoAnswer { .. }
                    | ProxyError::Cluster(ClusterError::Unreachable { .. } | ClusterError::Refused { .. })
            ),
            Self::Answer(answer) => matches!(answer.code.as_str(), "timeout" | "busy" | "internal"),
            Self::TokenFile { .. }
            | Self::Token { .. }
            | Self::Authority { .. }
            | Self::NoSecret { .. }
            | Self::Unauthorized { .. }
            | Self::NotAService { .. }
            | Self::NotUnderstood { .. }
            | Self::TooLarge { .. } => false,
        }
    }
}
