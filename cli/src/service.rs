//! The connection to the query service: requests, and errors with a remedy. The service is at a URL, or a Service of a
//! cluster that is asked through its API server.

mod connection;
mod options;

use std::path::PathBuf;

use netverdict_cluster::kubernetes::{ClusterError, ProxyError};
use netverdict_flowlog::answer::ErrorAnswer;
use reqwest::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use self::connection::{ANSWER_TIMEOUT, Answer, Connection, MOST_BYTES};
pub(crate) use self::options::{ServiceOptions, USUAL_SERVICE};

/// A client of one query service.
pub(crate) struct Service(Connection);

#[derive(Debug, Error)]
pub(crate) enum ServiceError {
    #[error("cannot read the token file {path}: {reason}\n  {remedy}", path = .path.display())]
    TokenFile { path: PathBuf, reason: std::io::Error, remedy: &'static str },
    #[error(
        "the token of {from} is empty or has more than one line\n  it has to be the secret of the query service (--secret-file)"
    )]
    Token { from: String },
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
            "ask for a role with get and create on services/proxy and get on the Secret, or name a token with --token-file"
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
            | Self::NoSecret { .. }
            | Self::Unauthorized { .. }
            | Self::NotAService { .. }
            | Self::NotUnderstood { .. }
            | Self::TooLarge { .. } => false,
        }
    }
}

const GIVEN_UP: [StatusCode; 3] =
    [StatusCode::GATEWAY_TIMEOUT, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];

impl Service {
    /// Reads the token; asks the service nothing yet.
    pub(crate) async fn connect(options: &ServiceOptions) -> Result<Self, ServiceError> {
        Connection::open(options.place()).await.map(Self)
    }

    /// Parameters without a value are left out.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, Option<String>)],
    ) -> Result<T, ServiceError> {
        let given: Vec<_> = parameters.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?))).collect();
        self.read(self.0.get(path, &given).await?)
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ServiceError> {
        let body = serde_json::to_vec(body).map_err(|error| self.not_understood(&error))?;
        self.read(self.0.post(path, body).await?)
    }

    fn read<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, ServiceError> {
        let Answer { status, body } = answer;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.not_understood(&error));
        }
        let server = self.0.name();
        if status == StatusCode::UNAUTHORIZED {
            return Err(ServiceError::Unauthorized { server, from: self.0.token_from() });
        }
        match serde_json::from_slice(&body) {
            Ok(answer) => Err(ServiceError::Answer(answer)),
            // A proxy's words, or none.
            Err(_) if GIVEN_UP.contains(&status) => Err(ServiceError::GaveUp { server, status }),
            Err(_) => {
                let beginning = String::from_utf8_lossy(&body).chars().take(200).collect();
                Err(ServiceError::NotAService { server, status, beginning })
            }
        }
    }

    fn not_understood(&self, error: &serde_json::Error) -> ServiceError {
        ServiceError::NotUnderstood { server: self.0.name(), reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests;
