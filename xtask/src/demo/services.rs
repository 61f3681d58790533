//! The product's programs, run as a user would run them, and stopped whatever happens.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::command::{cargo, output, run, target};

/// How long a program may take to serve, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where everything of one run lies.
#[derive(Debug)]
pub(super) struct Place {
    pub root: PathBuf,
    programs: PathBuf,
}

impl Place {
    /// Builds the programs and makes an empty folder.
    pub(super) fn new() -> Result<Self> {
        run(cargo().args(["build", "-p", "netverdict-collector", "-p", "netverdict-query", "-p", "netverdict"]))?;
        let root = std::env::temp_dir().join(format!("netverdict-demo-{}", std::process::id()));
        fs::create_dir_all(&root).with_context(|| format!("could not make {}", root.display()))?;
        Ok(Self { root, programs: target().join("debug") })
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(super) fn secret(&self) -> PathBuf {
        self.state().join("query.password")
    }

    pub(super) fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf/netverdict-demo")
    }

    pub(super) fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    /// The command-line tool, pointed at the demo's query service.
    pub(super) fn netverdict(&self, query: &Serving, arguments: &[&str]) -> Result<String> {
        let mut command = self.program("netverdict");
        command.args(arguments).arg("--server").arg(query.url("http")?).arg("--token-file").arg(self.secret());
        output(&mut command)
    }
}

/// A program that serves.
#[derive(Debug)]
pub(super) struct Serving {
    name: &'static str,
    child: Child,
    /// What the program wrote to its ready file: which address each of its ports has.
    addresses: Value,
}

impl Serving {
    /// Starts it and waits until it says that it serves. Its log goes to `<name>.log` in the demo's folder.
    pub(super) fn start(place: &Place, name: &'static str, mut command: Command) -> Result<Self> {
        let ready = place.root.join(format!("{name}.ready"));
        fs::remove_file(&ready).ok();
        let log_path = place.root.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&log_path)?;
        command.arg("--ready-file").arg(&ready).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("could not start {name}"))?;
        let mut serving = Self { name, child, addresses: Value::Null };
        let started = Instant::now();
        loop {
            if let Some(addresses) = fs::read_to_string(&ready).ok().and_then(|text| serde_json::from_str(&text).ok()) {
                serving.addresses = addresses;
                return Ok(serving);
            }
            if let Some(status) = serving.child.try_wait()? {
                bail!("{name} ended with {status}; it said:\n{}", last_lines(&log_path));
            }
            if started.elapsed() > PATIENCE {
                bail!("{name} did not serve within {PATIENCE:?}; it said:\n{}", last_lines(&log_path));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `host:port` of one of its ports.
    pub(super) fn address(&self, port: &str) -> Result<&str> {
        self.addresses[port].as_str().with_context(|| format!("{} did not say where it serves {port}", self.name))
    }

    pub(super) fn url(&self, port: &str) -> Result<String> {
        Ok(format!("http://{}", self.address(port)?))
    }

    /// As a crash would.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// As an orderly shutdown would; the error is what it said if it did not end well.
    pub(super) fn stop(mut self) -> Result<()> {
        self.signal();
        let started = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}", self.name),
                None if started.elapsed() > PATIENCE => bail!("{} did not stop within {PATIENCE:?}", self.name),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn signal(&self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            // It may have gone already.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal();
            let started = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The usual address if it is free, so that the lines we print look familiar; else any.
pub(super) fn usual(port: u16) -> String {
    let address = format!("127.0.0.1:{port}");
    match TcpListener::bind(&address) {
        Ok(_) => address,
        Err(_) => "127.0.0.1:0".to_owned(),
    }
}

fn last_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
