//! Requests to an API server whose answers are bounded in time and in bytes: an answer that is too long or does not come
//! is a failure like another.

use std::time::Duration;

use http::{
    HeaderValue,
    header::{ACCEPT_ENCODING, RETRY_AFTER},
};
use http_body_util::BodyExt as _;
use kube::{client::Body, core::Status};
use tokio::time::timeout;

use crate::kubernetes::{connect::Connection, error::ClusterError};

/// An answer begins within this time; the API server itself gives up after a minute.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// A page is read to its end within this time.
const PAGE: Duration = Duration::from_secs(60);
/// Of an error, the part that is read.
const MOST_ERROR_BYTES: usize = 64 << 10;
/// Longest event: etcd stores objects of 1.5 MiB, and a change is sent with the object that it makes.
const MOST_LINE_BYTES: usize = 16 << 20;
/// Characters of an error that are reported.
const MOST_MESSAGE: usize = 500;

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ClusterError,
    /// The HTTP status; `None` where there was no answer.
    pub(super) code: Option<u16>,
    /// How long the server asks us to wait.
    pub(super) retry_after: Option<Duration>,
    /// The answer was longer than it may be.
    pub(super) too_long: bool,
    /// The answer began, and did not go on.
    pub(super) is_silence: bool,
    /// The answer cannot be so.
    nonsense: bool,
}

impl Failure {
    fn new(error: ClusterError, code: Option<u16>) -> Self {
        Self { error, code, retry_after: None, too_long: false, is_silence: false, nonsense: false }
    }

    pub(super) fn unreachable(connection: &Connection, reason: impl Into<String>) -> Self {
        let server = connection.server.trim_end_matches('/').to_owned();
        Self::new(ClusterError::Unreachable { server, reason: reason.into() }, None)
    }

    /// The server answers, and its answer makes no sense.
    pub(super) fn nonsense(connection: &Connection, doing: &str, message: impl Into<String>) -> Self {
        let (server, doing) = (connection.server.trim_end_matches('/').to_owned(), doing.to_owned());
        let error = ClusterError::Refused { server, doing, message: message.into() };
        Self { nonsense: true, ..Self::new(error, None) }
    }

    pub(super) fn of_client(connection: &Connection, doing: &str, error: kube::Error) -> Self {
        let code = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
        Self::new(ClusterError::asking(&connection.server, doing, error), code)
    }

    /// A status that a server sent with an HTTP status, or in a watch.
    pub(super) fn of_status(connection: &Connection, doing: &str, status: Status) -> Self {
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let failure = Self::of_client(connection, doing, kube::Error::Api(status.boxed()));
        Self { retry_after: (seconds > 0).then(|| Duration::from_secs(u64::from(seconds))), ..failure }
    }

    /// The version that we asked from is no longer kept: only a new list helps.
    pub(super) fn is_expired(&self) -> bool {
        self.code == Some(410)
    }

    /// Whether it may be due to the version that was asked from, so that a list would help; an overloaded server need not be
    /// asked for a list.
    pub(super) fn may_be_the_version(&self) -> bool {
        self.nonsense || !matches!(self.code, None | Some(401 | 403 | 429 | 503))
    }

    pub(super) fn is_unserved(&self) -> bool {
        self.code == Some(404)
    }

    /// Whether other credentials or another address may help.
    pub(super) fn may_be_configuration(&self) -> bool {
        !self.nonsense && matches!(self.code, None | Some(401))
    }
}

/// Sends a request. Fails where the answer is not a success, or does not begin in time.
pub(super) async fn ask(
    connection: &Connection,
    request: http::Request<Vec<u8>>,
    doing: &str,
) -> Result<Body, Failure> {
    let sent = timeout(ANSWER, connection.client.send(request.map(Body::from))).await;
    let response = match sent {
        Ok(response) => response.map_err(|error| Failure::of_client(connection, doing, error))?,
        Err(_) => return Err(Failure::unreachable(connection, format!("no answer within {} s", ANSWER.as_secs()))),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let text = read(connection, response.into_body(), MOST_ERROR_BYTES, doing).await.unwrap_or_default();
    let mut said = serde_json::from_slice::<Status>(&text).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&text);
        Status::failure(if text.trim().is_empty() { status.as_str() } else { text.trim() }, "")
    });
    said.code = status.as_u16();
    said.message = said.message.chars().filter(|c| !c.is_control()).take(MOST_MESSAGE).collect();
    let failure = Failure::of_status(connection, doing, said);
    Err(Failure { retry_after: asked.map(Duration::from_secs).or(failure.retry_after), ..failure })
}

/// A body as a whole, of so many bytes at most.
pub(super) async fn read(
    connection: &Connection,
    mut body: Body,
    most: usize,
    doing: &str,
) -> Result<Vec<u8>, Failure> {
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::of_client(connection, doing, error))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > most {
                let failure = Failure::nonsense(connection, doing, format!("the answer has more than {most} bytes"));
                return Err(Failure { too_long: true, ..failure });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    match timeout(PAGE, reading).await {
        Ok(read) => read,
        Err(_) => Err(Failure::unreachable(connection, format!("the answer did not end within {} s", PAGE.as_secs()))),
    }
}

/// The lines of a watch.
pub(super) struct Lines {
    body: Body,
    bytes: Vec<u8>,
    /// Bytes in which there is no line end.
    searched: usize,
}

impl Lines {
    /// Opens a watch. It must not be compressed: the client reads only the first part of a compressed body in parts.
    pub(super) async fn open(
        connection: &Connection,
        mut request: http::Request<Vec<u8>>,
        doing: &str,
    ) -> Result<Self, Failure> {
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let body = ask(connection, request, doing).await?;
        Ok(Self { body, bytes: Vec::new(), searched: 0 })
    }

    /// The next line; `None` where the server has ended the watch. `idle`: the longest silence.
    pub(super) async fn next(
        &mut self,
        connection: &Connection,
        idle: Duration,
        doing: &str,
    ) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.bytes.split_off(self.searched + end + 1);
                let line = std::mem::replace(&mut self.bytes, rest);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.bytes.len();
            if self.bytes.len() > MOST_LINE_BYTES {
                let message = format!("an event has more than {MOST_LINE_BYTES} bytes");
                return Err(Failure { too_long: true, ..Failure::nonsense(connection, doing, message) });
            }
            match timeout(idle, self.body.frame()).await {
                Err(_) => {
                    let reason = format!("the watch has been silent for {} s", idle.as_secs());
                    return Err(Failure { is_silence: true, ..Failure::unreachable(connection, reason) });
                }
                // A line that was cut off is sent again by the next watch.
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Failure::of_client(connection, doing, error)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.bytes.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
