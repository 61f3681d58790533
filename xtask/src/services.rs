//! Starts the collector, the query service and the command-line tool as a user would, and stops them on drop. The demo and
//! the pipeline suite use this.

use std::{
    fmt,
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    command::{cargo, output, target},
    progress,
    topology::PodNetwork,
};

/// How long a service may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// The files of one run: manifests, data, state, logs, and where its maps are pinned.
#[derive(Debug)]
pub struct RunFolder {
    pub root: PathBuf,
    pins: PathBuf,
    run_dir: PathBuf,
    programs: PathBuf,
}

/// How the programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    Dev,
    Release,
}

impl Profile {
    /// Where its programs are.
    pub(crate) fn folder(self) -> PathBuf {
        target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Release => "release",
        })
    }
}

/// Builds the programs that [`RunFolder`] runs.
pub fn build(profile: Profile) -> Result<()> {
    // The whole workspace chooses the features, whichever verb builds; only the programs named are built.
    let mut build = cargo();
    build.args(["build", "--workspace"]);
    for program in ["netverdict", "kubectl-verdict", "netverdict-collector", "netverdict-cni", "netverdict-query"] {
        build.args(["--bin", program]);
    }
    if profile == Profile::Release {
        build.arg("--release");
    }
    progress::cargo(&mut build, |_| {})
}

impl RunFolder {
    /// An empty folder, named after `name` and the process id.
    pub fn new(name: &str) -> Result<Self> {
        let name = format!("netverdict-{name}-{}", std::process::id());
        let root = std::env::temp_dir().join(&name);
        fs::create_dir_all(&root).with_context(|| format!("could not make {}", root.display()))?;
        let pins = Path::new("/sys/fs/bpf").join(name);
        let run_dir = root.join("run");
        Ok(Self { root, pins, run_dir, programs: Profile::Dev.folder() })
    }

    /// Pins and the runtime directory are where a node says, which has both file systems for itself.
    pub fn of_node(name: &str, pins: &Path, run_dir: &Path, profile: Profile) -> Result<Self> {
        let mut folder = Self::new(name)?;
        (folder.pins, folder.run_dir, folder.programs) = (pins.into(), run_dir.into(), profile.folder());
        Ok(folder)
    }

    pub fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Where the CNI plugin finds the collector.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub fn secret(&self) -> PathBuf {
        self.state().join("query.password")
    }

    /// Where maps and programs are pinned: not where a collector installed on this machine has its own.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    pub fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    /// A collector that reads the manifests of this run; addresses are `host:port`.
    pub fn collector(&self, node: &str, mode: &str, admin: &str, rows: &str) -> Command {
        let mut command = self.collector_of_anything(node, mode, admin, rows);
        command.arg("--manifests").arg(self.manifests());
        command
    }

    /// A collector that watches a cluster.
    pub fn collector_of_cluster(&self, node: &str, mode: &str, kubeconfig: &Path, admin: &str, rows: &str) -> Command {
        let mut command = self.collector_of_anything(node, mode, admin, rows);
        command.args(["--kubernetes", "--kubeconfig"]).arg(kubeconfig);
        command
    }

    fn collector_of_anything(&self, node: &str, mode: &str, admin: &str, rows: &str) -> Command {
        let mut command = self.program("netverdict-collector");
        command
            .args(["--cluster", "demo", "--node", node, "--mode", mode])
            .arg("--data-dir")
            .arg(self.data())
            .arg("--state-dir")
            .arg(self.state())
            .arg("--pin-root")
            .arg(self.pins())
            .arg("--run-dir")
            .arg(self.run_dir())
            .args(["--admin-address", admin, "--rows-address", rows]);
        command
    }

    /// A query service over the files of this run and, where there is one, a collector's rows (`http://host:port`).
    pub fn query(&self, collector: Option<&str>, http: &str, postgres: &str) -> Command {
        let mut command = self.program("netverdict-query");
        if let Some(url) = collector {
            command.args(["--collector", url]).arg("--collector-token-file").arg(self.state().join("collector.token"));
        }
        command.arg("--data-dir").arg(self.data()).arg("--secret-file").arg(self.secret()).args([
            "--http",
            http,
            "--postgres",
            postgres,
        ]);
        command
    }

    /// Calls the CNI plugin as a container runtime does when a pod's network is there. It is how a collector learns whose a
    /// namespace is that no process of a pod is in.
    pub fn announce(&self, pod: &PodNetwork) -> Result<()> {
        self.cni("ADD", pod, "allow").map(drop)
    }

