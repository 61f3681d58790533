//! A secret that opens a port: generated, kept in a file of mode 0600, compared in constant time, never shown.
//!
//! [`Secret`] is the text, [`SecretFile`] its file, [`SharedSecret`] the text as the file has it now: the file is read
//! again after a change, so a secret can be replaced without a restart.

mod file;
mod shared;

use std::{fmt, sync::Arc};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;

pub use self::{
    file::{SecretFile, SecretFileError},
    shared::SharedSecret,
};

/// Fewest characters of a secret: a shorter one can be guessed.
pub const MIN_LENGTH: usize = 16;
/// Most characters of a secret. A longer file is another file.
pub const MAX_LENGTH: usize = 4_096;
/// Random bytes of a generated secret, written as hexadecimal digits.
const GENERATED_BYTES: usize = 24;

/// Why a text cannot be a secret. It does not repeat the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotASecret {
    #[error("expected at least {MIN_LENGTH} characters, found {0}")]
    Short(usize),
    #[error("expected at most {MAX_LENGTH} characters, found more")]
    Long,
    #[error("expected one line of printable ASCII characters without spaces")]
    Characters,
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// A secret text. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret {
    text: Arc<str>,
    /// A random key and the text's tag under it: candidates are compared as tags, so that the time of a comparison
    /// depends neither on the first difference nor on the length of the secret.
    key: hmac::Key,
    tag: hmac::Tag,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Secret {
    /// A secret from the content of a file; white space around it is not part of it.
    ///
    /// # Errors
    /// The text is too short, too long, or cannot be sent in a header.
    pub fn from_text(text: &str) -> Result<Self, NotASecret> {
        let text = text.trim();
        if text.len() < MIN_LENGTH {
            return Err(NotASecret::Short(text.len()));
        }
        if text.len() > MAX_LENGTH {
            return Err(NotASecret::Long);
        }
        if text.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(NotASecret::Characters);
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| NotASecret::NoRandomness)?;
        let tag = hmac::sign(&key, text.as_bytes());
        Ok(Self { text: text.into(), key, tag })
    }

    /// A new secret of 192 random bits.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Self, NotASecret> {
        let mut bytes = [0; GENERATED_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NotASecret::NoRandomness)?;
        Self::from_text(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Whether `candidate` is the secret, in constant time.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        hmac::verify(&self.key, candidate, self.tag.as_ref()).is_ok()
    }

    /// The text, for deriving a verifier from it (SCRAM) or for sending it. Never for a log.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let secret = Secret::from_text(" 0123456789abcdef\n").unwrap();
        assert!(secret.matches(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcdeF", b"0123456789abcdef0", b"0123456789abcde"] {
            assert!(!secret.matches(wrong));
        }
        assert!(!format!("{secret:?}").contains("0123"));
    }

    #[test]
    fn generated_secrets_differ_and_are_long_enough() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_eq!(one.reveal().len(), 2 * GENERATED_BYTES);
        assert!(!one.matches(other.reveal().as_bytes()));
    }

    #[test]
    fn texts_that_are_no_secrets_are_refused_without_being_repeated() {
        for (text, expected) in [
            ("\n", NotASecret::Short(0)),
            ("short", NotASecret::Short(5)),
            ("0123456789 abcdef", NotASecret::Characters),
            ("0123456789\nabcdef", NotASecret::Characters),
            ("0123456789abcdéf", NotASecret::Characters),
        ] {
            let error = Secret::from_text(text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(text.trim().is_empty() || !error.to_string().contains(text));
        }
        assert_eq!(Secret::from_text(&"a".repeat(MAX_LENGTH + 1)).unwrap_err(), NotASecret::Long);
    }
}
