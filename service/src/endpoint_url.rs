//! The address of another service, which may hold credentials: shown without them.

use std::{convert::Infallible, fmt, str::FromStr};

use http::Uri;
use thiserror::Error;

/// Stands for hidden parts.
const HIDDEN: &str = "***";

/// A URL from an option. `Display` and `Debug` show neither its user part nor its query.
///
/// Any text can be one, so that it is [checked](Self::check) by us: an error of the option parser repeats the whole
/// text, password included.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl(String);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{url}` is no address; expected for instance {example}")]
pub struct BadEndpoint {
    url: EndpointUrl,
    example: &'static str,
}

impl EndpointUrl {
    /// The whole text, for connecting to it. Never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Refuses all URLs but `http://` and `https://` with a host.
    ///
    /// # Errors
    /// Shows the URL without credentials, and `example`.
    pub fn check(&self, example: &'static str) -> Result<&Self, BadEndpoint> {
        let usable = self.0.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        });
        if usable { Ok(self) } else { Err(BadEndpoint { url: self.clone(), example }) }
    }
}

impl From<&str> for EndpointUrl {
    fn from(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl FromStr for EndpointUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_credentials(&self.0))
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", without_credentials(&self.0))
    }
}

/// A URL's text with `***` for its user part and for its query. It takes any text, because errors about invalid URLs use
/// it too.
pub fn without_credentials(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // A password with `/`, `?` or `#` in it is not valid, and is typed all the same: up to the last `@` nothing is shown.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (format!("{HIDDEN}@"), rest),
        None => (String::new(), rest),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, format!("?{HIDDEN}")),
        None => (rest, String::new()),
    };
    format!("{scheme}{user}{rest}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (text, shown) in [
            ("http://127.0.0.1:4317", "http://127.0.0.1:4317"),
            ("https://user:secret@host:9471/base", "https://***@host:9471/base"),
            ("https://user:sec/ret@x@host", "https://***@host"),
            ("https://host/v1?token=secret", "https://host/v1?***"),
            ("user:secret@host", "***@host"),
            ("http://user:secret@", "http://***@"),
        ] {
            let url: EndpointUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
            assert_eq!(url.reveal(), text);
        }
    }

    #[test]
    fn only_http_addresses_are_taken_and_errors_hide_credentials() {
        let check = |text: &str| {
            let url: EndpointUrl = text.parse().unwrap();
            url.check("http://127.0.0.1:9471").map(|_| ())
        };
        check("http://user:secret@127.0.0.1:9471").unwrap();
        check("https://[2001:db8::1]:9471/base/").unwrap();
        for text in ["", "127.0.0.1:9471", "ftp://u:secret@host", "http://", "u:secret@host:9471", "http://u:secret@"] {
            let error = check(text).expect_err(text).to_string();
            assert!(error.contains("expected for instance http://127.0.0.1:9471"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
