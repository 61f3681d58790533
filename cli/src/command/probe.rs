//! `probe status` and `probe detach`: the BPF programs and maps in this node's kernel.

mod await_nodes;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use netverdict_probe::{ProbeError, Removed, Status};

use crate::{
    exit::Exit,
    runtime::block_on,
    structured::{json, yaml},
    table::{Cell, Columns},
    terminal::{Paint, Terminal},
};

/// Shows or removes the probe in this node's kernel; needs root
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
Examples:
  Show which programs are attached, and how full their maps are
    sudo {program} probe status
  Stop enforcing on this node, and remove every pinned program and map
    sudo {program} probe detach

The probe keeps enforcing without the collector: stopping the collector detaches nothing.";

/// Between two looks whether the collector has ended.
const POLL: Duration = Duration::from_millis(200);

#[derive(Subcommand, Debug)]
enum Action {
    /// Shows mode, attached endpoints, programs, and map occupancy
    Status {
        #[command(flatten)]
        pins: Pins,
        /// Folder of the collector's state, which names the pods of the interfaces
        // The collector's own default.
        #[arg(long, env = "NETVERDICT_STATE_DIR", default_value = "/var/lib/netverdict/state", value_name = "PATH")]
        state_dir: PathBuf,
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Removes all programs and maps: nothing is recorded or enforced on this node afterwards
    Detach {
        #[command(flatten)]
        pins: Pins,
        /// Longest wait for a collector that is about to end, in seconds
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
        wait: u64,
        /// Stay afterwards until ended: the pod of a DaemonSet says so that its node is clean
        #[arg(long, hide = true)]
        stay: bool,
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Waits until a DaemonSet is ready on every node
    #[command(hide = true)]
    AwaitNodes(await_nodes::Arguments),
}

#[derive(Args, Debug)]
struct Pins {
    /// Folder of the BPF file system in which programs and maps are pinned
    // The collector's own default.
    #[arg(long, env = "NETVERDICT_PIN_ROOT", default_value = "/sys/fs/bpf/netverdict", value_name = "PATH")]
    pin_root: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

pub(crate) fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::Status { pins, state_dir, output } => {
            let status = netverdict_probe::status(&pins.pin_root, state_dir).or_else(|error| explain(error, pins))?;
            let text = match output {
                Output::Table => describe(&status, terminal.paint()),
                Output::Json => json(&status)?,
                Output::Yaml => yaml(&status)?,
            };
            terminal.print(&text)?;
        }
        Action::Detach { pins, wait, stay, output } => {
            let removed = detach(&pins.pin_root, Duration::from_secs(*wait)).or_else(|error| explain(error, pins))?;
            let text = match output {
                Output::Table => format!(
                    "removed {} links, {} programs and {} maps from {}\n",
                    removed.links,
                    removed.programs,
                    removed.maps,
                    pins.pin_root.display()
                ),
                Output::Json => json(&removed)?,
                Output::Yaml => yaml(&removed)?,
            };
            terminal.print(&text)?;
            if *stay {
                loop {
                    std::thread::park();
                }
            }
        }
        Action::AwaitNodes(arguments) => return block_on(await_nodes::execute(arguments, terminal)),
    }
    Ok(Exit::Done)
}

/// Removes everything, as soon as no collector holds it.
fn detach(pin_root: &Path, wait: Duration) -> Result<Removed, ProbeError> {
    let started = Instant::now();
    loop {
        match netverdict_probe::detach_all(pin_root) {
            Err(ProbeError::Locked { .. }) if started.elapsed() < wait => std::thread::sleep(POLL),
            other => return other,
        }
    }
}

/// Adds the remedy where root rights are missing, which the kernel reports with several errors.
fn explain<T>(error: ProbeError, pins: &Pins) -> anyhow::Result<T> {
    let denied = std::iter::successors(Some(&error as &dyn std::error::Error), |cause| cause.source())
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied);
    if denied {
        bail!(
            "{} can only be read as root\n  run the command again with sudo, on the node itself",
            pins.pin_root.display()
        );
    }
    Err(error.into())
}

