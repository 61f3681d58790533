//! Activity of a connection, with its time: an idle connection can be closed.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use axum::body::Body;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::HttpLimits;

/// The part of a connection that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A request's header began and did not end.
    Header,
    /// No request.
    Idle,
    /// The client takes nothing of its answer.
    Write,
}

/// The state of one connection, shared by its stream and its requests.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Requests that are being answered.
    requests: usize,
    /// The reason of the wait while there is none.
    waiting: Waiting,
    /// Since when a write has made no progress.
    blocked: Option<Instant>,
}

#[derive(Debug)]
enum Waiting {
    /// The rest of a header that has begun. A new connection is expected to send one at once.
    Header(Instant),
    /// The first byte of the next request.
    Request(Instant),
}

impl Default for Activity {
    fn default() -> Self {
        let waiting = Waiting::Header(Instant::now());
        Self(Mutex::new(State { requests: 0, waiting, blocked: None }))
    }
}

impl Activity {
    pub(super) fn overdue(&self, limits: &HttpLimits) -> Option<Overdue> {
        let state = self.state();
        if state.blocked.is_some_and(|since| since.elapsed() >= limits.write_timeout) {
            return Some(Overdue::Write);
        }
        if state.requests > 0 {
            return None;
        }
        match state.waiting {
            Waiting::Header(since) => (since.elapsed() >= limits.header_timeout).then_some(Overdue::Header),
            Waiting::Request(since) => (since.elapsed() >= limits.idle_timeout).then_some(Overdue::Idle),
        }
    }

    fn received(&self) {
        let mut state = self.state();
        if matches!(state.waiting, Waiting::Request(_)) && state.requests == 0 {
            state.waiting = Waiting::Header(Instant::now());
        }
    }

    fn blocked(&self, blocked: bool) {
        let mut state = self.state();
        state.blocked = if blocked { state.blocked.or_else(|| Some(Instant::now())) } else { None };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered, until it is dropped.
pub(super) struct Answering(Arc<Activity>);

impl Answering {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.state().requests += 1;
        Self(Arc::clone(activity))
    }

    /// The body of the answer: the request ends with it.
    pub(super) fn until_sent(self, body: Body) -> AnswerBody {
        AnswerBody { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests = state.requests.saturating_sub(1);
        state.waiting = Waiting::Request(Instant::now());
    }
}

pub(super) struct AnswerBody {
    body: Body,
    _answering: Answering,
}

impl HttpBody for AnswerBody {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A TCP stream that notes reads and writes. TLS is above it: a handshake is part of the first header.
#[derive(Debug)]
pub(super) struct WatchedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl WatchedStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.activity.blocked(polled.is_pending());
        polled
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
