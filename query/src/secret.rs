//! The secret that opens the service: read from a file, or made there. It is compared in constant time and never
//! shown.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// Shortest secret that is taken from a file.
const MIN_LENGTH: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("secret file {path}: cannot be {action}: {source}; choose another with --secret-file")]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error(
        "secret file {path}: expected mode 0600, found {mode:04o}: others may read it; replace the secret, then chmod 600 it"
    )]
    Readable { path: PathBuf, mode: u32 },
    #[error(
        "secret file {path}: expected at least {MIN_LENGTH} characters, found {found}; delete it to have a new one made"
    )]
    Short { path: PathBuf, found: usize },
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// A secret text. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret {
    text: Arc<str>,
    key: hmac::Key,
    tag: hmac::Tag,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Secret {
    fn new(text: &str) -> Result<Self, SecretError> {
        let key =
            hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| SecretError::NoRandomness)?;
        let tag = hmac::sign(&key, text.as_bytes());
        Ok(Self { text: text.into(), key, tag })
    }

    /// The secret in a file, which is made if it is not there.
    ///
    /// # Errors
    /// When the file cannot be read or made, others may read it, or the secret is too short to be one.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        if !path.try_exists().map_err(|source| file(path, "read", source))? {
            create(path)?;
        }
        let metadata = fs::metadata(path).map_err(|source| file(path, "read", source))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Readable { path: path.into(), mode });
        }
        let text = fs::read_to_string(path).map_err(|source| file(path, "read", source))?;
        let text = text.trim();
        if text.len() < MIN_LENGTH {
            return Err(SecretError::Short { path: path.into(), found: text.len() });
        }
        Self::new(text)
    }

    /// Whether someone knows it. Takes the same time wherever a wrong one differs.
    pub fn is(&self, candidate: &[u8]) -> bool {
        hmac::verify(&self.key, candidate, self.tag.as_ref()).is_ok()
    }

    /// The text itself, for deriving the SCRAM verifier.
    pub(crate) fn reveal(&self) -> &str {
        &self.text
    }
}

fn file(path: &Path, action: &'static str, source: io::Error) -> SecretError {
    SecretError::File { path: path.into(), action, source }
}

/// Writes it beside and links it into place, so that of two services that start at once neither reads half a secret.
fn create(path: &Path) -> Result<(), SecretError> {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SecretError::NoRandomness)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|source| file(path, "made", source))?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| match fs::hard_link(&beside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    let removed = fs::remove_file(&beside);
    written.and(removed).map_err(|source| file(path, "made", source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_made_secret_is_private_and_stays_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/query.password");
        let first = Secret::load_or_create(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        let second = Secret::load_or_create(&path).expect("read");
        assert!(second.is(first.reveal().as_bytes()));
        assert!(!second.is(b"something else"));
        assert_eq!(fs::read_dir(path.parent().expect("a parent")).expect("listed").count(), 1);
        assert!(!format!("{first:?}").contains(first.reveal()));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        fs::write(&path, "0123456789abcdef0123").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let error = Secret::load_or_create(&path).expect_err("refused").to_string();
        assert!(error.contains("expected mode 0600, found 0644"), "{error}");
    }

    #[test]
    fn a_secret_that_is_none_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        fs::write(&path, "\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        assert!(matches!(Secret::load_or_create(&path), Err(SecretError::Short { found: 0, .. })));
    }
}
