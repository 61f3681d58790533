//! A set of Linux namespaces, held by their first process: makes them, runs programs inside, ends them.
//!
//! The first process is xtask itself (the hidden verb `cluster init`). When it is killed, the kernel kills every process of
//! its PID namespace, and network and mounts go with the last of them. A namespace is found by the command line of its first
//! process, so that nothing is lost when a file with its number was not written.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use crate::command::target;

/// The kernel ends a namespace's processes at once, but they may have files and devices to give back.
const END_WITHIN: Duration = Duration::from_secs(30);
/// What the first process writes to its standard output when the namespaces are complete.
pub(super) const READY: &str = "ready";

/// Folders that a node has of its own.
const NODE: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);

/// The namespaces of one node, or of the world outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    first: Pid,
}

impl Namespaces {
    /// Makes them. `arguments` are those of the hidden verb `init`; `log` gets what its process complains of.
    pub(super) fn create(arguments: &[&str], folder: &Path, log: &Path) -> Result<Self> {
        let errors = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(own_program());
        command.args(["cluster", "init", "--folder"]).arg(folder).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut first = on_a_thread(|| {
            unshare(NODE).context("namespaces cannot be made: run it as root, outside of a restricted container")?;
            detached(&mut command).spawn().context("the first process of the namespaces cannot be started")
        })?;
        let mut said = String::new();
        BufReader::new(first.stdout.take().expect("stdout is piped")).read_line(&mut said)?;
        if said.trim() != READY {
            let _ = first.kill();
            let _ = first.wait();
            bail!("namespaces are not complete: {}", fs::read_to_string(log).unwrap_or_default().trim());
        }
        Ok(Self { first: process_id(&first)? })
    }

    /// Those whose first process was started with exactly these arguments.
    pub(super) fn find(arguments: &[&str], folder: &Path) -> Option<Self> {
        let is_it = |words: &[String]| words.get(5..).is_some_and(|rest| rest == arguments);
        let found = processes(folder).into_iter().find(|(_, words)| words[2] == "init" && is_it(words));
        found.map(|(first, _)| Self { first })
    }

    /// The first process, as this process sees it.
    pub fn process(self) -> Pid {
        self.first
    }

    /// Runs `work` on a thread inside all of them: programs that it starts are in there too, and are children of this
    /// process. `/proc/self` does not exist for that thread, since the process itself stays outside.
    pub fn enter<R: Send>(self, work: impl FnOnce() -> R + Send) -> Result<R> {
        // The mount namespace last, since the others are opened by path.
        self.enter_some(&["pid", "net", "uts", "ipc", "mnt"], work)
    }

    /// Runs `work` on a thread inside the network namespace only.
    pub fn enter_network<R: Send>(self, work: impl FnOnce() -> R + Send) -> Result<R> {
        self.enter_some(&["net"], work)
    }

    fn enter_some<R: Send>(self, kinds: &[&str], work: impl FnOnce() -> R + Send) -> Result<R> {
        let open = |kind: &&str| {
            let path = format!("/proc/{}/ns/{kind}", self.first);
            File::open(&path).with_context(|| format!("no namespace {path}: is the cluster down?"))
        };
        let namespaces = kinds.iter().map(open).collect::<Result<Vec<_>>>()?;
        on_a_thread(|| {
            // Threads share their working directory; one that does may not change its mounts.
            unshare(CloneFlags::CLONE_FS)?;
            for namespace in &namespaces {
                setns(namespace, CloneFlags::empty()).context("a namespace cannot be entered: run it as root")?;
            }
            Ok(work())
        })
    }

    /// Starts a program inside that outlives this process; its output is appended to `log`.
    pub(super) fn start(self, mut command: Command, log: &Path) -> Result<Child> {
        let output = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let name = command.get_program().to_string_lossy().into_owned();
        self.enter(|| detached(&mut command).spawn())?.with_context(|| format!("could not start {name}"))
    }
}

impl Namespaces {
    /// Kills every process inside that runs a program of this name, as a crash would. Those of containers are not inside.
    pub(super) fn kill(self, program: &str) -> Result<()> {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        let own = of(&self.first.to_string()).context("no namespaces: is the cluster down?")?;
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(process) = name.parse().map(Pid::from_raw) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let runs = Path::new(&*String::from_utf8_lossy(first)).file_name().is_some_and(|name| name == program);
            if runs && of(&name).as_ref() == Some(&own) {
                // It may have ended by itself; and if it is our child, nobody else takes its status.
                let _ = kill(process, Signal::SIGKILL);
                let _ = waitpid(process, None);
            }
        }
        Ok(())
    }
}

/// Kills every process that was started for the cluster of a folder, and waits until they are gone.
pub(super) fn end_all(folder: &Path) -> Result<()> {
    let started = Instant::now();
    loop {
        let all = processes(folder);
        for (process, _) in &all {
            // It may have ended by itself.
            let _ = kill(*process, Signal::SIGKILL);
            // If it is our child, nobody else takes its status.
            let _ = waitpid(*process, Some(WaitPidFlag::WNOHANG));
        }
        if all.is_empty() {
            return Ok(());
        }
        if started.elapsed() > END_WITHIN {
            let processes: Vec<_> = all.iter().map(|(process, _)| process.to_string()).collect();
            bail!("processes {} were killed {END_WITHIN:?} ago, and are still there", processes.join(", "));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the keeper of a folder's cluster runs.
pub(super) fn is_kept(folder: &Path) -> bool {
    processes(folder).iter().any(|(_, words)| words[2] == "keep")
}

/// A process group of its own, so that Ctrl-C on the terminal is not for it.
pub(super) fn detached(command: &mut Command) -> &mut Command {
    std::os::unix::process::CommandExt::process_group(command, 0)
}

/// xtask; this process may be a test that uses it as a library.
pub(super) fn own_program() -> PathBuf {
    target().join("debug/xtask")
}

/// The processes of xtask itself that belong to a cluster, without this one: `xtask cluster <verb> --folder <folder> …`.
fn processes(folder: &Path) -> Vec<(Pid, Vec<String>)> {
    let own = Pid::this();
    let folder = folder.to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else {
            continue;
        };
        // One that ends meanwhile, and a zombie, have none.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        // The line ends with a zero byte.
        let words = &words[..words.len() - 1];
        let is_ours = matches!(words, [_, cluster, verb, option, value, ..]
            if cluster == "cluster" && ["init", "keep"].contains(&verb.as_str()) && option == "--folder" && *value == folder);
        if is_ours && process != own {
            found.push((process, words.to_vec()));
        }
    }
    found
}

fn process_id(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(|_| Errno::ERANGE)?))
}

/// Namespaces are those of a thread, so that work inside of others needs one of its own.
pub(super) fn on_a_thread<R: Send>(work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    std::thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("the work in a namespace panicked"))?)
}
