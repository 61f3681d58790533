//! Tries the Debian packages as a stranger would, under a systemd of its own: settings of a unit that look right may confine
//! too much, and scripts of a package may leave something behind; only systemd and dpkg tell.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{run, which},
    machine::Obstacle,
};

const SYSTEMD: &str = "/lib/systemd/systemd";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Enters the control group that its system shall have, and then namespaces.
const ENTER: &str = "echo $$ >\"$0/cgroup.procs\" && exec unshare --mount --net --pid --uts --ipc --cgroup --fork \
                     --kill-child=KILL --propagation private bash -c \"$1\" boot \"$2\" \"$3\"";
/// How long it may take until systemd runs, and until its processes are gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this machine can boot a systemd and has a dpkg.
pub(super) fn possible() -> Result<(), Obstacle> {
    if !Path::new(SYSTEMD).exists() {
        return Err(format!("there is no {SYSTEMD}: install systemd"));
    }
    for program in ["dpkg", "deb-systemd-helper", "unshare", "nsenter"] {
        which(program).ok_or_else(|| format!("`{program}` is missing: the packages are Debian's"))?;
    }
    control_groups().map(drop)
}

/// Installs the packages of a folder, uses, upgrades, removes and purges them. `scratch` is an empty folder.
pub(super) fn run_all(packages: &Path, scratch: &Path) -> Result<()> {
    let system = System::boot(packages, scratch)?;
    run(Command::new("nsenter").args(["--all", "--target", &system.first.to_string(), "--"]).args([
        "env",
        "-i",
        PATH,
        "HOME=/root",
        "bash",
        "/packages/inside.sh",
    ]))
}

/// A booted system, which ends on drop.
struct System {
    child: Child,
    /// Its first process, as this machine numbers it.
    first: u32,
    group: PathBuf,
}

impl System {
    fn boot(packages: &Path, scratch: &Path) -> Result<Self> {
        fs::write(packages.join("inside.sh"), include_str!("trial/inside.sh"))?;
        let groups = control_groups().map_err(anyhow::Error::msg)?;
        let group = groups.join(format!("netverdict-packages-{}", std::process::id()));
        fs::create_dir(&group).with_context(|| format!("could not make {}", group.display()))?;
        let mut boot = Command::new("bash");
        boot.args(["-c", ENTER]).arg(&group).arg(include_str!("trial/boot.sh")).args([scratch, packages]);
        let child = boot.stdin(Stdio::null()).spawn().context("could not start bash")?;
        let mut system = Self { child, first: 0, group };
        system.first = system.wait()?;
        Ok(system)
    }

    /// Waits until systemd is the first process.
    fn wait(&mut self) -> Result<u32> {
        let outer = self.child.id();
        let started = Instant::now();
        loop {
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
            let first = children.split_whitespace().next().and_then(|number| number.parse::<u32>().ok());
            if let Some(first) = first
                && fs::read_to_string(format!("/proc/{first}/comm")).is_ok_and(|name| name.trim() == "systemd")
            {
                return Ok(first);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the system did not boot: {status}");
            }
            if started.elapsed() > PATIENCE {
                bail!("the system did not boot within {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Its child, and with that the namespaces, end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let started = Instant::now();
        while let Err(error) = remove_groups(&self.group) {
            if started.elapsed() > PATIENCE {
                eprintln!("{} could not be removed: {error}", self.group.display());
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes a control group and those below it, which systemd made.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_groups(&path)?;
        }
    }
    fs::remove_dir(group)
}

/// Where the second version of control groups is mounted.
fn control_groups() -> Result<PathBuf, Obstacle> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| format!("/proc/self/mounts: {error}"))?;
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, folder, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(folder))
    });
    found.ok_or_else(|| "version 2 of control groups is not mounted".to_owned())
}
