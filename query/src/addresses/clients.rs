//! HTTP clients for the collectors, and the authority that their certificates are checked with.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Certificate, Client, ClientBuilder};

/// How often the authority's file is read.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("--collector-ca-file {path}: {reason}", path = .path.display())]
pub(crate) struct AuthorityError {
    path: PathBuf,
    reason: String,
}

/// A state of the authority; another one after each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trust(u64);

/// Makes clients that trust the authority as it is now.
pub(super) struct Clients {
    patience: Duration,
    /// Without one, the system's authorities count.
    authority: Option<Authority>,
}

struct Authority {
    file: PathBuf,
    state: Mutex<State>,
}

struct State {
    trust: Trust,
    looked: Instant,
    /// Content of the file when it was read last, usable or not; empty if it could not be read.
    pem: Vec<u8>,
    /// Those of the last usable content.
    certificates: Vec<Certificate>,
    error: Option<String>,
}

impl Clients {
    /// # Errors
    /// The authority's file has no certificates.
    pub(super) fn new(authority: Option<PathBuf>, patience: Duration) -> Result<Self, AuthorityError> {
        let authority = authority.map(Authority::read).transpose()?;
        Ok(Self { patience, authority })
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// The state that clients made now would have.
    pub(super) fn trust(&self) -> Trust {
        self.authority.as_ref().map(|authority| authority.state().trust).unwrap_or_default()
    }

    /// Reads the authority's file again, at times. Says why it cannot be used; then the certificates before it stay in use.
    pub(super) async fn renew(&self) -> Option<String> {
        let authority = self.authority.as_ref()?;
        {
            let state = authority.state();
            if state.looked.elapsed() < INTERVAL {
                return state.error.clone();
            }
        }
        let read = tokio::fs::read(&authority.file).await;
        let mut state = authority.state();
        state.replace(&authority.file, read);
        state.error.clone()
    }

    pub(super) fn client(&self) -> reqwest::Result<Client> {
        self.builder().build()
    }

    /// One that finds `host` at this address.
    pub(super) fn client_at(&self, host: &str, address: SocketAddr) -> reqwest::Result<Client> {
        self.builder().resolve(host, address).build()
    }

    /// Collectors are asked directly: a proxy of the environment is for other traffic.
    fn builder(&self) -> ClientBuilder {
        let builder = Client::builder().no_proxy().connect_timeout(self.patience);
        let Some(authority) = &self.authority else { return builder };
        let certificates = authority.state().certificates.clone();
        certificates.into_iter().fold(builder.tls_built_in_root_certs(false), ClientBuilder::add_root_certificate)
    }
}

impl Authority {
    fn read(file: PathBuf) -> Result<Self, AuthorityError> {
        let pem = std::fs::read(&file).map_err(|error| unusable(&file, error.to_string()))?;
        let certificates = certificates(&pem).map_err(|reason| unusable(&file, reason))?;
        let state = State { trust: Trust(1), looked: Instant::now(), pem, certificates, error: None };
        Ok(Self { file, state: Mutex::new(state) })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn replace(&mut self, file: &Path, read: std::io::Result<Vec<u8>>) {
        self.looked = Instant::now();
        if read.as_ref().is_ok_and(|pem| *pem == self.pem) {
            return;
        }
        self.pem = read.as_deref().unwrap_or_default().to_owned();
        match read.map_err(|error| error.to_string()).and_then(|pem| certificates(&pem)) {
            Ok(certificates) => {
                tracing::info!(file = %file.display(), "authority of the collectors' certificates replaced");
                (self.certificates, self.error) = (certificates, None);
                self.trust.0 += 1;
            }
            Err(reason) => {
                let error = format!("{}; the certificates before it stay in use", unusable(file, reason));
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!(error, "authority of the collectors' certificates not read again");
                }
                self.error = Some(error);
            }
        }
    }
}

fn unusable(path: &Path, reason: String) -> AuthorityError {
    AuthorityError { path: path.to_owned(), reason }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("expected a PEM block `CERTIFICATE`, found none".to_owned());
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused_and_later_keeps_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        let refusal = |file: &Path| Authority::read(file.to_owned()).err().unwrap().to_string();
        assert!(refusal(&file).starts_with("--collector-ca-file "), "{}", refusal(&file));
        std::fs::write(&file, "no PEM").unwrap();
        assert!(refusal(&file).contains("found none"), "{}", refusal(&file));

        let mut state =
            State { trust: Trust(1), looked: Instant::now(), pem: b"good".to_vec(), certificates: vec![], error: None };
        for _ in 0..2 {
            state.replace(&file, Ok(b"no PEM".to_vec()));
            let error = state.error.as_ref().expect("said as long as it lasts");
            assert!(error.ends_with("the certificates before it stay in use"), "{error}");
        }
        assert_eq!(state.trust, Trust(1), "clients are kept");
    }
}
