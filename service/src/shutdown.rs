//! The one way to ask a service to end: tasks await it, threads look at it or wait for it.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A request to end, made once and never taken back. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// For tasks.
    token: CancellationToken,
    /// For threads, which cannot await.
    switch: Arc<(Mutex<bool>, Condvar)>,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn request(&self) {
        *self.switch.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.switch.1.notify_all();
        self.token.cancel();
    }

    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// For a task: completes once the end is requested.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// For a thread: waits until the end is requested, or for this long. Returns whether it is requested.
    pub fn wait(&self, at_most: Duration) -> bool {
        let guard = self.switch.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.switch.1.wait_timeout_while(guard, at_most, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Runs the work of a process; SIGTERM or SIGINT requests its end.
///
/// # Errors
/// The signals cannot be handled.
pub async fn run_until_signal<F: Future>(work: impl FnOnce(Shutdown) -> F) -> io::Result<F::Output> {
    let (mut signals, shutdown) = (EndSignals::listen()?, Shutdown::new());
    // Boxed: a service's whole start is a large future.
    let mut work = Box::pin(work(shutdown.clone()));
    loop {
        tokio::select! {
            result = &mut work => return Ok(result),
            signal = signals.received() => {
                tracing::info!(signal, "asked to stop");
                shutdown.request();
            }
        }
    }
}

/// The signals that ask a process to end: SIGTERM and SIGINT.
#[derive(Debug)]
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// From here on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The handlers cannot be set.
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal.
    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_and_threads_are_told_by_one_request() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_requested());
        assert!(!shutdown.wait(Duration::ZERO));
        let (task, thread) = (shutdown.clone(), shutdown.clone());
        let task = tokio::spawn(async move { task.requested().await });
        let thread = std::thread::spawn(move || thread.wait(Duration::from_secs(60)));
        shutdown.request();
        task.await.unwrap();
        assert!(thread.join().unwrap());
        assert!(shutdown.is_requested());
        // A later request is answered at once.
        shutdown.requested().await;
    }

    #[tokio::test]
    async fn a_signal_requests_the_end_instead_of_ending_the_process() {
        let ended = run_until_signal(|shutdown| async move {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
            shutdown.requested().await;
            "ended in order"
        });
        assert_eq!(ended.await.unwrap(), "ended in order");
    }
}
