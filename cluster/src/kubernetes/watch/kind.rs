//! The task that follows the objects of one kind: a list, then a watch from its version on, and both again as often as it
//! takes.
//!
//! It is not [kube's own watcher](https://docs.rs/kube/latest/kube/runtime/watcher/) for the reasons in ADR 14.

use std::{
    collections::BTreeSet,
    mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use kube::{
    api::{ApiResource, ListParams, WatchParams},
    core::Request,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};

use super::{
    backoff::Backoff,
    decode::{Decoded, Decoder, Event},
    options::WatchOptions,
    report::{News, Reporter, Unwanted},
    request::{self, Failure, Lines},
    status::{KindStatus, nanoseconds},
};
use crate::{
    kubernetes::{connect::Connection, reach::Reach},
    source::{Change, Key, Location, Scope},
};

/// Objects a page. Some pages wait in queues, so it is half of kubectl's number.
const PAGE: u32 = 250;
/// Bytes of a page. Of larger objects fewer are asked for at once.
const MOST_PAGE_BYTES: usize = 16 << 20;
/// Objects of one kind; more than any cluster that Kubernetes supports has.
const MOST_OBJECTS: usize = 1_000_000;
/// Pages without an object: expired ones leave a few behind, a list that does not end has many.
const MOST_EMPTY_PAGES: usize = 100;
/// A server refuses a version that it no longer keeps inside the watch that it has opened: a watch that was silent for so
/// long was opened for good.
const SETTLED: Duration = Duration::from_secs(1);
/// A watch that ends sooner is asked for again only after a while.
const SHORT: Duration = Duration::from_secs(1);
/// Watches in a row that cannot be opened although the server answers: then a list is asked for.
const MOST_REFUSED: u32 = 3;
/// Initial events that are sent together.
const BATCH: usize = 250;
/// Silence after which a server is taken not to support streaming lists.
const STREAM_SILENCE: Duration = Duration::from_secs(10);

/// Shared by the tasks of all kinds.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) reach: Arc<Reach>,
    pub(super) options: WatchOptions,
    /// To read a page: few are in memory at once.
    pub(super) pages: Arc<Semaphore>,
    /// A kind that is followed is not served any more, it seems.
    pub(super) unserved: Arc<Notify>,
}

pub(super) struct KindTask {
    shared: Shared,
    resource: ApiResource,
    scope: Scope,
    decoder: Decoder,
    reporter: Reporter,
    status: Arc<KindStatus>,
    backoff: Backoff,
    /// Objects that exist.
    keys: BTreeSet<Key>,
    /// Until when everything that happened is known.
    heard: SystemTime,
    /// The next list is asked for as a stream.
    streams: bool,
    /// The server knows no streaming lists, and gives no error.
    never_streams: bool,
    page: u32,
}

/// Where to watch from.
struct Position {
    version: String,
    /// A watch that is open already.
    lines: Option<Lines>,
}

/// Why the work is interrupted.
enum Interruption {
    Unwanted,
    Failure(Failure),
}

impl From<Unwanted> for Interruption {
    fn from(Unwanted: Unwanted) -> Self {
        Self::Unwanted
    }
}

impl From<Failure> for Interruption {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

type Work<T> = Result<T, Interruption>;

impl KindTask {
    pub(super) fn new(
        shared: Shared,
        resource: ApiResource,
        scope: Scope,
        reporter: Reporter,
        status: Arc<KindStatus>,
    ) -> Self {
        let WatchOptions { first_backoff, most_backoff, .. } = shared.options;
        Self {
            decoder: Decoder::new(resource.clone(), scope.clone()),
            backoff: Backoff::new(first_backoff, most_backoff),
            shared,
            resource,
            scope,
            reporter,
            status,
            keys: BTreeSet::new(),
            heard: SystemTime::now(),
            streams: true,
            never_streams: false,
            page: PAGE,
        }
    }

    /// Runs until the source is dropped.
    pub(super) async fn run(mut self) {
        let mut position: Option<Position> = None;
        let mut refused = 0;
        loop {
            let worked = match position.take() {
                None => self.list().await.map(|found| position = Some(found)),
                Some(from) => self.follow(from, &mut position).await,
            };
            let failure = match worked {
                Ok(()) => {
                    refused = 0;
                    continue;
                }
                Err(Interruption::Unwanted) => return,
                Err(Interruption::Failure(failure)) => failure,
            };
            refused = if failure.may_be_the_version() { refused + 1 } else { 0 };
            if failure.is_expired() || refused >= MOST_REFUSED {
                position = None;
                refused = 0;
            }
            if self.told(&failure).await.is_err() {
                return;
            }
            tokio::time::sleep(self.backoff.after_failure(failure.retry_after)).await;
        }
    }

    /// Reports a failure, and reacts to it where that helps.
    async fn told(&mut self, failure: &Failure) -> Result<(), Unwanted> {
        self.status.failed();
        let (kind, error) = (&self.resource.kind, &failure.error);
        tracing::debug!(watch.kind = %kind, %error, "watch interrupted");
        if failure.is_unserved() {
            self.shared.unserved.notify_one();
        }
        if failure.may_be_configuration() {
            self.shared.reach.renew().await;
        }
        self.reporter.tell(News::Failing { since_ns: nanoseconds(self.heard), reason: error.to_string() }).await
    }

