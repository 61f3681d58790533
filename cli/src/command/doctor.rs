//! `doctor`: whether this node has everything that the collector needs, before it is installed.

use std::{fmt::Write as _, fs, path::Path};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::{
    exit::Exit,
    structured::{json, yaml},
    table::{Cell, Columns},
    terminal::{Paint, Terminal},
};

/// Checks whether this node can run the collector; changes nothing
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

const AFTER_HELP: &str = "\
Examples:
  On a node, before the collector is installed
    sudo {program} doctor
  Everything that does not pass, in a script
    sudo {program} doctor -o json | jq '.[] | select(.level != \"ok\")'

Exit codes: 0 nothing failed, 1 something the collector cannot do without is missing.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Failed,
}

/// The result of a check.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    found: String,
    /// Empty where nothing has to be done.
    remedy: String,
}

/// Oldest kernel with tcx, on which the programs are attached.
const OLDEST: (u32, u32) = (6, 6);
/// The capabilities that the collector takes, with their bits (`capabilities(7)`).
const CAPABILITIES: [(&str, u32); 6] = [
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];
const PLUGIN: &str = "netverdict-cni";
/// CNI plugins that give pods an interface without a peer on the node.
const UNCOVERED: [&str; 5] = ["macvlan", "ipvlan", "host-device", "sriov", "ib-sriov-cni"];

pub(crate) fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let findings = examine(Path::new("/"));
    let text = match arguments.output {
        Output::Table => describe(&findings, terminal.paint()),
        Output::Json => json(&findings)?,
        Output::Yaml => yaml(&findings)?,
    };
    terminal.print(&text)?;
    let failed = findings.iter().any(|finding| finding.level == Level::Failed);
    Ok(if failed { Exit::Error } else { Exit::Done })
}

/// All checks of the node whose files are below `root`.
fn examine(root: &Path) -> Vec<Finding> {
    let checks = [kernel, type_information, pin_root, lockdown, rights, connection_tracking, cgroups, pod_network];
    checks.iter().map(|check| check(root)).collect()
}

fn kernel(root: &Path) -> Finding {
    let release = read(root, "proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST;
    finding(
        "kernel",
        version >= OLDEST,
        Level::Failed,
        release,
        format!("boot Linux {major}.{minor} or newer: programs are attached by tcx"),
    )
}

fn type_information(root: &Path) -> Finding {
    let path = "sys/kernel/btf/vmlinux";
    let is_there = root.join(path).exists();
    let found = if is_there { format!("/{path}") } else { "none".to_owned() };
    finding("type information (BTF)", is_there, Level::Failed, found, "boot a kernel with CONFIG_DEBUG_INFO_BTF")
}

fn pin_root(root: &Path) -> Finding {
    let mounts = read(root, "proc/self/mounts");
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "bpf").then(|| place.to_owned())
    });
    let mounted: Vec<String> = mounted.collect();
    let usable = mounted.iter().any(|place| place == "/sys/fs/bpf");
    let found = if mounted.is_empty() { "not mounted".to_owned() } else { mounted.join(", ") };
    finding("BPF file system", usable, Level::Failed, found, "mount -t bpf bpf /sys/fs/bpf, also at every boot")
}

fn lockdown(root: &Path) -> Finding {
    let modes = read(root, "sys/kernel/security/lockdown");
    let mode = modes.split(['[', ']']).nth(1).unwrap_or("none").to_owned();
    let usable = mode != "confidentiality";
    finding(
        "kernel lockdown",
        usable,
        Level::Failed,
        mode,
        "boot without lockdown=confidentiality: programs may not read the kernel's memory",
    )
}

fn rights(root: &Path) -> Finding {
    let status = read(root, "proc/self/status");
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    let missing = CAPABILITIES.iter().filter(|(_, bit)| held & (1 << bit) == 0).map(|(name, _)| *name);
    let missing: Vec<&str> = missing.collect();
    let found =
        if missing.is_empty() { "all".to_owned() } else { format!("this process lacks {}", missing.join(", ")) };
    finding(
        "capabilities",
        missing.is_empty(),
        Level::Warning,
        found,
        "run it as root, or see that the collector gets them",
    )
}

fn connection_tracking(root: &Path) -> Finding {
    let loaded = root.join("proc/sys/net/netfilter/nf_conntrack_count").exists();
    let found = if loaded { "loaded" } else { "not loaded" };
    let remedy = "nothing, where no Service is used here; otherwise kube-proxy loads it: modprobe nf_conntrack";
    finding("connection tracking", loaded, Level::Warning, found, remedy)
}

fn cgroups(root: &Path) -> Finding {
    let (second, first) =
        (root.join("sys/fs/cgroup/cgroup.controllers").exists(), root.join("sys/fs/cgroup/unified").exists());
    let found = match (second, first) {
        (true, _) => "version 2",
        (false, true) => "version 1, with version 2 beside it",
        (false, false) => "version 1",
    };
    let any = root.join("sys/fs/cgroup").exists();
    let found = if any { found } else { "not mounted" };
    finding("cgroups", any, Level::Warning, found, "mount them: without the plugin, they tell whose an interface is")
}

