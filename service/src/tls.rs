//! TLS for the ports of a service: certificate and key from PEM files, read again when they change.
//!
//! The cryptography is `ring`'s. Client certificates are not asked for: access is decided by tokens and passwords.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use thiserror::Error;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::error_chain::chain;

/// How often the files are looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why TLS cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{option} {path}: no certificate can be read: {reason}", path = .path.display())]
    Certificate { option: &'static str, path: PathBuf, reason: String },
    #[error("{option} {path}: no private key can be read: {reason}", path = .path.display())]
    Key { option: &'static str, path: PathBuf, reason: String },
    #[error("certificate and key do not go together: {0}")]
    Pair(#[from] rustls::Error),
}

/// The files of a port's TLS, with the options that name them, for errors.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub certificate_option: &'static str,
    pub key: PathBuf,
    pub key_option: &'static str,
    /// Protocols offered by ALPN, in order of preference; none offers no ALPN.
    pub protocols: &'static [&'static [u8]],
}

/// ALPN names of an HTTP port.
pub const HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Certificate and key of a port, as its files have them now. Clones share them.
///
/// Files that have become unusable keep the last good pair, and say so in the log: a renewal that writes certificate
/// and key one after the other must not end the service.
#[derive(Clone, Debug)]
pub struct ServerTls {
    files: TlsFiles,
    interval: Duration,
    state: Arc<Mutex<State>>,
}

/// Certificate and key that go together.
#[derive(Clone, Debug)]
pub struct Identity {
    config: Arc<ServerConfig>,
    /// The certificate's PEM text, for channel binding.
    pub certificate_pem: Arc<[u8]>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    /// Of the files that were looked at last, usable or not: each state of them is read once.
    stamps: [Option<Stamp>; 2],
    looked: Instant,
}

type Stamp = (u64, Option<SystemTime>);

impl Identity {
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl ServerTls {
    /// # Errors
    /// A file cannot be read, or certificate and key do not go together.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let state = State { identity: read(&files)?, stamps, looked: Instant::now() };
        Ok(Self { files, interval: INTERVAL, state: Arc::new(Mutex::new(state)) })
    }

    /// Services and limits of new connections.
    pub fn current(&self) -> Identity {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= self.interval {
            state.looked = Instant::now();
            let found = stamps(&self.files);
            if found != state.stamps {
                state.stamps = found;
                match read(&self.files) {
                    Ok(identity) => {
                        state.identity = identity;
                        tracing::info!(tls.certificate = %self.files.certificate.display(), "certificate replaced");
                    }
                    Err(error) => tracing::warn!(
                        error = %chain(&error),
                        "certificate not read again; the one before it stays in use"
                    ),
                }
            }
        }
        state.identity.clone()
    }

    /// Looks at the files for each connection.
    #[cfg(test)]
    pub(crate) fn without_interval(mut self) -> Self {
        self.interval = Duration::ZERO;
        self
    }
}

fn read(files: &TlsFiles) -> Result<Identity, TlsError> {
    let TlsFiles { certificate, certificate_option, key, key_option, protocols } = files;
    let no_certificate =
        |reason: String| TlsError::Certificate { option: certificate_option, path: certificate.clone(), reason };
    let pem = fs::read(certificate).map_err(|error| no_certificate(error.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| no_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(no_certificate("expected a PEM block `CERTIFICATE`, found none".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Key {
        option: key_option,
        path: key.clone(),
        reason: error.to_string(),
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Identity { config: Arc::new(config), certificate_pem: pem.into() })
}

/// Follows links: Kubernetes replaces a mounted secret by changing one.
fn stamps(files: &TlsFiles) -> [Option<Stamp>; 2] {
    let stamp = |path: &Path| -> io::Result<Stamp> {
        let metadata = fs::metadata(path)?;
        Ok((std::os::unix::fs::MetadataExt::ino(&metadata), metadata.modified().ok()))
    };
    [stamp(&files.certificate).ok(), stamp(&files.key).ok()]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A self-signed pair of `tests/tls`, copied to where it can be replaced.
    pub(crate) fn put(folder: &Path, pair: &str) -> TlsFiles {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        for kind in ["crt", "key"] {
            let beside = folder.join("beside");
            fs::copy(source.join(format!("{pair}.{kind}")), &beside).unwrap();
            fs::rename(&beside, folder.join(format!("tls.{kind}"))).unwrap();
        }
        TlsFiles {
            certificate: folder.join("tls.crt"),
            certificate_option: "--tls-cert",
            key: folder.join("tls.key"),
            key_option: "--tls-key",
            protocols: HTTP,
        }
    }

    #[test]
    fn a_replaced_pair_is_read_again_and_half_of_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let tls = ServerTls::load(put(folder.path(), "first")).unwrap().without_interval();
        let first = tls.current();
        assert!(Arc::ptr_eq(&first.config, &tls.current().config), "unchanged files are not read again");

        fs::write(folder.path().join("tls.crt"), fs::read(second_certificate()).unwrap()).unwrap();
        assert!(Arc::ptr_eq(&first.config, &tls.current().config), "the key is still another certificate's");
        put(folder.path(), "second");
        let second = tls.current();
        assert!(!Arc::ptr_eq(&first.config, &second.config));
        assert_ne!(first.certificate_pem, second.certificate_pem);
    }

    #[test]
    fn unusable_files_are_refused_with_the_option_that_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let files = put(folder.path(), "first");
        let refused = |files: TlsFiles| ServerTls::load(files).unwrap_err().to_string();
        let missing = refused(TlsFiles { certificate: folder.path().join("absent"), ..files.clone() });
        assert!(missing.starts_with("--tls-cert ") && missing.contains("No such file"), "{missing}");
        let swapped = refused(TlsFiles { certificate: files.key.clone(), ..files.clone() });
        assert!(swapped.contains("expected a PEM block `CERTIFICATE`"), "{swapped}");
        let swapped = refused(TlsFiles { key: files.certificate.clone(), ..files.clone() });
        assert!(swapped.starts_with("--tls-key "), "{swapped}");
        let other = refused(TlsFiles { certificate: second_certificate(), ..files });
        assert!(other.contains("do not go together"), "{other}");
    }

    fn second_certificate() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/second.crt")
    }
}
