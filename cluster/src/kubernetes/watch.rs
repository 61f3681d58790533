//! The source that follows a cluster: a task for each kind, and a task that knows the served kinds.
//!
//! ```text
//! served ──► a task per kind: list, watch, watch, … ──┐ Report
//!        kinds that come and go                       ├─► ApiWatch: batches; in sync; stale ──► Update
//! ```
//!
//! It is in sync when every kind has been listed once, and stale while one of them cannot be watched. The content of
//! objects is read behind it.

mod backoff;
mod decode;
mod definitions;
mod kind;
mod options;
mod report;
mod request;
mod served;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    mem,
    sync::Arc,
};

use kube::api::ApiResource;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use self::{
    definitions::DefinitionsTask,
    kind::{KindTask, Shared},
    report::{News, REPORTS, Report, Reporter, TaskId},
    served::ServedTask,
    status::KindStatus,
};
pub use self::{
    options::WatchOptions,
    status::{KindFigures, WatchStatus},
};
use super::{connect::Access, error::ClusterError, reach::Reach};
use crate::source::{Change, Scope, Source, Update};

/// Changes that are handed out together, and the bytes that they came in: both bound the memory of waiting changes.
const BATCH: usize = 250;
const BATCH_BYTES: usize = 8 << 20;
/// Pages that are in memory at once, as they were sent.
const PAGES: usize = 2;
/// Reasons reported for one outage.
const MOST_REASONS: usize = 3;

/// All objects of a cluster that a verdict can depend on, and their changes for ever.
pub struct ApiWatch {
    shared: Shared,
    status: WatchStatus,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    /// Ended with this.
    tasks: JoinSet<()>,
    next_task: u64,
    discovery: TaskId,
    /// Why the served kinds are not known.
    undiscovered: Option<Failing>,
    /// `None` until the server has listed its kinds.
    kinds: Option<BTreeMap<Scope, Kind>>,
    in_sync: bool,
    /// Reasons of the staleness that was reported last.
    told: BTreeSet<String>,
    batch: Vec<Change>,
    batch_bytes: usize,
    batch_ends: Option<Instant>,
    updates: VecDeque<Update>,
}

struct Kind {
    resource: ApiResource,
    task: TaskId,
    abort: AbortHandle,
    status: Arc<KindStatus>,
    listed: bool,
    failing: Option<Failing>,
    /// Changes of a kind that was added later and is not listed yet: a part of its objects would give other verdicts.
    held: Vec<Change>,
}

#[derive(Debug)]
struct Failing {
    since_ns: i64,
    noticed: Instant,
    reason: String,
}

impl ApiWatch {
    /// Reads how to reach the cluster, and begins to ask. To be called in a runtime, which the tasks are spawned on; they
    /// end with the source.
    ///
    /// # Errors
    /// There is no cluster to ask, or its configuration cannot be used. A cluster that cannot be reached is no error.
    pub async fn open(access: Access, options: WatchOptions) -> Result<Self, ClusterError> {
        let silence = options.silence + request::ANSWER;
        let reach = Arc::new(Reach::open(access, silence).await?);
        let (pages, unserved) = (Arc::new(Semaphore::new(PAGES)), Arc::new(Notify::new()));
        let shared = Shared { reach, options, pages, unserved };
        let (reporter, reports) = mpsc::channel(REPORTS);
        let discovery = TaskId(0);
        let mut tasks = JoinSet::new();
        let reporter_of = Reporter { task: discovery, reports: reporter.clone() };
        let defined = Arc::new(Notify::new());
        tasks.spawn(DefinitionsTask::new(shared.clone(), defined.clone()).run());
        tasks.spawn(ServedTask::new(shared.clone(), defined, reporter_of).run());
        Ok(Self {
            shared,
            status: WatchStatus::default(),
            reports,
            reporter,
            tasks,
            next_task: 1,
            discovery,
            undiscovered: None,
            kinds: None,
            in_sync: false,
            told: BTreeSet::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_ends: None,
            updates: VecDeque::new(),
        })
    }

