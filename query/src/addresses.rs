//! Where the collectors are: the addresses of `--collector`, and those that a DNS name stands for at the moment.

mod clients;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use netverdict_service::endpoint_url::{BadEndpoint, EndpointUrl};
use reqwest::{Client, Url};
use tokio::{net::lookup_host, sync::Mutex, time::timeout};

use self::clients::{AuthorityError, Clients, Trust};

/// Before a URL whose host stands for several collectors.
const BY_NAME: &str = "dns+";
const EXAMPLE: &str = "http://127.0.0.1:9471 or dns+http://netverdict-collector:9471";
/// How long an answer of DNS counts.
const RESOLVED: Duration = Duration::from_secs(5);
/// A collector that a name does not stand for any more is still asked for so long: what it does not answer is told.
const FORGET: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("--collector: {0}")]
    Address(#[from] BadEndpoint),
    #[error("--collector: `{0}` is no address that requests can be sent to")]
    Url(EndpointUrl),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// A collector that can be asked.
#[derive(Clone)]
pub(crate) struct CollectorAddress {
    /// Tells it from all others; with the address that DNS gave for its name.
    pub(crate) name: Url,
    url: Url,
    client: Client,
}

pub(crate) struct Addresses {
    fixed: Mutex<Fixed>,
    names: Vec<DnsName>,
    clients: Clients,
}

/// Addresses that are given as they are.
struct Fixed {
    trust: Trust,
    addresses: Vec<CollectorAddress>,
}

/// A name that stands for collectors.
struct DnsName {
    url: Url,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    trust: Trust,
    /// When DNS was asked last, and why that failed.
    asked: Option<Instant>,
    error: Option<String>,
    /// With the last time that the name stood for it.
    addresses: BTreeMap<IpAddr, (CollectorAddress, Instant)>,
}

impl Addresses {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// A URL or the authority's file cannot be used.
    pub(crate) fn new(
        urls: &[EndpointUrl],
        authority: Option<PathBuf>,
        patience: Duration,
    ) -> Result<Self, AddressError> {
        let clients = Clients::new(authority, patience)?;
        let (mut addresses, mut names) = (Vec::new(), Vec::new());
        for endpoint in urls {
            let (url, is_name) = match endpoint.reveal().strip_prefix(BY_NAME) {
                Some(url) => (EndpointUrl::from(url), true),
                None => (endpoint.clone(), false),
            };
            let url = Url::parse(url.check(EXAMPLE)?.reveal()).map_err(|_| AddressError::Url(endpoint.clone()))?;
            if is_name {
                names.push(DnsName { url, known: Mutex::default() });
            } else {
                addresses.push(CollectorAddress { name: url.clone(), url, client: clients.client()? });
            }
        }
        let fixed = Mutex::new(Fixed { trust: clients.trust(), addresses });
        Ok(Self { fixed, names, clients })
    }

    /// The collectors that there are, and what is known to be missing. To be called on the runtime that serves sockets.
    pub(crate) async fn now(&self) -> (Vec<CollectorAddress>, Vec<String>) {
        let mut problems = Vec::from_iter(self.clients.renew().await);
        let mut addresses = self.fixed.lock().await.now(&self.clients);
        for name in &self.names {
            let mut known = name.known.lock().await;
            if known.trust != self.clients.trust() {
                name.ask_anew(&mut known, &self.clients);
            }
            if known.asked.is_none_or(|asked| asked.elapsed() >= RESOLVED) {
                name.resolve(&mut known, &self.clients).await;
            }
            problems.extend(known.error.clone());
            addresses.extend(known.addresses.values().map(|(address, _)| address.clone()));
        }
        (addresses, problems)
    }
}

impl Fixed {
    fn now(&mut self, clients: &Clients) -> Vec<CollectorAddress> {
        if self.trust != clients.trust() {
            self.trust = clients.trust();
            for address in &mut self.addresses {
                // One that cannot be made leaves the client of before, whose requests say what is wrong.
                if let Ok(client) = clients.client() {
                    address.client = client;
                }
            }
        }
        self.addresses.clone()
    }
}

impl DnsName {
    async fn resolve(&self, known: &mut Known, clients: &Clients) {
        let (now, patience) = (Instant::now(), clients.patience());
        known.asked = Some(now);
        let (host, port) = (self.url.host_str().unwrap_or_default(), self.url.port_or_known_default().unwrap_or(0));
        let found = match timeout(patience, lookup_host((host.trim_matches(['[', ']']), port))).await {
            Ok(Ok(found)) => one_family(found.map(|address| address.ip()).collect()),
            Ok(Err(error)) => return known.failed(host, &error.to_string()),
            Err(_) => return known.failed(host, &format!("no answer within {patience:?}")),
        };
        known.error = None;
        for ip in found {
            if let Some((_, seen)) = known.addresses.get_mut(&ip) {
                *seen = now;
            } else if let Some(address) = self.at(ip, port, clients) {
                known.addresses.insert(ip, (address, now));
            }
        }
        known.addresses.retain(|_, (_, seen)| seen.elapsed() < FORGET);
    }

    /// With clients that trust the certificates of now.
    fn ask_anew(&self, known: &mut Known, clients: &Clients) {
        known.trust = clients.trust();
        let port = self.url.port_or_known_default().unwrap_or(0);
        for (ip, (address, _)) in &mut known.addresses {
            if let Some(anew) = self.at(*ip, port, clients) {
                *address = anew;
            }
        }
    }

    /// Requests go to this address, and a certificate has to be the name's.
    fn at(&self, ip: IpAddr, port: u16, clients: &Clients) -> Option<CollectorAddress> {
        let mut name = self.url.clone();
        name.set_ip_host(ip).ok()?;
        if self.url.scheme() == "http" {
            return Some(CollectorAddress { url: name.clone(), name, client: clients.client().ok()? });
        }
        let client = clients.client_at(self.url.host_str()?, SocketAddr::new(ip, port)).ok()?;
        Some(CollectorAddress { name, url: self.url.clone(), client })
    }
}

impl Known {
    fn failed(&mut self, host: &str, reason: &str) {
        self.error = Some(format!("the collectors of {host} are not known ({reason}): rows of some may be missing"));
    }
}

impl CollectorAddress {
    /// A request for a path below the collector's URL.
    pub(crate) fn get(&self, path: &str, query: &[(&str, String)]) -> reqwest::RequestBuilder {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url.query_pairs_mut().extend_pairs(query);
        self.client.get(url)
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

/// A collector with an address of each family is one collector.
fn one_family(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.retain(IpAddr::is_ipv4);
    }
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_stands_for_its_addresses_and_a_url_for_itself() {
        let urls = ["http://10.0.0.1:9471/base", "dns+http://localhost:9471/base"].map(EndpointUrl::from);
        let addresses = Addresses::new(&urls, None, Duration::from_secs(5)).unwrap();
        let (found, problems) = addresses.now().await;
        let names: Vec<_> = found.iter().map(|address| address.name.to_string()).collect();
        assert_eq!(names, ["http://10.0.0.1:9471/base", "http://127.0.0.1:9471/base"], "{problems:?}");
        let request = found[1].get("v1/rows", &[("table", "flows".to_owned())]).build().unwrap();
        assert_eq!(request.url().as_str(), "http://127.0.0.1:9471/base/v1/rows?table=flows");
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_told() {
        let urls = [EndpointUrl::from("dns+http://collectors.invalid:9471")];
        let (found, problems) = Addresses::new(&urls, None, Duration::from_secs(5)).unwrap().now().await;
        assert!(found.is_empty());
        assert!(problems[0].starts_with("the collectors of collectors.invalid are not known ("), "{problems:?}");
    }

    #[test]
    fn a_url_without_a_host_is_refused() {
        for url in ["dns+http://", "dns+9471", "dns+ftp://host", "9471"] {
            let error = Addresses::new(&[EndpointUrl::from(url)], None, Duration::from_secs(1)).err().unwrap();
            assert!(error.to_string().starts_with("--collector: "), "{error}");
        }
    }
}
