//! The token that opens the rows port: read from a file, or made there with mode 0600. Compared in constant time, never
//! shown.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;

/// Shortest token that is taken from a file.
const LEAST: usize = 16;

#[derive(Debug, Error)]
pub enum TokenError {
    #[error("token file {path} cannot be {action}; choose another with --token-file")]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error(
        "token file {path}: expected mode 0600, found {mode:04o}: others may read it; remove it to have a new one made"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("token file {path}: expected at least {LEAST} characters, found {found}; remove it to have a new one made")]
    Short { path: PathBuf, found: usize },
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// A token that can be compared with others, and nothing else.
#[derive(Clone)]
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Token {
    /// The token in a file, which is made if it is not there.
    ///
    /// # Errors
    /// The file cannot be read or made, others may read it, or it holds no token.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let failed = |action| move |source| TokenError::File { path: path.into(), action, source };
        if !path.try_exists().map_err(failed("read"))? {
            create(path)?;
        }
        let mode = fs::metadata(path).map_err(failed("read"))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open { path: path.into(), mode });
        }
        let text = fs::read_to_string(path).map_err(failed("read"))?;
        let text = text.trim();
        if text.len() < LEAST {
            return Err(TokenError::Short { path: path.into(), found: text.len() });
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| TokenError::NoRandomness)?;
        let tag = hmac::sign(&key, text.as_bytes());
        Ok(Self { key, tag })
    }

    /// Whether someone knows it. Takes the same time wherever a wrong one differs.
    pub fn is(&self, candidate: &str) -> bool {
        hmac::verify(&self.key, candidate.as_bytes(), self.tag.as_ref()).is_ok()
    }
}

/// Written beside and linked into place: of two that start at once, neither reads half a token.
fn create(path: &Path) -> Result<(), TokenError> {
    let failed = |source| TokenError::File { path: path.into(), action: "made", source };
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let written = open.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    let linked = written.and_then(|()| match fs::hard_link(&beside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    linked.and(fs::remove_file(&beside)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn token_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/collector.token");
        Token::load_or_create(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let token = Token::load_or_create(&path).unwrap();
        assert!(token.is(&text));
        assert!(!token.is("guess"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Token::load_or_create(&path), Err(TokenError::Open { mode: 0o640, .. })));
    }
}
