//! Requests to a Service of the cluster through its API server, as `kubectl proxy` makes them: with a kubeconfig and the
//! right `services/proxy` a client needs no route into the cluster's network.

use std::time::Duration;

use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::{Api, client::Body, core::Status};
use thiserror::Error;
use tokio::time::timeout;

use super::{connect::Connection, error::ClusterError};

/// An API server itself gives up after a minute.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// A port of a Service.
pub struct ServiceProxy {
    connection: Connection,
    namespace: String,
    service: String,
    /// The name of its port.
    port: String,
    /// Spoken between API server and pod.
    scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    /// The API server does not check the certificate: it speaks to an address that it knows itself.
    Https,
}

/// The answer of the Service.
#[derive(Debug)]
pub struct ProxiedAnswer {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

#[derive(Debug, Error)]
pub enum ProxyError {
    /// The API server is not reached, or does not let us.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the cluster has no Service {namespace}/{service}")]
    NoService { namespace: String, service: String },
    #[error("no pod of Service {namespace}/{service} answers: {reason}")]
    NoAnswer { namespace: String, service: String, reason: String },
    #[error("the answer has more than {} MiB", most >> 20)]
    TooLarge { most: usize },
    #[error("no answer within {} s", ANSWER_WITHIN.as_secs())]
    TimedOut,
}

impl ServiceProxy {
    pub fn new(connection: Connection, namespace: &str, service: &str, port: &str, scheme: Scheme) -> Self {
        let (namespace, service, port) = (namespace.to_owned(), service.to_owned(), port.to_owned());
        Self { connection, namespace, service, port, scheme }
    }

    /// Sends a request, whose path begins with a slash. An API server takes the header `Authorization` for itself.
    ///
    /// # Errors
    /// No pod of the Service has answered. An answer with an error status is no error here.
    pub async fn send(&self, request: Request<Vec<u8>>, most: usize) -> Result<ProxiedAnswer, ProxyError> {
        match timeout(ANSWER_WITHIN, self.exchange(request, most)).await {
            Ok(answer) => answer,
            Err(_) => Err(ProxyError::TimedOut),
        }
    }

    async fn exchange(&self, request: Request<Vec<u8>>, most: usize) -> Result<ProxiedAnswer, ProxyError> {
        let Self { connection, namespace, service, port, scheme } = self;
        let asking = |error| ClusterError::asking(&connection.server, &self.doing(), error);
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("/api/v1/namespaces/{namespace}/services/{}:{service}:{port}/proxy{path}", scheme.as_str());
        parts.uri = uri.parse().map_err(|error: http::uri::InvalidUri| asking(kube::Error::HttpError(error.into())))?;
        let response = connection.client.send(Request::from_parts(parts, Body::from(body))).await.map_err(asking)?;
        let status = response.status();
        let is_json =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let mut answer = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = answer.frame().await {
            let Ok(data) = frame.map_err(asking)?.into_data() else { continue };
            if body.len() + data.len() > most {
                return Err(ProxyError::TooLarge { most });
            }
            body.extend_from_slice(&data);
        }
        match serde_json::from_slice::<Said>(&body) {
            Ok(Said { kind }) if is_json && !status.is_success() && kind == "Status" => {
                Err(self.refused(status, &body))
            }
            _ => Ok(ProxiedAnswer { status, body }),
        }
    }

    /// The API server's own answer.
    fn refused(&self, status: StatusCode, body: &[u8]) -> ProxyError {
        let (namespace, service) = (self.namespace.clone(), self.service.clone());
        let mut said: Status = serde_json::from_slice(body).unwrap_or_default();
        said.code = status.as_u16();
        match status {
            StatusCode::NOT_FOUND => ProxyError::NoService { namespace, service },
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => {
                ProxyError::NoAnswer { namespace, service, reason: said.message }
            }
            _ => ClusterError::asking(&self.connection.server, &self.doing(), kube::Error::Api(said.boxed())).into(),
        }
    }

    fn doing(&self) -> String {
        format!("ask Service {}/{} (get and create on services/proxy)", self.namespace, self.service)
    }
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The kind of an object of the API.
#[derive(serde::Deserialize)]
struct Said {
    kind: String,
}

/// A value of a Secret; `None` if there is no such Secret, or no such key in it.
///
/// # Errors
/// The API server is not reached, or does not let us.
pub async fn secret_value(
    connection: &Connection,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<Vec<u8>>, ClusterError> {
    let secrets: Api<Secret> = Api::namespaced(connection.client.clone(), namespace);
    let doing = format!("get secret {namespace}/{name}");
    let secret = secrets.get_opt(name).await;
    let secret = secret.map_err(|error| ClusterError::asking(&connection.server, &doing, error))?;
    Ok(secret.and_then(|secret| secret.data?.remove(key)).map(|value| value.0))
}

/// How the named port of a Service speaks, by its `appProtocol`; HTTP where the Service, or the right to read it, is missing:
/// a request then says what is wrong.
///
/// # Errors
/// The API server is not reached.
pub async fn service_scheme(
    connection: &Connection,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<Scheme, ClusterError> {
    let services: Api<Service> = Api::namespaced(connection.client.clone(), namespace);
    let doing = format!("get service {namespace}/{name}");
    let service = match services.get_opt(name).await {
        Ok(service) => service,
        Err(error) => match ClusterError::asking(&connection.server, &doing, error) {
            ClusterError::Forbidden { .. } => None,
            error => return Err(error),
        },
    };
    let ports = service.and_then(|service| service.spec?.ports).unwrap_or_default();
    let found = ports.into_iter().find(|known| known.name.as_deref() == Some(port));
    let is_https = found.is_some_and(|port| port.app_protocol.as_deref() == Some("https"));
    Ok(if is_https { Scheme::Https } else { Scheme::Http })
}