    /// Calls the CNI plugin with a verb of the specification; what it wrote to standard output, which is the error too.
    pub fn cni(&self, verb: &str, pod: &PodNetwork, on_unavailable: &str) -> Result<Value> {
        let (namespace, name) = pod.pod.split_once('/').context("a pod is named namespace/name")?;
        let configuration = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "netverdict-cni", "onUnavailable": on_unavailable,
            "runDir": self.run_dir(), "pinRoot": self.pins(),
            "prevResult": { "cniVersion": "1.1.0", "ips": [
                { "address": format!("{}/24", pod.v4) }, { "address": format!("{}/64", pod.v6) },
            ] },
        });
        let mut plugin = self.program("netverdict-cni");
        plugin.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &pod.network_namespace).env("CNI_IFNAME", "eth0");
        plugin.env("CNI_NETNS", pod.path());
        let uid = pod.uid();
        plugin.env("CNI_ARGS", format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}"));
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = plugin.spawn().context("could not start netverdict-cni")?;
        child.stdin.take().context("stdin is piped")?.write_all(configuration.to_string().as_bytes())?;
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        if !done.status.success() {
            bail!("netverdict-cni: {said}");
        }
        Ok(serde_json::from_str(&said).unwrap_or(Value::Null))
    }

    /// Removes what was pinned, and the folder. Dropping it does the same.
    pub fn clean_up(&self) -> Result<()> {
        let detached = match self.pins.exists() {
            true => {
                output(self.program("netverdict").args(["probe", "detach", "--pin-root"]).arg(&self.pins)).map(drop)
            }
            false => Ok(()),
        };
        let removed = match self.root.exists() {
            true => fs::remove_dir_all(&self.root),
            false => Ok(()),
        };
        detached.context("could not detach the probes")?;
        removed.with_context(|| format!("could not remove {}", self.root.display()))
    }

    /// The output of the command-line tool, which is told where the query service is.
    pub fn netverdict(&self, query: &Serving, arguments: &[&str]) -> Result<String> {
        let mut command = self.program("netverdict");
        command.args(arguments).arg("--server").arg(query.url("http")?).arg("--token-file").arg(self.secret());
        output(&mut command)
    }
}

impl RunFolder {
    /// The result of a statement with one row and one numeric column.
    pub fn sql_number(&self, query: &Serving, statement: &str) -> Result<u64> {
        let answer = self.netverdict(query, &["sql", "-o", "json", statement])?;
        let answer: Value = serde_json::from_str(&answer)?;
        let value = answer[0].as_object().and_then(|row| row.values().next()).unwrap_or(&Value::Null);
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).with_context(|| format!("no number in {answer}"))
    }

    /// How many endpoints have complete tables and both programs.
    pub fn ready_endpoints(&self) -> Result<usize> {
        let mut command = self.program("netverdict");
        command.args(["probe", "status", "-o", "json", "--pin-root"]).arg(self.pins());
        let status = output(command.arg("--state-dir").arg(self.state()))?;
        let status: Value = serde_json::from_str(&status)?;
        let endpoints = status["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(endpoints.iter().filter(|endpoint| endpoint["ready"] == true).count())
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            eprintln!("{error:#}");
        }
    }
}

/// Fields of `/proc/PID/stat` behind the name, and the unit of both on every Linux.
const USER: usize = 11;
const SYSTEM: usize = 12;
const TICKS_PER_SECOND: u64 = 100;

/// Processor time of a process until now, and its memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu: Duration,
    /// With what it shares: its program, and ring buffers.
    pub resident: u64,
    pub private: u64,
}

/// A running service.
#[derive(Debug)]
pub struct Serving {
    name: &'static str,
    child: Child,
    /// What the program wrote to its ready file: which address each of its ports has.
    addresses: Value,
}

impl Serving {
    /// Starts it and waits until it has written its ready file. Its log goes to `<name>.log` in the folder of the run.
    pub fn start(folder: &RunFolder, name: &'static str, mut command: Command) -> Result<Self> {
        let ready = folder.root.join(format!("{name}.ready"));
        fs::remove_file(&ready).ok();
        let log_path = folder.root.join(format!("{name}.log"));
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
    pub fn address(&self, port: &str) -> Result<&str> {
        self.addresses[port].as_str().with_context(|| format!("{} did not say where it serves {port}", self.name))
    }

    pub fn url(&self, port: &str) -> Result<String> {
        Ok(format!("http://{}", self.address(port)?))
    }

    /// Its processor time and memory.
    pub fn usage(&self) -> Result<Usage> {
        let folder = Path::new("/proc").join(self.child.id().to_string());
        let status = fs::read_to_string(folder.join("status"))?;
        let kibibytes = |field: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let text = line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {field}"))?;
            Ok(text.parse()?)
        };
        let stat = fs::read_to_string(folder.join("stat"))?;
        // The name may have spaces, and ends with a bracket.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| -> Result<u64> { Ok(fields.get(field).context("a short line")?.parse()?) };
        Ok(Usage {
            cpu: Duration::from_millis((ticks(USER)? + ticks(SYSTEM)?) * 1_000 / TICKS_PER_SECOND),
            resident: kibibytes("VmRSS")? << 10,
            private: kibibytes("RssAnon")? << 10,
        })
    }

    /// Kills it, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop and waits; an error if it does not end with success.
    pub fn stop(mut self) -> Result<()> {
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

/// Polls until a condition holds that other programs bring about.
pub fn wait(condition: &str, patience: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !done()? {
        if started.elapsed() > patience {
            bail!("waited {patience:?}, but not yet: {condition}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The default address of a port if it is free, so that printed commands are the documented ones; else any free port.
pub fn usual(port: u16) -> String {
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
