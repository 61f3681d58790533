//! The secret as its file has it now, for comparison with candidates.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Secret,
    file::{SecretFile, SecretFileError, Stamp},
};
use crate::error_chain::chain;

/// How often the file is looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// A secret that follows its file. Clones share it.
///
/// A file that has become unusable keeps the last good secret, and says so in the log: an editor's half-written file
/// must not lock out every client.
#[derive(Clone, Debug)]
pub struct SharedSecret {
    file: SecretFile,
    interval: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    secret: Secret,
    /// Of the file that was looked at last, usable or not: each state of it is read once.
    stamp: Option<Stamp>,
    looked: Instant,
    generation: u64,
}

impl SharedSecret {
    /// Reads the file, which is made if it is not there.
    ///
    /// # Errors
    /// As [`SecretFile::load_or_create`].
    pub fn load_or_create(file: SecretFile) -> Result<Self, SecretFileError> {
        file.load_or_create()?;
        let (secret, stamp) = file.load_stamped()?;
        let state = State { secret, stamp: Some(stamp), looked: Instant::now(), generation: 0 };
        Ok(Self { file, interval: INTERVAL, state: Arc::new(Mutex::new(state)) })
    }

    /// Whether `candidate` is the secret, in constant time.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.current().0.matches(candidate)
    }

    /// The secret, and a number that is another one after each change.
    pub fn current(&self) -> (Secret, u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= self.interval {
            state.looked = Instant::now();
            self.refresh(&mut state);
        }
        (state.secret.clone(), state.generation)
    }

    fn refresh(&self, state: &mut State) {
        let stamp = self.file.stamp();
        if stamp == state.stamp {
            return;
        }
        state.stamp = stamp;
        match self.file.load_stamped() {
            Ok((secret, stamp)) => {
                state.stamp = Some(stamp);
                if !state.secret.matches(secret.reveal().as_bytes()) {
                    state.generation += 1;
                    tracing::info!(secret.file = %self.file.path().display(), "secret replaced");
                }
                state.secret = secret;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "secret not read again; the one before it stays in use");
            }
        }
    }

    /// Looks at the file at each comparison.
    #[cfg(test)]
    fn without_interval(mut self) -> Self {
        self.interval = Duration::ZERO;
        self
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;

    /// As tools replace a file: written beside and renamed.
    fn replace(path: &Path, text: &str, mode: u32) {
        let beside = path.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    #[test]
    fn a_replaced_file_is_read_again_and_an_unusable_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        replace(&path, "the-first-of-secrets", 0o600);
        let secret = SharedSecret::load_or_create(SecretFile::new(&path, "--token-file")).unwrap().without_interval();
        assert!(secret.matches(b"the-first-of-secrets"));
        let before = secret.current().1;

        replace(&path, "the-second-of-secrets", 0o600);
        assert!(secret.matches(b"the-second-of-secrets"));
        assert!(!secret.matches(b"the-first-of-secrets"));
        assert_ne!(secret.current().1, before);

        replace(&path, "the-third-of-secrets", 0o644);
        assert!(secret.matches(b"the-second-of-secrets"), "others may have read the new one");
        replace(&path, "short", 0o600);
        assert!(secret.matches(b"the-second-of-secrets"));
        fs::remove_file(&path).unwrap();
        assert!(secret.matches(b"the-second-of-secrets"));

        replace(&path, "the-fourth-of-secrets", 0o600);
        assert!(secret.matches(b"the-fourth-of-secrets"));
    }
}