fn describe(status: &Status, paint: Paint) -> String {
    let Status { abi_version, other_versions, mode, revision, running, programs, maps, endpoints, uplinks } = status;
    let mut text = String::new();
    let _ = writeln!(text, "mode {}, policy revision {revision}, ABI version {abi_version}", paint.bold(mode));
    text.push_str(if *running {
        "a collector is running\n"
    } else {
        "no collector is running: the kernel keeps applying the last published policies\n"
    });
    for other in other_versions {
        let _ = writeln!(text, "{} another ABI version is pinned at {other}", paint.yellow("warning:"));
    }
    let ready = endpoints.iter().filter(|endpoint| endpoint.ready).count();
    let plural = if endpoints.len() == 1 { "" } else { "s" };
    let _ = writeln!(text, "{} endpoint{plural}, {ready} with policies in force\n", endpoints.len());
    if !endpoints.is_empty() {
        let rows: Vec<_> = endpoints
            .iter()
            .map(|endpoint| {
                let attached = match (endpoint.from_pod, endpoint.to_pod) {
                    (true, true) => "both",
                    (true, false) => "from the pod only",
                    (false, true) => "to the pod only",
                    (false, false) => "no",
                };
                vec![
                    Cell::new(endpoint.interface.as_deref().unwrap_or("gone")),
                    Cell::new(endpoint.ifindex.to_string()),
                    Cell::new(endpoint.pod.as_deref().unwrap_or("-")),
                    Cell::new(attached),
                    Cell::new(if endpoint.ready { "yes" } else { "no" }),
                ]
            })
            .collect();
        text.push_str(&Columns::table(&["INTERFACE", "INDEX", "POD", "ATTACHED", "READY"], &rows, paint));
        text.push('\n');
    }
    let uplinks = if uplinks.is_empty() { "nothing".to_owned() } else { uplinks.join(", ") };
    let _ = writeln!(text, "what leaves the node is judged at {uplinks}\n");
    let rows: Vec<_> = programs
        .iter()
        .map(|program| vec![Cell::new(&program.name), Cell::new(program.id.to_string()), Cell::new(&program.tag)])
        .collect();
    text.push_str(&Columns::table(&["PROGRAM", "ID", "TAG"], &rows, paint));
    text.push('\n');
    let rows: Vec<_> = maps
        .iter()
        .map(|map| {
            let used = map.used.map_or_else(|| "-".to_owned(), |used| used.to_string());
            // A full map blocks new policies, so the limit should be raised at nine tenths.
            let tight = map.used.is_some_and(|used| used.saturating_mul(10) >= map.limit.saturating_mul(9));
            let used = if tight { Cell::painted(used, |paint, text| paint.red(text)) } else { Cell::new(used) };
            vec![Cell::new(map.map), used, Cell::new(map.limit.to_string())]
        })
        .collect();
    text.push_str(&Columns::table(&["MAP", "USED", "LIMIT"], &rows, paint));
    text
}

#[cfg(test)]
mod tests {
    use netverdict_probe::{EndpointStatus, MapOccupancy, ProgramStatus};

    use super::*;

    #[test]
    fn status_lists_endpoints_programs_and_maps() {
        let status = Status {
            abi_version: 1,
            other_versions: vec!["/sys/fs/bpf/netverdict/v0".to_owned()],
            mode: "enforce",
            revision: 7,
            running: false,
            programs: vec![ProgramStatus { name: "from_pod".to_owned(), id: 12, tag: "ab01".to_owned() }],
            maps: vec![
                MapOccupancy { map: "pairs", used: Some(95), limit: 100 },
                MapOccupancy { map: "columns", used: None, limit: 10 },
            ],
            endpoints: vec![EndpointStatus {
                ifindex: 3,
                interface: Some("veth0".to_owned()),
                pod: Some("db/pg".to_owned()),
                ready: true,
                owner: 5,
                from_pod: true,
                to_pod: false,
            }],
            uplinks: vec!["eth0".to_owned(), "flannel.1".to_owned()],
        };
        assert_eq!(
            describe(&status, Paint::default()),
            "\
mode enforce, policy revision 7, ABI version 1
no collector is running: the kernel keeps applying the last published policies
warning: another ABI version is pinned at /sys/fs/bpf/netverdict/v0
1 endpoint, 1 with policies in force

INTERFACE  INDEX  POD    ATTACHED           READY
veth0      3      db/pg  from the pod only  yes

what leaves the node is judged at eth0, flannel.1

PROGRAM   ID  TAG
from_pod  12  ab01

MAP      USED  LIMIT
pairs    95    100
columns  -     10
"
        );
    }

    #[test]
    fn nothing_pinned_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins { pin_root: folder.path().join("absent") };
        let found = netverdict_probe::status(&pins.pin_root, folder.path()).or_else(|error| explain(error, &pins));
        let error = found.unwrap_err().to_string();
        assert!(error.starts_with("nothing is pinned at ") && error.contains("absent"), "{error}");
    }
}
