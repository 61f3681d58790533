//! Tasks that end together: all are joined, and the first that ends is noticed.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::task::{Id, JoinError, JoinSet};

/// Named tasks of one service. Dropping it aborts the running ones.
#[derive(Debug, Default)]
pub struct TaskGroup {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl TaskGroup {
    /// Must be called inside a Tokio runtime.
    pub fn spawn(&mut self, name: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let id = self.tasks.spawn(work).id();
        self.names.insert(id, name);
    }

    /// The name and result of the next task that ends; `None` once all have.
    pub async fn ended(&mut self) -> Option<(&'static str, anyhow::Result<()>)> {
        self.tasks.join_next_with_id().await.map(|ended| self.named(ended))
    }

    /// Waits for all, and aborts tasks that have not ended after `grace`.
    ///
    /// # Errors
    /// The first failure or panic. That a task was aborted is not one; it is logged.
    pub async fn join(mut self, grace: Duration) -> anyhow::Result<()> {
        let mut result = Ok(());
        let all = async {
            while let Some((_, ended)) = self.ended().await {
                let failed = std::mem::replace(&mut result, Ok(()));
                result = failed.and(ended);
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "tasks cut off: they did not end in time");
            self.tasks.shutdown().await;
        }
        result
    }

    fn named(&mut self, ended: Result<(Id, anyhow::Result<()>), JoinError>) -> (&'static str, anyhow::Result<()>) {
        let (id, result) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(anyhow!(error))),
        };
        let name = self.names.remove(&id).unwrap_or("task");
        (name, result.with_context(|| format!("{name} failed")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_task_that_ends_first_is_named_with_its_reason() {
        let mut tasks = TaskGroup::default();
        tasks.spawn("waits", std::future::pending());
        tasks.spawn("panics", async { panic!("no way") });
        let (name, result) = tasks.ended().await.unwrap();
        assert_eq!(name, "panics");
        assert!(format!("{:#}", result.unwrap_err()).starts_with("panics failed: task "));
        // A connection that does not end is cut off, and that is no failure.
        tasks.join(Duration::from_millis(1)).await.unwrap();
    }

    #[tokio::test]
    async fn joining_tells_the_first_failure() {
        let mut tasks = TaskGroup::default();
        tasks.spawn("ends", async { Ok(()) });
        tasks.spawn("fails", async { Err(anyhow!("port taken")) });
        let error = tasks.join(Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "fails failed: port taken");
    }
}
