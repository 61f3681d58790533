//! Threads for statements, apart from those that serve sockets, so that a heavy statement keeps nobody from logging in.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use crate::{error::QueryError, execute::Limit, watch::Watch};

/// How long a statement may wait for a thread: after that, the running statements do not yield.
const PATIENCE: Duration = Duration::from_secs(10);

/// The threads of statements. Dropping it does not wait for a statement that does not stop.
#[derive(Debug)]
pub struct Threads(Option<Runtime>);

impl Threads {
    /// `count` threads; 0 is one for each processor.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        if count > 0 {
            builder.worker_threads(count);
        }
        // DataFusion's recursion through plans and views is deep in debug builds.
        Ok(Self(Some(builder.thread_name("statement").thread_stack_size(8 << 20).enable_all().build()?)))
    }

    /// Begins work as soon as a thread takes it.
    pub(crate) async fn begin(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
        limit: Limit,
        watch: Option<Arc<Watch>>,
    ) -> Result<Work, QueryError> {
        let (begins, begun) = oneshot::channel();
        let task = self.handle().spawn(async move {
            let _ = begins.send(());
            work.await;
        });
        let work = Work { task: task.abort_handle(), watch };
        match timeout_at(limit.deadline.min(Instant::now() + PATIENCE), begun).await {
            Ok(_) => Ok(work),
            Err(_) => Err(QueryError::Busy(PATIENCE.min(limit.timeout))),
        }
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Work on a statement's thread. Dropping it stops the work at its next yield or its next look at the watch.
pub(crate) struct Work {
    task: AbortHandle,
    watch: Option<Arc<Watch>>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(watch) = &self.watch {
            watch.abandon();
        }
    }
}
