//! The connection to the query service: options, requests, and errors with a remedy.

use std::{env, path::PathBuf, time::Duration};

use clap::Args;
use netverdict_flowlog::answer::ErrorAnswer;
use reqwest::{RequestBuilder, Response, StatusCode, Url, header};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The query service's address and token.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Query service")]
pub(crate) struct ServiceOptions {
    /// Address of the query service
    // The default port of `netverdict-query`; loopback, so that a first run needs no setting.
    #[arg(long, env = "NETVERDICT_SERVER", default_value = "http://127.0.0.1:9480", value_name = "URL", value_parser = server_url)]
    server: Url,
    /// File that holds the query service's token. The variable was NETVERDICT_TOKEN_FILE, which is read if the new one is
    /// not set
    // Where the service writes the secret that it makes at its first start.
    #[arg(
        long,
        env = token_file_variable(),
        default_value = "/var/lib/netverdict/state/query.password",
        value_name = "PATH"
    )]
    token_file: PathBuf,
}

/// Variables are shared by all programs of a host, and the collector has a token file of its own. Who set the former name
/// keeps it.
fn token_file_variable() -> &'static str {
    let former = "NETVERDICT_TOKEN_FILE";
    let only_former = env::var_os(TOKEN_FILE_VARIABLE).is_none() && env::var_os(former).is_some();
    if only_former { former } else { TOKEN_FILE_VARIABLE }
}

fn server_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("expected a URL like http://127.0.0.1:9480: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        scheme => Err(format!("expected http:// or https://, found `{scheme}:`; write http://HOST:PORT")),
    }
}

/// A client of one query service.
#[derive(Debug)]
pub(crate) struct Service {
    client: reqwest::Client,
    server: Url,
    token_file: PathBuf,
    token: String,
}

#[derive(Debug, Error)]
pub(crate) enum ServiceError {
    #[error("cannot read the token file {path}: {reason}\n  {remedy}", path = .path.display())]
    TokenFile { path: PathBuf, reason: std::io::Error, remedy: &'static str },
    #[error(
        "the token file {path} is empty or holds more than one line\n  it has to hold the secret that the query service wrote to its --secret-file",
        path = .path.display()
    )]
    Token { path: PathBuf },
    #[error(
        "the query service at {server} cannot be reached: {reason}\n  start netverdict-query, or name another one with --server or NETVERDICT_SERVER"
    )]
    Unreachable { server: Url, reason: String },
    #[error("the query service at {server} took longer than {} s\n  ask about less time with --since, or for less with --limit", ANSWER_TIMEOUT.as_secs())]
    TimedOut { server: Url },
    #[error(
        "the query service at {server} refused the token of {token_file}\n  name the file that the service was started with (--secret-file) by --token-file or NETVERDICT_SERVER_TOKEN_FILE",
        token_file = .token_file.display()
    )]
    Unauthorized { server: Url, token_file: PathBuf },
    #[error("{}", answer_text(.0))]
    Answer(ErrorAnswer),
    #[error(
        "{server} answered {status}, and not as a query service does: {beginning}\n  check --server; its HTTP port is wanted, 9480 unless set otherwise"
    )]
    NotAService { server: Url, status: StatusCode, beginning: String },
    #[error(
        "{server} answered {status}: the question took too long, or the service behind a proxy is not there\n  ask about less time with --since, or again later"
    )]
    GaveUp { server: Url, status: StatusCode },
    #[error("cannot understand what {server} answered: {reason}\n  its version may be too far from this tool's")]
    NotUnderstood { server: Url, reason: String },
    #[error("{server} answered with more than {} MiB\n  ask for less with --limit or LIMIT", MOST_BYTES >> 20)]
    TooLarge { server: Url },
}

fn answer_text(answer: &ErrorAnswer) -> String {
    match answer.remedy.as_str() {
        "" => answer.message.clone(),
        remedy => format!("{}\n  {remedy}", answer.message),
    }
}

impl ServiceError {
    /// Whether asking again may help: the service is starting, or the network was away.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::GaveUp { .. } => true,
            Self::Answer(answer) => matches!(answer.code.as_str(), "timeout" | "busy" | "internal"),
            Self::TokenFile { .. }
            | Self::Token { .. }
            | Self::Unauthorized { .. }
            | Self::NotAService { .. }
            | Self::NotUnderstood { .. }
            | Self::TooLarge { .. } => false,
        }
    }
}

const TOKEN_FILE_VARIABLE: &str = "NETVERDICT_SERVER_TOKEN_FILE";
const GIVEN_UP: [StatusCode; 3] =
    [StatusCode::GATEWAY_TIMEOUT, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The service gives up on a question long before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// An answer is held in memory whole.
const MOST_BYTES: usize = 256 << 20;

impl Service {
    /// Reads the token; asks nothing yet.
    pub(crate) fn connect(options: &ServiceOptions) -> Result<Self, ServiceError> {
        let ServiceOptions { server, token_file } = options.clone();
        let token = std::fs::read_to_string(&token_file).map_err(|reason| {
            let remedy = match reason.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "run as root, or copy the file to where you may read it and name it with --token-file"
                }
                _ => "start netverdict-query once, which makes it, or name another file with --token-file or NETVERDICT_SERVER_TOKEN_FILE",
            };
            ServiceError::TokenFile { path: token_file.clone(), reason, remedy }
        })?;
        let token = token.trim().to_owned();
        if token.is_empty() || token.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(ServiceError::Token { path: token_file });
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("netverdict/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ServiceError::Unreachable { server: server.clone(), reason: chain(&error) })?;
        Ok(Self { client, server, token_file, token })
    }

    /// Parameters without a value are left out.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, Option<String>)],
    ) -> Result<T, ServiceError> {
        let given: Vec<_> = parameters.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?))).collect();
        self.send(self.client.get(self.url(path)).query(&given)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ServiceError> {
        self.send(self.client.post(self.url(path)).json(body)).await
    }

    /// A server behind a path prefix keeps it.
    fn url(&self, path: &str) -> Url {
        let mut url = self.server.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ServiceError> {
        let response = request
            .bearer_auth(&self.token)
            .header(header::ACCEPT, "application/json")
            .send()
            .await
            .map_err(|error| self.transport(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| ServiceError::NotUnderstood {
                server: self.server.clone(),
                reason: error.to_string(),
            });
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(ServiceError::Unauthorized {
                server: self.server.clone(),
                token_file: self.token_file.clone(),
            });
        }
        match serde_json::from_slice(&body) {
            Ok(answer) => Err(ServiceError::Answer(answer)),
            // A proxy's words, or none.
            Err(_) if GIVEN_UP.contains(&status) => Err(ServiceError::GaveUp { server: self.server.clone(), status }),
            Err(_) => {
                let beginning = String::from_utf8_lossy(&body).chars().take(200).collect();
                Err(ServiceError::NotAService { server: self.server.clone(), status, beginning })
            }
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ServiceError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(&error))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(ServiceError::TooLarge { server: self.server.clone() });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport(&self, error: &reqwest::Error) -> ServiceError {
        // A connection that is not made in time is as good as refused.
        if error.is_timeout() && !error.is_connect() {
            ServiceError::TimedOut { server: self.server.clone() }
        } else {
            ServiceError::Unreachable { server: self.server.clone(), reason: chain(error) }
        }
    }
}

/// The innermost cause: the outer ones repeat the address.
fn chain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
