//! Where the query service is, as the user says it.

use std::{env, path::PathBuf, str::FromStr};

use clap::Args;
use reqwest::Url;

use crate::cluster::ClusterOptions;

/// The query service's address and token.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Query service")]
pub(crate) struct ServiceOptions {
    /// Address of the query service [default: the Service of --service, or else http://127.0.0.1:9480]
    #[arg(long, env = "NETVERDICT_SERVER", value_name = "URL", value_parser = server_url)]
    pub(super) server: Option<Url>,
    /// Service of a cluster to ask through its API server, which takes the right `services/proxy` there. With --kubeconfig or
    /// --context the default is netverdict/netverdict-query
    #[arg(long, env = "NETVERDICT_SERVICE", value_name = "NAMESPACE/NAME")]
    pub(super) service: Option<ServiceName>,
    /// Certificates (PEM) of the authority that the certificate of --server is checked with, instead of the system's
    #[arg(long, env = "NETVERDICT_SERVER_CA_FILE", value_name = "PATH")]
    pub(super) ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    /// File that holds the query service's token [default: /var/lib/netverdict/state/query.password; in a cluster the Secret
    /// of the release]. The variable was NETVERDICT_TOKEN_FILE, which is read if the new one is not set
    #[arg(long, env = token_file_variable(), value_name = "PATH")]
    pub(super) token_file: Option<PathBuf>,
}

/// The Service that the chart makes, and the Secret beside it.
pub(crate) const USUAL_SERVICE: &str = "netverdict/netverdict-query";
const USUAL_SERVER: &str = "http://127.0.0.1:9480";
/// Where the service writes the secret that it makes at its first start.
const USUAL_TOKEN_FILE: &str = "/var/lib/netverdict/state/query.password";
const TOKEN_FILE_VARIABLE: &str = "NETVERDICT_SERVER_TOKEN_FILE";
/// The chart's name for the Service is that of the release, with this.
const OF_QUERY: &str = "-query";

/// A Service, as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceName {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Where to ask.
#[derive(Debug)]
pub(super) enum Target {
    At {
        server: Url,
        ca_file: Option<PathBuf>,
        token_file: PathBuf,
    },
    /// Without a file the token is that of the release's Secret.
    In {
        cluster: ClusterOptions,
        service: ServiceName,
        token_file: Option<PathBuf>,
    },
}

impl ServiceOptions {
    pub(super) fn target(&self) -> Target {
        let Self { server, service, ca_file, cluster, token_file } = self.clone();
        match (server, service) {
            (None, service) if service.is_some() || cluster.is_named() => {
                Target::In { cluster, service: service.unwrap_or_else(ServiceName::usual), token_file }
            }
            (server, _) => Target::At {
                server: server.unwrap_or_else(|| server_url(USUAL_SERVER).expect("it is a URL")),
                ca_file,
                token_file: token_file.unwrap_or_else(|| PathBuf::from(USUAL_TOKEN_FILE)),
            },
        }
    }
}

impl ServiceName {
    fn usual() -> Self {
        USUAL_SERVICE.parse().expect("it is a name")
    }

    /// The Secret that the chart makes for it.
    pub(super) fn secret(&self) -> &str {
        self.name.strip_suffix(OF_QUERY).unwrap_or(&self.name)
    }
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("expected NAMESPACE/NAME as in {USUAL_SERVICE}")),
        }
    }
}

/// Variables are shared by all programs of a host, and the collector has a token file of its own. Who set the former name
/// keeps it.
fn token_file_variable() -> &'static str {
    let former = "NETVERDICT_TOKEN_FILE";
    let only_former = env::var_os(TOKEN_FILE_VARIABLE).is_none() && env::var_os(former).is_some();
    if only_former { former } else { TOKEN_FILE_VARIABLE }
}

fn server_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("expected a URL like {USUAL_SERVER}: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        scheme => Err(format!("expected http:// or https://, found `{scheme}:`; write http://HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_are_servers() {
        for text in ["127.0.0.1:9480", "ftp://127.0.0.1", "localhost:9480", ""] {
            server_url(text).expect_err(text);
        }
    }

    #[test]
    fn a_url_goes_before_a_service_and_loopback_is_asked_without_either() {
        let at = |options: ServiceOptions| match options.target() {
            Target::At { server, .. } => server.to_string(),
            Target::In { service: ServiceName { namespace, name }, .. } => format!("{namespace}/{name}"),
        };
        let service = || Some("observability/nv-query".parse().unwrap());
        let server = || Some(server_url("https://verdicts.example").unwrap());
        assert_eq!(at(ServiceOptions::default()), "http://127.0.0.1:9480/");
        assert_eq!(at(ServiceOptions { service: service(), ..Default::default() }), "observability/nv-query");
        let both = ServiceOptions { service: service(), server: server(), ..Default::default() };
        assert_eq!(at(both), "https://verdicts.example/");
        assert_eq!(ServiceName::usual().secret(), "netverdict");
    }

    #[test]
    fn a_service_is_a_namespace_and_a_name() {
        for text in ["netverdict-query", "/netverdict-query", "netverdict/", "a/b/c", "a/../b", "A/b"] {
            text.parse::<ServiceName>().expect_err(text);
        }
    }
}
