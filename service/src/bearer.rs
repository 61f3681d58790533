//! Bearer tokens (RFC 6750) in the `Authorization` header, or in one of that form beside it, and nowhere else: never in a
//! query string or a form, where logs and histories keep them.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use thiserror::Error;

use crate::secret::SharedSecret;

const SCHEME: &[u8] = b"bearer";

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BearerError {
    #[error("expected an Authorization header, found none")]
    Missing,
    #[error("expected one Authorization header, found several")]
    Several,
    #[error("expected `Authorization: Bearer TOKEN`, found another form")]
    Malformed,
    #[error("the token is not the service's")]
    Wrong,
}

/// The token of a request: exactly one header, the scheme in any case, one space, one token.
///
/// # Errors
/// Names the error in the header; it does not repeat the header.
pub fn token(headers: &HeaderMap) -> Result<&[u8], BearerError> {
    token_of(headers, &header::AUTHORIZATION)
}

/// The same in a header that may stand for `Authorization`, behind a proxy that takes that one for itself.
fn token_of<'a>(headers: &'a HeaderMap, proxied: &HeaderName) -> Result<&'a [u8], BearerError> {
    let beside = Some(proxied).filter(|name| **name != header::AUTHORIZATION);
    let beside = beside.into_iter().flat_map(|name| headers.get_all(name));
    let mut values = headers.get_all(header::AUTHORIZATION).iter().chain(beside);
    let value = values.next().ok_or(BearerError::Missing)?;
    if values.next().is_some() {
        return Err(BearerError::Several);
    }
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len()).ok_or(BearerError::Malformed)?;
    let token = token.strip_prefix(b" ").filter(|_| scheme.eq_ignore_ascii_case(SCHEME));
    match token {
        Some(token) if !token.is_empty() && token.iter().all(u8::is_ascii_graphic) => Ok(token),
        _ => Err(BearerError::Malformed),
    }
}

/// Whether a request carries the secret.
///
/// # Errors
/// Names the reason of the refusal.
pub fn check(headers: &HeaderMap, secret: &SharedSecret) -> Result<(), BearerError> {
    if secret.matches(token(headers)?) { Ok(()) } else { Err(BearerError::Wrong) }
}

/// The token check of a port; the state of [`require`].
#[derive(Clone)]
pub struct BearerGuard {
    secret: SharedSecret,
    proxied: HeaderName,
    refuse: Arc<dyn Fn(BearerError) -> Response + Send + Sync>,
}

impl BearerGuard {
    /// `refuse` makes the body of a refusal, in the form that the port's errors have. Status and challenge are ours.
    pub fn new(secret: SharedSecret, refuse: impl Fn(BearerError) -> Response + Send + Sync + 'static) -> Self {
        Self { secret, proxied: header::AUTHORIZATION, refuse: Arc::new(refuse) }
    }

    /// Takes the token in this header too, in the form of `Authorization`.
    #[must_use]
    pub fn proxied_as(self, header: HeaderName) -> Self {
        Self { proxied: header, ..self }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), BearerError> {
        if self.secret.matches(token_of(headers, &self.proxied)?) { Ok(()) } else { Err(BearerError::Wrong) }
    }
}

/// A layer for `axum::middleware::from_fn_with_state`: answers 401 unless the request carries the secret.
pub async fn require(State(guard): State<BearerGuard>, request: Request, next: Next) -> Response {
    let Err(error) = guard.check(request.headers()) else { return next.run(request).await };
    let mut response = (guard.refuse)(error);
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn_with_state, response::IntoResponse as _, routing::get};
    use tower::ServiceExt as _;

    use super::*;
    use crate::secret::SecretFile;

    const SECRET: &str = "0123456789abcdef0123";

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_proxy_may_take_the_usual_header_for_itself() {
        let name = HeaderName::from_static("x-authorization");
        let mut proxied = HeaderMap::new();
        proxied.insert(&name, HeaderValue::from_static("Bearer abc"));
        assert_eq!(token_of(&proxied, &name), Ok(&b"abc"[..]));
        assert_eq!(token(&proxied), Err(BearerError::Missing));
        proxied.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        assert_eq!(token_of(&proxied, &name), Err(BearerError::Several));
    }

    #[test]
    fn one_header_of_one_form_is_a_token() {
        for (values, expected) in [
            (&["Bearer abc"][..], Ok(&b"abc"[..])),
            (&["bearer abc"], Ok(b"abc")),
            (&["BEARER abc=="], Ok(b"abc==")),
            (&[], Err(BearerError::Missing)),
            (&["Bearer abc", "Bearer abc"], Err(BearerError::Several)),
            (&["Bearer"], Err(BearerError::Malformed)),
            (&["Bearer "], Err(BearerError::Malformed)),
            (&["Bearerabc"], Err(BearerError::Malformed)),
            (&["Bearer  abc"], Err(BearerError::Malformed)),
            (&["Bearer a b"], Err(BearerError::Malformed)),
            (&["Basic abc"], Err(BearerError::Malformed)),
            (&[""], Err(BearerError::Malformed)),
        ] {
            assert_eq!(token(&headers(values)), expected, "{values:?}");
        }
    }

    #[tokio::test]
    async fn only_the_secret_in_the_header_opens_the_port() {
        let folder = tempfile::tempdir().unwrap();
        let file = SecretFile::new(folder.path().join("token"), "--token-file");
        let secret = SharedSecret::load_or_create(file).unwrap();
        let known = secret.current().0.reveal().to_owned();
        let guard = BearerGuard::new(secret, |error| error.to_string().into_response());
        let router =
            Router::new().route("/", get(|| async { "open" })).layer(from_fn_with_state(guard.clone(), require));
        let ask = async |uri: String, value: Option<String>| {
            let mut request = Request::builder().uri(uri);
            if let Some(value) = value {
                request = request.header(header::AUTHORIZATION, value);
            }
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let challenge = response.headers().get(header::WWW_AUTHENTICATE).cloned();
            (response.status(), challenge)
        };
        assert_eq!(ask("/".into(), Some(format!("bEaReR {known}"))).await, (StatusCode::OK, None));
        let refused = (StatusCode::UNAUTHORIZED, Some(HeaderValue::from_static("Bearer")));
        assert_eq!(ask("/".into(), Some(format!("Bearer {SECRET}"))).await, refused);
        assert_eq!(ask("/".into(), None).await, refused);
        assert_eq!(ask(format!("/?access_token={known}"), None).await, refused);
    }
}
