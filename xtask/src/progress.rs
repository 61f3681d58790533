//! Progress of builds and installations: a cold build takes minutes, and without output it looks like a hang.
//!
//! On a terminal cargo draws its own bar. On a pipe (CI, a log file) a line is printed every few seconds: time elapsed,
//! steps done of all, what is being compiled, and what runs beside cargo.

use std::{
    io::{BufRead, BufReader, IsTerminal, Read},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::shown;

/// How often a line is printed.
const INTERVAL: Duration = Duration::from_secs(15);

/// Tasks that run at this moment, beside cargo.
static RUNNING: Mutex<Vec<Task>> = Mutex::new(Vec::new());

#[derive(Clone)]
struct Task {
    name: String,
    started: Instant,
}

/// A task in progress; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
}

impl Running {
    /// Prints the name and registers the task.
    pub(crate) fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        println!("{name}");
        running().push(Task { name: name.clone(), started: Instant::now() });
        Self { name }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = running();
        if let Some(position) = running.iter().position(|task| task.name == self.name) {
            running.swap_remove(position);
        }
    }
}

fn running() -> MutexGuard<'static, Vec<Task>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a thread, and prints the tasks in progress while that takes time.
pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    let mut said = Instant::now();
    while !thread.is_finished() {
        if said.elapsed() >= INTERVAL {
            said = Instant::now();
            println!("waiting for: {}", tasks().join("; "));
        }
        thread::sleep(Duration::from_millis(50));
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The tasks in progress, each with its elapsed time.
fn tasks() -> Vec<String> {
    running().iter().map(|task| format!("{} ({})", task.name, minutes(task.started.elapsed()))).collect()
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// Runs cargo and shows its progress. `on_message` is called with each line of JSON on its standard output.
pub(crate) fn cargo(command: &mut Command, mut on_message: impl FnMut(&Value)) -> Result<()> {
    println!("$ {}", shown(command));
    let own_bar = std::io::stderr().is_terminal();
    command.stdout(Stdio::piped());
    if !own_bar {
        // The bar is the only output of a stable cargo that has the number of steps.
        command.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "160");
        command.env("CARGO_TERM_COLOR", "never");
        command.stderr(Stdio::piped());
    }
    let mut child = command.spawn().with_context(|| format!("could not start `{}`", shown(command)))?;
    let messages = child.stdout.take().expect("stdout is piped");
    let errors = child.stderr.take();
    let (sender, receiver) = channel();
    let status = thread::scope(|scope| {
        if let Some(errors) = errors {
            scope.spawn(move || read_bar(errors, &sender));
            scope.spawn(move || report(&receiver));
        }
        for line in BufReader::new(messages).lines() {
            match serde_json::from_str(&line?) {
                Ok(message) => on_message(&message),
                // Programs that cargo runs may print anything.
                Err(_) => continue,
            }
        }
        anyhow::Ok(child.wait()?)
    })?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Splits cargo's output: the progress bar goes to `bar`, everything else (warnings, errors) to standard error.
fn read_bar(errors: impl Read, bar: &Sender<Bar>) {
    let mut errors = BufReader::new(errors);
    let mut text = Vec::new();
    loop {
        text.clear();
        // A bar ends with a carriage return: the next one is drawn over it.
        match errors.read_until(b'\r', &mut text) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        for part in String::from_utf8_lossy(&text).lines() {
            let part = part.replace("\u{1b}[K", "");
            let text = part.trim();
            match Bar::read(text) {
                Some(found) => drop(bar.send(found)),
                None if is_chatter(text) => {}
                None => eprintln!("{}", part.trim_end()),
            }
        }
    }
}

/// One line per crate, which the periodic line replaces.
fn is_chatter(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    text.is_empty() || matches!(first, "Compiling" | "Downloading" | "Downloaded" | "Fresh" | "Checking")
}

/// `Building [====>   ] 210/537: arrow-cast, parquet`
#[derive(Debug, PartialEq, Eq)]
struct Bar {
    done: u32,
    all: u32,
    now: String,
}

impl Bar {
    fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.strip_prefix("Building [")?.split_once("] ")?;
        let (count, now) = rest.split_once(':').unwrap_or((rest, ""));
        let (done, all) = count.split_once('/')?;
        Some(Self { done: done.trim().parse().ok()?, all: all.trim().parse().ok()?, now: now.trim().to_owned() })
    }
}

fn report(bars: &Receiver<Bar>) {
    let started = Instant::now();
    let mut latest: Option<Bar> = None;
    let mut said = Instant::now();
    loop {
        match bars.recv_timeout(INTERVAL.saturating_sub(said.elapsed())) {
            Ok(bar) => latest = Some(bar),
            Err(RecvTimeoutError::Timeout) => {
                said = Instant::now();
                let mut parts = match &latest {
                    Some(Bar { done, all, now }) => vec![format!("{done} of {all} steps done; compiling {now}")],
                    None => vec!["cargo prepares the build".to_owned()],
                };
                parts.extend(tasks());
                println!("[{}] {}", minutes(started.elapsed()), parts.join("; "));
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_s_bar_is_read() {
        let bar = Bar::read("Building [===>    ] 210/537: arrow-cast, parquet(build)");
        assert_eq!(bar, Some(Bar { done: 210, all: 537, now: "arrow-cast, parquet(build)".to_owned() }));
        assert_eq!(Bar::read("Building bpf-linker"), None);
        assert_eq!(Bar::read("warning: unused variable"), None);
    }

    #[test]
    fn warnings_are_passed_on_and_the_bar_is_not() {
        let (sender, receiver) = channel();
        let written =
            "   Compiling a v1\n\u{1b}[K    Building [> ] 1/3: a\r\u{1b}[Kwarning: odd\n    Building [=>] 2/3: b\r";
        read_bar(written.as_bytes(), &sender);
        drop(sender);
        assert_eq!(receiver.iter().map(|bar| bar.done).collect::<Vec<_>>(), [1, 2]);
    }
}
