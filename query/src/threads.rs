//! Threads for statements, apart from those that serve sockets, so that a heavy statement does not delay logins.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use crate::{deadline::Deadline, error::QueryError, watch::Watch};

/// How long a statement may wait for a thread: if none is free for so long, the statements that run do not yield.
const PATIENCE: Duration = Duration::from_secs(10);
/// Stack of each thread, in bytes; only touched pages take memory. Enough for a statement at the limits of `guard`
/// in a debug build, measured by `tests/service/depth.rs`: some recursions of the parser, and most of DataFusion's
/// `Clone`, `Display`, `Drop` and `evaluate`, are not covered by its own protection.
const STACK: usize = 64 << 20;

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
        Ok(Self(Some(builder.thread_name("statement").thread_stack_size(STACK).enable_all().build()?)))
    }

    /// The result of work that is done on one of the threads.
    ///
    /// # Errors
    /// When no thread is free in time, or the work takes longer than there is time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        deadline: Deadline,
    ) -> Result<T, QueryError> {
        let (done, result) = oneshot::channel();
        let work = async move {
            // The caller has given up: the result is not needed.
            let _ = done.send(work.await);
        };
        let _work = self.begin(work, deadline, None).await?;
        match timeout_at(deadline.at, result).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(QueryError::Internal("the statement's thread panicked".into())),
            Err(_) => Err(QueryError::Timeout(deadline.timeout)),
        }
    }

    /// Begins work as soon as a thread takes it.
    pub(crate) async fn begin(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
        deadline: Deadline,
        watch: Option<Arc<Watch>>,
    ) -> Result<Work, QueryError> {
        let (begins, begun) = oneshot::channel();
        let task = self.handle().spawn(async move {
            let _ = begins.send(());
            work.await;
        });
        let work = Work { task: task.abort_handle(), watch };
        match timeout_at(deadline.at.min(Instant::now() + PATIENCE), begun).await {
            Ok(_) => Ok(work),
            Err(_) => Err(QueryError::Busy(PATIENCE.min(deadline.timeout))),
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
