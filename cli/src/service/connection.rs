//! One way to the query service or the other: the request goes out with the token, the answer comes back as bytes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Method, Request, Uri};
use netverdict_cluster::kubernetes::{ClusterError, ProxyError, ServiceProxy, secret_value, service_scheme};
use netverdict_flowlog::answer::PROXIED_AUTHORIZATION;
use reqwest::{Certificate, Client, ClientBuilder, StatusCode, Url, header};

use super::{
    error::{ANSWER_TIMEOUT, MOST_BYTES, ServiceError},
    options::{ServiceName, Target},
};
use crate::cluster::ClusterOptions;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The name of the Service's port, and the key of the release's Secret.
const HTTP_PORT: &str = "http";
const TOKEN_KEY: &str = "query.password";
const JSON: &str = "application/json";

pub(super) enum Connection {
    Direct { client: Client, server: Url, token: Token },
    Proxied { proxy: ServiceProxy, name: String, token: Token },
}

/// The token, and where it is from.
pub(super) struct Token {
    text: String,
    from: String,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl Connection {
    /// Reads the token; asks the service nothing yet.
    pub(super) async fn open(target: Target) -> Result<Self, ServiceError> {
        match target {
            Target::At { server, ca_file, token_file } => {
                let token = Token::of_file(&token_file)?;
                let mut builder = Client::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .timeout(ANSWER_TIMEOUT)
                    .user_agent(concat!("netverdict/", env!("CARGO_PKG_VERSION")));
                if let Some(file) = ca_file {
                    builder = trusting(builder, &file)?;
                }
                let client = builder.build().map_err(|error| unreachable(&server, &error))?;
                Ok(Self::Direct { client, server, token })
            }
            Target::In { cluster, service, token_file } => Self::open_in(&cluster, service, token_file).await,
        }
    }

    async fn open_in(
        cluster: &ClusterOptions,
        service: ServiceName,
        token_file: Option<PathBuf>,
    ) -> Result<Self, ServiceError> {
        let connection = cluster.access().connect().await?;
        let ServiceName { namespace, name } = &service;
        let token = match token_file {
            Some(file) => Token::of_file(&file)?,
            None => {
                let secret = service.secret();
                let from = format!("Secret {namespace}/{secret}");
                match secret_value(&connection, namespace, secret, TOKEN_KEY).await? {
                    Some(value) => Token::new(String::from_utf8_lossy(&value).into_owned(), from)?,
                    None => return Err(ServiceError::NoSecret { from, key: TOKEN_KEY }),
                }
            }
        };
        let scheme = service_scheme(&connection, namespace, name, HTTP_PORT).await?;
        let proxy = ServiceProxy::new(connection, namespace, name, HTTP_PORT, scheme);
        Ok(Self::Proxied { proxy, name: format!("Service {namespace}/{name}"), token })
    }

    /// The service, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Direct { server, .. } => server.to_string(),
            Self::Proxied { name, .. } => name.clone(),
        }
    }

    /// Where the token is from.
    pub(super) fn token_from(&self) -> String {
        let (Self::Direct { token, .. } | Self::Proxied { token, .. }) = self;
        token.from.clone()
    }

    pub(super) async fn get(&self, path: &str, parameters: &[(&str, &String)]) -> Result<Answer, ServiceError> {
        match self {
            Self::Direct { client, server, .. } => self.direct(client.get(below(server, path)).query(parameters)).await,
            Self::Proxied { .. } => {
                // The parser of URLs writes parameters as they have to be.
                let mut url = Url::parse("http://service").map_err(|error| self.not_understood(&error))?;
                url.set_path(path);
                url.query_pairs_mut().extend_pairs(parameters);
                let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
                self.proxied(Method::GET, &path, Vec::new()).await
            }
        }
    }

    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Result<Answer, ServiceError> {
        match self {
            Self::Direct { client, server, .. } => {
                self.direct(client.post(below(server, path)).header(header::CONTENT_TYPE, JSON).body(body)).await
            }
            Self::Proxied { .. } => self.proxied(Method::POST, path, body).await,
        }
    }

    async fn direct(&self, request: reqwest::RequestBuilder) -> Result<Answer, ServiceError> {
        let Self::Direct { server, token, .. } = self else { return Err(self.not_understood(&"no server")) };
        let request = request.bearer_auth(&token.text).header(header::ACCEPT, JSON);
        let mut response = request.send().await.map_err(|error| transport(server, &error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| transport(server, &error))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(ServiceError::TooLarge { server: self.name() });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    async fn proxied(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, ServiceError> {
        let Self::Proxied { proxy, token, .. } = self else { return Err(self.not_understood(&"no Service")) };
        let uri: Uri = path.parse().map_err(|error| self.not_understood(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::ACCEPT, JSON)
            .header(header::CONTENT_TYPE, JSON)
            .header(PROXIED_AUTHORIZATION, format!("Bearer {}", token.text))
            .body(body)
            .map_err(|error| self.not_understood(&error))?;
        match proxy.send(request, MOST_BYTES).await {
            Ok(answer) => Ok(Answer { status: answer.status, body: answer.body }),
            Err(ProxyError::TooLarge { .. }) => Err(ServiceError::TooLarge { server: self.name() }),
            Err(ProxyError::TimedOut) => Err(ServiceError::TimedOut { server: self.name() }),
            Err(error) => Err(ServiceError::Proxy(error)),
        }
    }

    fn not_understood(&self, error: &dyn std::fmt::Display) -> ServiceError {
        ServiceError::NotUnderstood { server: self.name(), reason: error.to_string() }
    }
}

impl Token {
    fn of_file(path: &Path) -> Result<Self, ServiceError> {
        let text = std::fs::read_to_string(path).map_err(|reason| {
            let remedy = match reason.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "run as root, or copy the file to where you may read it and name it with --token-file"
                }
                _ => {
                    "start netverdict-query once, which makes it, or name another file with --token-file or \
                     NETVERDICT_SERVER_TOKEN_FILE; --service asks a service in a cluster"
                }
            };
            ServiceError::TokenFile { path: path.to_owned(), reason, remedy }
        })?;
        Self::new(text, path.display().to_string())
    }

    fn new(text: String, from: String) -> Result<Self, ServiceError> {
        let text = text.trim().to_owned();
        if text.is_empty() || text.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(ServiceError::Token { from });
        }
        Ok(Self { text, from })
    }
}

impl From<ClusterError> for ServiceError {
    fn from(error: ClusterError) -> Self {
        Self::Proxy(error.into())
    }
}

/// No authority but those of this file.
fn trusting(builder: ClientBuilder, file: &Path) -> Result<ClientBuilder, ServiceError> {
    let unusable = |reason: String| ServiceError::Authority { path: file.to_owned(), reason };
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("no PEM block `CERTIFICATE` is in it".to_owned()));
    }
    Ok(certificates.into_iter().fold(builder.tls_built_in_root_certs(false), ClientBuilder::add_root_certificate))
}

/// A server behind a path prefix keeps it.
fn below(server: &Url, path: &str) -> Url {
    let mut url = server.clone();
    let prefix = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{prefix}{path}"));
    url
}

fn transport(server: &Url, error: &reqwest::Error) -> ServiceError {
    // A connection that is not made in time is as good as refused.
    if error.is_timeout() && !error.is_connect() {
        ServiceError::TimedOut { server: server.to_string() }
    } else {
        unreachable(server, error)
    }
}

fn unreachable(server: &Url, error: &reqwest::Error) -> ServiceError {
    // The innermost cause: the outer ones repeat the address.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    ServiceError::Unreachable { server: server.to_string(), reason: cause.to_string() }
}