    /// Lists all objects: as a stream where the server has that, or else page by page.
    async fn list(&mut self) -> Work<Position> {
        if self.streams {
            match self.stream().await {
                Err(Interruption::Failure(failure)) if matches!(failure.code, Some(400 | 403 | 422)) => {
                    // It knows no streaming lists, or may not be asked at all: the pages will tell.
                }
                result => return result,
            }
        }
        self.pages().await
    }

    /// A streaming list (`sendInitialEvents`) from the newest version, and the watch that it becomes.
    async fn stream(&mut self) -> Work<Position> {
        let connection = self.shared.reach.connection().await;
        let doing = format!("list {}", self.resource.plural);
        let parameters =
            WatchParams { timeout: Some(self.shared.options.watch_seconds()), ..WatchParams::streaming_lists() };
        let request = self.request(&connection, &doing, |request| request.watch(&parameters, ""))?;
        let mut lines = Lines::open(&connection, request, &doing).await?;
        let mut keys = BTreeSet::new();
        let (mut changes, mut bytes) = (Vec::new(), 0);
        loop {
            let silence = STREAM_SILENCE.min(self.shared.options.silence);
            let line = match lines.next(&connection, silence, &doing).await {
                Ok(Some(line)) => line,
                // An intermediary does not allow a long answer: the next list comes in pages.
                Ok(None) => {
                    self.streams = false;
                    return Err(Failure::nonsense(&connection, &doing, "the list was cut off").into());
                }
                // A server that ignores unknown parameters sends objects, and never says that these were all.
                Err(failure) => {
                    self.streams = false;
                    self.never_streams = failure.is_silence;
                    return Err(failure.into());
                }
            };
            bytes += line.len();
            match self.event(&connection, &line, &doing)? {
                Event::Put(decoded) => {
                    self.bounded(&connection, &doing, keys.len())?;
                    keys.insert(decoded.key.clone());
                    changes.push(self.taken(decoded));
                    if changes.len() >= BATCH {
                        self.tell_changes(mem::take(&mut changes), mem::take(&mut bytes)).await?;
                    }
                }
                Event::Bookmark { version, ends_initial_events: true } => {
                    self.complete(keys, changes, bytes).await?;
                    return Ok(Position { version, lines: Some(lines) });
                }
                Event::Error(status) => return Err(Failure::of_status(&connection, &doing, status).into()),
                Event::Delete(..) | Event::Bookmark { .. } | Event::Other => {}
            }
        }
    }

    /// A list in pages, all of the same version.
    async fn pages(&mut self) -> Work<Position> {
        let connection = self.shared.reach.connection().await;
        let doing = format!("list {}", self.resource.plural);
        let mut keys = BTreeSet::new();
        let (mut version, mut token) = (String::new(), None::<String>);
        let mut empty = 0;
        loop {
            let mut parameters = ListParams::default().limit(self.page);
            parameters.continue_token.clone_from(&token);
            let request = self.request(&connection, &doing, |request| request.list(&parameters))?;
            let (page, bytes) = {
                let pages = self.shared.pages.clone();
                // It is never closed.
                let _permit = pages.acquire().await;
                let body = request::ask(&connection, request, &doing).await?;
                let body = match request::read(&connection, body, MOST_PAGE_BYTES, &doing).await {
                    Err(failure) if failure.too_long && self.page > 1 => {
                        self.page /= 4;
                        self.page = self.page.max(1);
                        continue;
                    }
                    body => body?,
                };
                let page = self.decoder.page(&body).map_err(|error| {
                    Failure::nonsense(&connection, &doing, format!("it is no list in JSON: {error}"))
                })?;
                (page, body.len())
            };
            self.status.heard(page.objects.len(), SystemTime::now());
            if version.is_empty() {
                version = page.version;
            }
            let mut changes = Vec::with_capacity(page.objects.len() + 1);
            let before = keys.len();
            for decoded in page.objects {
                self.bounded(&connection, &doing, keys.len())?;
                let is_new = keys.insert(decoded.key.clone());
                // Objects without a readable name may be many.
                if !is_new && !matches!(&decoded.change, Change::Fault(..)) {
                    let message = "the list has an object twice: it does not end, or is no list of one moment";
                    return Err(Failure::nonsense(&connection, &doing, message).into());
                }
                changes.push(self.taken(decoded));
            }
            empty = if keys.len() == before { empty + 1 } else { 0 };
            let is_last = page.next.is_none();
            if !is_last && (page.next == token || empty > MOST_EMPTY_PAGES) {
                return Err(Failure::nonsense(&connection, &doing, "the list does not end").into());
            }
            token = page.next;
            if !is_last {
                self.tell_changes(changes, bytes).await?;
                continue;
            }
            if version.is_empty() {
                return Err(Failure::nonsense(&connection, &doing, "the list has no version").into());
            }
            self.complete(keys, changes, bytes).await?;
            self.page = (self.page * 2).min(PAGE);
            self.streams = !self.never_streams;
            return Ok(Position { version, lines: None });
        }
    }