    /// Its numbers, for metrics.
    pub fn status(&self) -> WatchStatus {
        self.status.clone()
    }

    /// Waits for the next update. Nothing is lost where the future is dropped: received reports are kept here.
    async fn update(&mut self) -> Update {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return update;
            }
            let due = self.due();
            tokio::select! {
                report = self.reports.recv() => report.into_iter().for_each(|report| self.take(report)),
                Some(ended) = self.tasks.join_next() => end_with(ended),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            while self.updates.is_empty()
                && let Ok(report) = self.reports.try_recv()
            {
                self.take(report);
            }
            let now = Instant::now();
            if self.batch_ends.is_some_and(|at| at <= now) {
                self.hand_out();
            }
            self.tell_staleness(now);
        }
    }

    /// When there is something to do although nothing is reported.
    fn due(&self) -> Option<Instant> {
        let grace = self.shared.options.grace;
        let kinds = self.kinds.iter().flat_map(BTreeMap::values);
        let failing = kinds.filter_map(|kind| kind.failing.as_ref()).chain(&self.undiscovered);
        // Failures that are past it are reported already.
        let now = Instant::now();
        let grace = failing.map(|failing| failing.noticed + grace).filter(|at| *at > now);
        grace.chain(self.batch_ends).min()
    }

    fn take(&mut self, report: Report) {
        let Report { task, news } = report;
        if task == self.discovery {
            return match news {
                News::Served(resources) => self.serve(resources),
                News::Failing { since_ns, reason } => fail(&mut self.undiscovered, since_ns, reason),
                News::Seeing => self.undiscovered = None,
                News::Changes(..) | News::Listed => {}
            };
        }
        // Of a task that is no more.
        let Some(kind) = self.kinds.iter_mut().flat_map(BTreeMap::values_mut).find(|kind| kind.task == task) else {
            return;
        };
        match news {
            News::Changes(changes, _) if self.in_sync && !kind.listed => kind.held.extend(changes),
            News::Changes(changes, bytes) => self.add(changes, bytes),
            News::Listed => {
                kind.listed = true;
                kind.failing = None;
                let held = mem::take(&mut kind.held);
                self.add(held, 0);
                self.come_into_sync();
            }
            News::Seeing => kind.failing = None,
            News::Failing { since_ns, reason } => fail(&mut kind.failing, since_ns, reason),
            News::Served(_) => {}
        }
    }

    fn add(&mut self, changes: Vec<Change>, bytes: usize) {
        if changes.is_empty() {
            return;
        }
        if !self.batch.is_empty() && self.batch.len() + changes.len() > BATCH {
            self.hand_out();
        }
        self.batch.extend(changes);
        self.batch_bytes += bytes;
        if self.batch.len() >= BATCH || self.batch_bytes >= BATCH_BYTES {
            self.hand_out();
        } else {
            self.batch_ends.get_or_insert_with(|| Instant::now() + self.shared.options.window);
        }
    }

    fn hand_out(&mut self) {
        (self.batch_bytes, self.batch_ends) = (0, None);
        if !self.batch.is_empty() {
            self.updates.push_back(Update::Changes(mem::take(&mut self.batch)));
        }
    }

    /// In sync once every kind has been listed.
    fn come_into_sync(&mut self) {
        let listed = self.kinds.as_ref().is_some_and(|kinds| kinds.values().all(|kind| kind.listed));
        if listed && !mem::replace(&mut self.in_sync, true) {
            self.hand_out();
            self.told.clear();
            self.updates.push_back(Update::InSync);
        }
    }

    /// Begins to follow new kinds, and ends with kinds that are gone.
    fn serve(&mut self, resources: Vec<ApiResource>) {
        let mut before = self.kinds.take().unwrap_or_default();
        let mut kinds = BTreeMap::new();
        for resource in resources {
            let scope = scope_of(&resource);
            match before.remove(&scope) {
                Some(known) if known.resource == resource => _ = kinds.insert(scope, known),
                // Served in another version: its objects are the same.
                Some(known) => {
                    known.abort.abort();
                    let next = self.follow(&scope, resource);
                    kinds.insert(scope, Kind { listed: known.listed, failing: known.failing, ..next });
                }
                None => {
                    tracing::info!(watch.kind = resource.kind, watch.version = resource.api_version, "kind is watched");
                    let next = self.follow(&scope, resource);
                    kinds.insert(scope, next);
                }
            }
        }
        self.kinds = Some(kinds);
        for (scope, gone) in before {
            tracing::info!(watch.kind = gone.resource.kind, "kind is no longer served; its objects are gone");
            gone.abort.abort();
            gone.status.holds(0);
            gone.status.stale_since(None);
            self.add(vec![Change::Retain(scope, BTreeSet::new())], 0);
        }
        self.come_into_sync();
    }

    fn follow(&mut self, scope: &Scope, resource: ApiResource) -> Kind {
        let task = TaskId(self.next_task);
        self.next_task += 1;
        let reporter = Reporter { task, reports: self.reporter.clone() };
        let status = self.status.of(&resource.kind);
        let work = KindTask::new(self.shared.clone(), resource.clone(), scope.clone(), reporter, status.clone());
        let abort = self.tasks.spawn(work.run());
        Kind { resource, task, abort, status, listed: false, failing: None, held: Vec::new() }
    }

    /// Reports that changes are not seen, or are seen again.
    fn tell_staleness(&mut self, now: Instant) {
        let grace = self.shared.options.grace;
        let is_due = |failing: &&Failing| failing.noticed + grace <= now;
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut since_ns = i64::MAX;
        for kind in self.kinds.iter().flat_map(BTreeMap::values) {
            let failing = kind.failing.as_ref().filter(is_due);
            kind.status.stale_since(failing.map(|failing| failing.since_ns));
            if let Some(failing) = failing {
                since_ns = since_ns.min(failing.since_ns);
                reasons.entry(&failing.reason).or_default().push(&kind.resource.plural);
            }
        }
        if let Some(failing) = self.undiscovered.as_ref().filter(is_due) {
            since_ns = since_ns.min(failing.since_ns);
            reasons.entry(&failing.reason).or_default();
        }
        let telling: BTreeSet<String> = reasons.keys().map(|reason| (*reason).to_owned()).collect();
        if telling == self.told {
            return;
        }
        let mut shown: Vec<String> =
            reasons.iter().take(MOST_REASONS).map(|(reason, plurals)| tell(reason, plurals)).collect();
        if reasons.len() > MOST_REASONS {
            shown.push(format!("and {} more", reasons.len() - MOST_REASONS));
        }
        let is_over = telling.is_empty();
        self.told = telling;
        self.hand_out();
        match is_over {
            false => self.updates.push_back(Update::Stale { since_ns, reason: shown.join("; ") }),
            // Until all sources were read once, there is no recovery to report.
            true if self.in_sync => self.updates.push_back(Update::InSync),
            true => {}
        }
    }
}

impl Source for ApiWatch {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn next(&mut self) -> Result<Option<Update>, Infallible> {
        Ok(Some(self.update().await))
    }
}

fn scope_of(resource: &ApiResource) -> Scope {
    Scope::Kind { group: resource.group.as_str().into(), kind: resource.kind.as_str().into() }
}

/// It has failed since its first failure, with the latest reason.
fn fail(failing: &mut Option<Failing>, since_ns: i64, reason: String) {
    match failing {
        Some(failing) => failing.reason = reason,
        None => *failing = Some(Failing { since_ns, noticed: Instant::now(), reason }),
    }
}

fn tell(reason: &str, plurals: &[&str]) -> String {
    match plurals {
        [] => format!("kubernetes: {reason}"),
        plurals => format!("kubernetes: {reason} (not watched: {})", plurals.join(", ")),
    }
}

/// A task ends on request. If it panics, the caller of the source panics too.
fn end_with(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

#[cfg(test)]
mod tests;
