//! Threads that end together: all are joined, and the first that ends is noticed.

use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Named threads of one service.
#[derive(Debug)]
pub struct ThreadGroup {
    threads: Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
    /// Bounded by the number of threads: each sends one name.
    ends: UnboundedSender<&'static str>,
    ended: UnboundedReceiver<&'static str>,
}

/// Sends the name of its thread when it is dropped: also when the thread panics.
struct ExitGuard(&'static str, UnboundedSender<&'static str>);

impl Drop for ExitGuard {
    fn drop(&mut self) {
        // All receivers have ended when the group is joined.
        let _ = self.1.send(self.0);
    }
}

impl Default for ThreadGroup {
    fn default() -> Self {
        let (ends, ended) = unbounded_channel();
        Self { threads: Vec::new(), ends, ended }
    }
}

impl ThreadGroup {
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let guard = ExitGuard(name, self.ends.clone());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = guard;
            work()
        });
        self.threads.push((name, thread.with_context(|| format!("thread {name} cannot be started"))?));
        Ok(())
    }

    /// The name of the next thread that ends. Pending while all run.
    pub async fn ended(&mut self) -> &'static str {
        match self.ended.recv().await {
            Some(name) => name,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Waits for all threads. It blocks, so it is called on a thread that may.
    ///
    /// # Errors
    /// The first failure or panic, in the order in which the threads were started; all are logged.
    pub fn join(self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for (name, thread) in self.threads {
            let ended = match thread.join() {
                Ok(ended) => ended.with_context(|| format!("{name} failed")),
                Err(panic) => Err(anyhow!("{name} panicked: {}", text_of(&*panic))),
            };
            if let Err(error) = &ended {
                tracing::error!(thread.name = name, error = format!("{error:#}"), "thread failed");
            }
            result = result.and(ended);
        }
        result
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::Shutdown;

    #[tokio::test]
    async fn the_thread_that_ends_first_is_named_and_its_failure_is_the_reason() {
        let shutdown = Shutdown::new();
        let mut threads = ThreadGroup::default();
        let stop = shutdown.clone();
        let waiting = move || {
            while !stop.wait(std::time::Duration::from_secs(60)) {}
            Ok(())
        };
        threads.spawn("waits", waiting).unwrap();
        threads.spawn("fails", || Err(anyhow!("no room"))).unwrap();
        assert_eq!(threads.ended().await, "fails");
        shutdown.request();
        let error = tokio::task::spawn_blocking(|| threads.join()).await.unwrap().unwrap_err();
        assert_eq!(format!("{error:#}"), "fails failed: no room");
    }

    #[tokio::test]
    async fn a_panic_is_noticed_and_told() {
        let mut threads = ThreadGroup::default();
        threads.spawn("panics", || panic!("at {}", 7)).unwrap();
        assert_eq!(threads.ended().await, "panics");
        assert_eq!(threads.join().unwrap_err().to_string(), "panics panicked: at 7");
    }
}