    /// The end of a list: objects that it did not hold are gone.
    async fn complete(&mut self, keys: BTreeSet<Key>, mut changes: Vec<Change>, bytes: usize) -> Work<()> {
        changes.push(Change::Retain(self.scope.clone(), keys.clone()));
        self.keys = keys;
        self.status.holds(self.keys.len());
        self.status.listed();
        self.heard_now(0);
        self.tell_changes(changes, bytes).await?;
        self.reporter.tell(News::Listed).await?;
        Ok(())
    }

    /// Watches until the server ends the watch. `position`: where the next one begins, also after a failure.
    async fn follow(&mut self, from: Position, position: &mut Option<Position>) -> Work<()> {
        let Position { mut version, lines } = from;
        let watched = self.watch(&mut version, lines).await;
        *position = Some(Position { version, lines: None });
        watched
    }

    async fn watch(&mut self, version: &mut String, lines: Option<Lines>) -> Work<()> {
        let connection = self.shared.reach.connection().await;
        let doing = format!("watch {}", self.resource.plural);
        // A list that has become a watch counts as settled.
        let mut is_settled = lines.is_some();
        let mut lines = match lines {
            Some(lines) => lines,
            None => {
                let parameters = WatchParams::default().timeout(self.shared.options.watch_seconds());
                let request = self.request(&connection, &doing, |request| request.watch(&parameters, version))?;
                Lines::open(&connection, request, &doing).await?
            }
        };
        let begun = Instant::now();
        let mut said_something = false;
        loop {
            let next = lines.next(&connection, self.shared.options.silence, &doing);
            let line = match is_settled {
                true => next.await?,
                // Dropped, it has lost nothing: the lines keep the bytes that they have read.
                false => match timeout(SETTLED, next).await {
                    Ok(line) => line?,
                    Err(_) => {
                        is_settled = true;
                        self.heard_now(0);
                        self.reporter.tell(News::Seeing).await?;
                        continue;
                    }
                },
            };
            let Some(line) = line else { break };
            let (change, newest) = match self.event(&connection, &line, &doing)? {
                Event::Put(decoded) => {
                    let newest = decoded.version.clone();
                    self.bounded(&connection, &doing, self.keys.len())?;
                    self.keys.insert(decoded.key.clone());
                    (Some(self.taken(decoded)), newest)
                }
                Event::Delete(key, newest) => {
                    self.keys.remove(&key);
                    (Some(Change::Delete(Location::new(&self.scope, key))), newest)
                }
                Event::Bookmark { version, .. } => (None, version),
                Event::Error(status) => return Err(Failure::of_status(&connection, &doing, status).into()),
                Event::Other => continue,
            };
            self.heard_now(usize::from(change.is_some()));
            if !mem::replace(&mut is_settled, true) {
                self.reporter.tell(News::Seeing).await?;
            }
            if let Some(change) = change {
                self.status.holds(self.keys.len());
                self.tell_changes(vec![change], line.len()).await?;
            }
            if !newest.is_empty() {
                *version = newest;
            }
            if !mem::replace(&mut said_something, true) {
                self.backoff.reset();
            }
        }
        if !said_something && begun.elapsed() < SHORT {
            // Nothing was missed, since each watch begins where the last one ended; but it is not to be asked at once.
            tokio::time::sleep(self.backoff.after_failure(None)).await;
        } else {
            self.backoff.reset();
        }
        Ok(())
    }

    fn request(
        &self,
        connection: &Connection,
        doing: &str,
        build: impl FnOnce(&Request) -> Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<http::Request<Vec<u8>>, Failure> {
        let ApiResource { api_version, plural, .. } = &self.resource;
        let root = if api_version.contains('/') { "/apis" } else { "/api" };
        let request = Request::new(format!("{root}/{api_version}/{plural}"));
        build(&request).map_err(|error| Failure::nonsense(connection, doing, error.to_string()))
    }

    /// A line that is no event makes the watch begin again from the last event.
    fn event(&self, connection: &Connection, line: &[u8], doing: &str) -> Result<Event, Failure> {
        let no_event = |error| Failure::nonsense(connection, doing, format!("a line is no event in JSON: {error}"));
        self.decoder.event(line).map_err(no_event)
    }

    fn bounded(&self, connection: &Connection, doing: &str, objects: usize) -> Result<(), Failure> {
        match objects < MOST_OBJECTS {
            true => Ok(()),
            false => Err(Failure::nonsense(connection, doing, format!("there are more than {MOST_OBJECTS} objects"))),
        }
    }

    fn taken(&self, decoded: Decoded) -> Change {
        if matches!(decoded.change, Change::Fault(..)) {
            self.status.failed();
        }
        decoded.change
    }

    async fn tell_changes(&self, changes: Vec<Change>, bytes: usize) -> Result<(), Unwanted> {
        self.reporter.tell(News::Changes(changes, bytes)).await
    }

    fn heard_now(&mut self, events: usize) {
        self.heard = SystemTime::now();
        self.status.heard(events, self.heard);
    }
}
