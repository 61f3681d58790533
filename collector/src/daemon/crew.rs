//! Threads that end together.

use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Threads that are all joined, and tell when one of them ends.
pub(super) struct Crew {
    members: Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
    ended: UnboundedSender<&'static str>,
}

/// Tells the name of a thread when it ends, however it does.
struct Farewell(&'static str, UnboundedSender<&'static str>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody listens any more when all are being joined.
        let _ = self.1.send(self.0);
    }
}

impl Crew {
    /// A crew without members, and where the names of those that end are told.
    pub(super) fn new() -> (Self, UnboundedReceiver<&'static str>) {
        let (ended, told) = unbounded_channel();
        (Self { members: Vec::new(), ended }, told)
    }

    pub(super) fn start(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let farewell = Farewell(name, self.ended.clone());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _farewell = farewell;
            work()
        });
        self.members.push((name, thread.with_context(|| format!("thread {name} cannot be started"))?));
        Ok(())
    }

    /// Waits for all; the first failure is the reason.
    pub(super) fn join(self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for (name, thread) in self.members {
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
        .unwrap_or("without a word")
}
