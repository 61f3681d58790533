//! The task that knows which kinds the cluster serves, also when that changes: definitions of kinds come and go.
//!
//! It asks at intervals, which tells too whether the server answers at all, and more often after a definition has changed: a
//! kind is listed a moment later. A kind that is gone takes its policies out of force, so it counts as gone only when the
//! server has said so more than once: a starting server does not know of its kinds yet.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kube::{
    api::{ApiResource, ListParams},
    core::Request,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    backoff::Backoff,
    kind::Shared,
    report::{News, Reporter, Unwanted},
    request::{self, ANSWER, Failure},
    status::nanoseconds,
};
use crate::kubernetes::{connect::Connection, discover};

/// Between the first time that a kind is not served and the time that it counts.
const CONFIRM: Duration = Duration::from_secs(5);
/// Between a change of the definitions and the first look. The pauses double, and the looks end after some
/// [`CONFIRM`].
const AFTER_CHANGE: Duration = Duration::from_millis(100);

pub(super) struct ServedTask {
    shared: Shared,
    reporter: Reporter,
    backoff: Backoff,
    /// A definition has changed.
    defined: Arc<Notify>,
    /// The next pause, while a change of the definitions may not have come through.
    hurry: Option<Duration>,
    /// As reported last; `None` before the first time.
    served: Option<Vec<ApiResource>>,
    /// Kinds that were served and are not, and since when.
    missing: BTreeMap<String, Instant>,
    heard: SystemTime,
}

impl ServedTask {
    pub(super) fn new(shared: Shared, defined: Arc<Notify>, reporter: Reporter) -> Self {
        Self {
            backoff: Backoff::new(shared.options.first_backoff, shared.options.most_backoff),
            shared,
            reporter,
            defined,
            hurry: None,
            served: None,
            missing: BTreeMap::new(),
            heard: SystemTime::now(),
        }
    }

    /// Runs until the source is dropped.
    pub(super) async fn run(mut self) {
        let mut failing = true;
        loop {
            let told = match self.look().await {
                Ok(()) => {
                    self.heard = SystemTime::now();
                    self.backoff.reset();
                    match std::mem::replace(&mut failing, false) {
                        true => self.reporter.tell(News::Seeing).await,
                        false => Ok(()),
                    }
                }
                Err(Interrupted::Unwanted) => return,
                Err(Interrupted::Failure(failure)) => {
                    failing = true;
                    if failure.may_be_configuration() {
                        self.shared.reach.renew().await;
                    }
                    let (since_ns, reason) = (nanoseconds(self.heard), failure.error.to_string());
                    let told = self.reporter.tell(News::Failing { since_ns, reason }).await;
                    tokio::time::sleep(self.backoff.after_failure(failure.retry_after)).await;
                    told.map(|()| failing = true)
                }
            };
            if told.is_err() {
                return;
            }
            if !failing {
                self.pause().await;
            }
        }
    }

    /// Until the next look: sooner where a kind has just vanished, or a definition has just changed.
    async fn pause(&mut self) {
        let every = self.shared.options.discover_every;
        let wait = every.mul_f64(0.75 + fastrand::f64() / 2.0);
        let wait = if self.missing.is_empty() { wait } else { wait.min(CONFIRM) };
        let hurry = self.hurry.take();
        self.hurry = hurry.map(|pause| pause * 2).filter(|pause| *pause < CONFIRM);
        tokio::select! {
            () = tokio::time::sleep(hurry.map_or(wait, |pause| pause.min(wait))) => {}
            // Not more often than each kind fails.
            () = self.shared.unserved.notified() => {}
            () = self.defined.notified() => self.hurry = Some(AFTER_CHANGE),
        }
    }

    async fn look(&mut self) -> Result<(), Interrupted> {
        let connection = self.shared.reach.connection().await;
        let doing = "ask which kinds it serves";
        if self.served.is_none() {
            is_ready(&connection).await?;
        }
        let found = match timeout(ANSWER, discover::watched(&connection.client)).await {
            Ok(found) => found.map_err(|error| Failure::of_client(&connection, doing, error))?,
            Err(_) => {
                let reason = format!("no answer within {} s", ANSWER.as_secs());
                return Err(Failure::unreachable(&connection, reason).into());
            }
        };
        let mut next = found;
        for known in self.served.clone().unwrap_or_default() {
            let is_there = next.iter().any(|found| found.group == known.group && found.kind == known.kind);
            let name = format!("{}/{}", known.group, known.kind);
            if is_there {
                self.missing.remove(&name);
            } else if !self.is_gone(&connection, &known, name).await? {
                next.push(known);
            }
        }
        if self.served.as_ref() != Some(&next) {
            self.served = Some(next.clone());
            self.reporter.tell(News::Served(next)).await?;
        }
        Ok(())
    }

    /// Whether a kind that is not listed is gone: it was not listed before either, and its objects cannot be asked for.
    async fn is_gone(
        &mut self,
        connection: &Connection,
        resource: &ApiResource,
        name: String,
    ) -> Result<bool, Interrupted> {
        let since = *self.missing.entry(name.clone()).or_insert_with(Instant::now);
        if since.elapsed() < CONFIRM {
            return Ok(false);
        }
        let doing = format!("list {}", resource.plural);
        let request = Request::new(format!("/apis/{}/{}", resource.api_version, resource.plural));
        let request = request.list(&ListParams::default().limit(1));
        let request = request.map_err(|error| Failure::nonsense(connection, &doing, error.to_string()))?;
        match request::ask(connection, request, &doing).await {
            Err(failure) if failure.is_unserved() => {
                self.missing.remove(&name);
                Ok(true)
            }
            Err(failure) => Err(failure.into()),
            Ok(_) => Ok(false),
        }
    }
}

/// An API server that has just started does not list all of its kinds yet, and a cluster that we begin with would seem to
/// have no policies of the missing kinds. Where we may not ask for readiness, the server counts as ready.
async fn is_ready(connection: &Connection) -> Result<(), Failure> {
    let doing = "say that it is ready";
    let request = http::Request::get("/readyz").body(Vec::new());
    let request = request.map_err(|error| Failure::nonsense(connection, doing, error.to_string()))?;
    match request::ask(connection, request, doing).await {
        Err(failure) if !matches!(failure.code, Some(401 | 403 | 404)) => Err(failure),
        _ => Ok(()),
    }
}

enum Interrupted {
    Unwanted,
    Failure(Failure),
}

impl From<Unwanted> for Interrupted {
    fn from(Unwanted: Unwanted) -> Self {
        Self::Unwanted
    }
}

impl From<Failure> for Interrupted {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}
