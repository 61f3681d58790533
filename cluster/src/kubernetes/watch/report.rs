//! Reports of a watch's tasks to the source that they are part of.

use kube::api::ApiResource;
use tokio::sync::mpsc;

use crate::source::Change;

/// Reports that wait: a page of a list or a few events each, so that a cluster is not in memory twice.
pub(super) const REPORTS: usize = 4;

/// Which task reports. A task that was replaced may still have reports in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TaskId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Report {
    pub(super) task: TaskId,
    pub(super) news: News,
}

#[derive(Debug)]
pub(super) enum News {
    /// The kinds that the cluster serves, whenever they have changed.
    Served(Vec<ApiResource>),
    /// Changes, and the bytes that they came in.
    Changes(Vec<Change>, usize),
    /// All objects of the kind have been reported.
    Listed,
    /// Changes are seen as they happen.
    Seeing,
    /// Changes are not seen from `since_ns` (nanoseconds since 1970) on.
    Failing { since_ns: i64, reason: String },
}

/// The way of a task's reports.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) task: TaskId,
    pub(super) reports: mpsc::Sender<Report>,
}

/// The source was dropped.
#[derive(Debug)]
pub(super) struct Unwanted;

impl Reporter {
    pub(super) async fn tell(&self, news: News) -> Result<(), Unwanted> {
        self.reports.send(Report { task: self.task, news }).await.map_err(|_| Unwanted)
    }
}