/// The configuration that a container runtime takes: the first of the folder.
fn pod_network(root: &Path) -> Finding {
    const CHECK: &str = "network of pods (CNI)";
    let folder = root.join("etc/cni/net.d");
    let files = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_ours = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|kind| ["conf", "conflist", "json"].iter().any(|known| kind == *known))
    };
    let Some(first) = files.filter(is_ours).min() else {
        let remedy = "install the cluster's network first; the plugin is chained behind it";
        return finding(CHECK, false, Level::Warning, "no configuration in /etc/cni/net.d", remedy);
    };
    let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let plugins = plugins(&fs::read_to_string(&first).unwrap_or_default());
    let found = format!("{name}: {}", if plugins.is_empty() { "unreadable".to_owned() } else { plugins.join(", ") });
    let has = |any: &[&str]| plugins.iter().any(|plugin| any.contains(&plugin.as_str()));
    let remedy = if plugins.is_empty() {
        "mend the file: a list of plugins is expected"
    } else if has(&UNCOVERED) {
        "pods on such interfaces are recorded as not covered: nothing of theirs passes the node's side of a pair"
    } else if has(&["cilium-cni"]) {
        "Cilium enforces policies itself: run the collector in mode observe, or let one of both enforce"
    } else if has(&["calico"]) {
        "Calico enforces policies itself: run the collector in mode observe, or let one of both enforce"
    } else if !has(&[PLUGIN]) {
        "chain netverdict-cni behind it (docs/cni.md): without it a pod's first packets are judged late"
    } else {
        return finding(CHECK, true, Level::Ok, found, "");
    };
    finding(CHECK, false, Level::Warning, found, remedy)
}

/// The types of the plugins in a configuration, in their order.
fn plugins(configuration: &str) -> Vec<String> {
    let Ok(configuration) = serde_json::from_str::<Value>(configuration) else { return Vec::new() };
    let one = std::slice::from_ref(&configuration);
    let plugins = configuration["plugins"].as_array().map_or(one, Vec::as_slice);
    plugins.iter().filter_map(|plugin| Some(plugin["type"].as_str()?.to_owned())).collect()
}

fn finding(
    check: &'static str,
    passes: bool,
    otherwise: Level,
    found: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    let (level, remedy) = if passes { (Level::Ok, String::new()) } else { (otherwise, remedy.into()) };
    Finding { check, level, found: found.into(), remedy }
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_default().trim_end().to_owned()
}

fn describe(findings: &[Finding], paint: Paint) -> String {
    let row = |finding: &Finding| {
        let level = match finding.level {
            Level::Ok => Cell::new("ok"),
            Level::Warning => Cell::painted("warning", |paint, text| paint.yellow(text)),
            Level::Failed => Cell::painted("failed", |paint, text| paint.red(text)),
        };
        vec![Cell::new(finding.check), level, Cell::new(&finding.found)]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    let mut text = Columns::table(&["CHECK", "RESULT", "FOUND"], &rows, paint);
    let to_do: Vec<_> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
    if !to_do.is_empty() {
        text.push('\n');
    }
    for finding in to_do {
        let _ = writeln!(text, "{}: {}", finding.check, finding.remedy);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with these files, and nothing else.
    fn node(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const GOOD: [(&str, &str); 8] = [
        ("proc/sys/kernel/osrelease", "6.12.9-amd64\n"),
        ("sys/kernel/btf/vmlinux", ""),
        ("proc/self/mounts", "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n"),
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        ("proc/self/status", "Name:\tcollector\nCapEff:\t000001ffffffffff\n"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "3\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
        ("etc/cni/net.d/10-pods.conflist", r#"{"plugins":[{"type":"ptp"},{"type":"netverdict-cni"}]}"#),
    ];

    fn levels(root: &tempfile::TempDir) -> Vec<(&'static str, Level)> {
        examine(root.path()).into_iter().map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn a_node_with_everything_passes_every_check() {
        let findings = examine(node(&GOOD).path());
        assert!(findings.iter().all(|finding| finding.level == Level::Ok && finding.remedy.is_empty()), "{findings:?}");
    }

    #[test]
    fn a_node_with_nothing_is_told_what_to_do_about_each() {
        let findings = examine(node(&[]).path());
        let failed: Vec<_> =
            findings.iter().filter(|it| it.level == Level::Failed).map(|finding| finding.check).collect();
        assert_eq!(failed, ["kernel", "type information (BTF)", "BPF file system"]);
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok || !finding.remedy.is_empty()),
            "{findings:?}"
        );
    }

    #[test]
    fn each_obstacle_is_found_by_itself() {
        for (path, text, check, level) in [
            ("proc/sys/kernel/osrelease", "6.5.13", "kernel", Level::Failed),
            ("proc/self/mounts", "bpf /mnt/bpf bpf rw 0 0", "BPF file system", Level::Failed),
            ("sys/kernel/security/lockdown", "none integrity [confidentiality]", "kernel lockdown", Level::Failed),
            ("proc/self/status", "CapEff:\t0000000000000000", "capabilities", Level::Warning),
            ("etc/cni/net.d/05-first.conf", r#"{"type":"macvlan"}"#, "network of pods (CNI)", Level::Warning),
            (
                "etc/cni/net.d/05-cilium.conflist",
                r#"{"plugins":[{"type":"cilium-cni"}]}"#,
                "network of pods (CNI)",
                Level::Warning,
            ),
            ("etc/cni/net.d/05-broken.conflist", "{", "network of pods (CNI)", Level::Warning),
        ] {
            let files: Vec<_> = GOOD.iter().copied().chain([(path, text)]).collect();
            let others: Vec<_> = levels(&node(&files)).into_iter().filter(|(_, level)| *level != Level::Ok).collect();
            assert_eq!(others, [(check, level)], "{path}: {text}");
        }
    }
}
