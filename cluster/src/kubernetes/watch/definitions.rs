//! The task that watches definitions of kinds (CRDs), so that a new kind of policies counts as soon as it is served.
//!
//! Only the names are read. Without the right to watch definitions, a new kind is found by asking at intervals.

use std::sync::Arc;

use kube::{
    api::{PartialObjectMeta, WatchEvent, WatchParams},
    core::Request,
};
use tokio::sync::Notify;

use super::{
    kind::Shared,
    request::{Failure, Lines},
};
use crate::kubernetes::discover;

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DOING: &str = "watch customresourcedefinitions";

pub(super) struct DefinitionsTask {
    shared: Shared,
    /// A definition of a group that we read was made, changed or deleted.
    changed: Arc<Notify>,
}

impl DefinitionsTask {
    pub(super) fn new(shared: Shared, changed: Arc<Notify>) -> Self {
        Self { shared, changed }
    }

    /// Runs until the source is dropped.
    pub(super) async fn run(self) {
        loop {
            match self.watch().await {
                Ok(()) => tokio::time::sleep(self.shared.options.first_backoff).await,
                Err(failure) => {
                    tracing::debug!(error = %failure.error, "definitions of kinds are not watched");
                    let pause = self.shared.options.discover_every;
                    tokio::time::sleep(failure.retry_after.map_or(pause, |asked| asked.max(pause))).await;
                }
            }
        }
    }

    /// Until the server ends the watch. It begins with every definition that there is.
    async fn watch(&self) -> Result<(), Failure> {
        let connection = self.shared.reach.connection().await;
        let nonsense = |message: String| Failure::nonsense(&connection, DOING, message);
        let parameters = WatchParams::default().timeout(self.shared.options.watch_seconds());
        let request = Request::new(PATH).watch_metadata(&parameters, "");
        let request = request.map_err(|error| nonsense(error.to_string()))?;
        let mut lines = Lines::open(&connection, request, DOING).await?;
        while let Some(line) = lines.next(&connection, self.shared.options.silence, DOING).await? {
            let event: WatchEvent<PartialObjectMeta> =
                serde_json::from_slice(&line).map_err(|error| nonsense(format!("a line is no event: {error}")))?;
            match event {
                WatchEvent::Added(it) | WatchEvent::Modified(it) | WatchEvent::Deleted(it) => {
                    // Named PLURAL.GROUP.
                    let group = it.metadata.name.as_deref().and_then(|name| name.split_once('.'));
                    if group.is_some_and(|(_, group)| discover::is_extension(group)) {
                        self.changed.notify_one();
                    }
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(Failure::of_status(&connection, DOING, *status)),
            }
        }
        Ok(())
    }
}
