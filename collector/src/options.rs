//! What the collector can be told: long flags, `NETVERDICT_` variables, defaults with their reasons. It reads no file
//! and opens no socket.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use netverdict_flowlog::row::ModeName;
use netverdict_service::telemetry::TelemetryOptions;

/// Enforces network policy on this node, and records for every connection which policy decided.
///
/// Reads the cluster's objects, keeps the probe's tables in the kernel up to date, and writes what the probe judged as
/// Parquet files. Needs root (or CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN) and Linux 6.6 or newer. Enforcement goes on
/// when it ends: `netverdict probe detach` takes it away.
#[derive(Clone, Debug, Parser)]
#[command(name = "netverdict-collector", version, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunOptions,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Writes the record of a file that `--record` made. Needs neither root nor BPF.
    Replay(ReplayOptions),
}

/// The daemon.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    #[command(flatten)]
    pub identity: IdentityOptions,
    #[command(flatten)]
    pub source: SourceOptions,
    #[command(flatten)]
    pub probe: ProbeArguments,
    #[command(flatten)]
    pub storage: StorageOptions,
    #[command(flatten)]
    pub listen: ListenOptions,
    #[command(flatten)]
    pub receivers: ReceiverOptions,
    #[command(flatten)]
    pub telemetry: TelemetryOptions,
    /// Write all that reaches the pipeline into this file as well, for `replay`. For a bug report or a bench: it grows
    /// without bound.
    #[arg(long, env = "NETVERDICT_RECORD", value_name = "FILE", help_heading = "Record")]
    pub record: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct ReplayOptions {
    /// The recorded file.
    pub file: PathBuf,
    /// Name of the cluster, as it stands in the paths of files.
    #[arg(long, env = "NETVERDICT_CLUSTER", default_value = "default", value_name = "NAME")]
    pub cluster: String,
    #[command(flatten)]
    pub storage: StorageOptions,
    #[command(flatten)]
    pub telemetry: TelemetryOptions,
}

/// Whose record it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Identity")]
pub struct IdentityOptions {
    /// This node's name as the cluster has it: pods with that `nodeName` are local. Without it, the host's name.
    #[arg(long, env = "NETVERDICT_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Name of the cluster, as it stands in the paths of files. One bucket may hold several.
    #[arg(long, env = "NETVERDICT_CLUSTER", default_value = "default", value_name = "NAME")]
    pub cluster: String,
}

/// What it knows of the cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster source")]
pub struct SourceOptions {
    /// Folder of manifests: Pods, Namespaces, Nodes, Services and policies as YAML or JSON, read again when they
    /// change. A file that cannot be read keeps its last good objects.
    #[arg(long, env = "NETVERDICT_MANIFESTS", default_value = "/etc/netverdict/manifests", value_name = "DIR")]
    pub manifests: PathBuf,
    /// How often the folder is looked at. A policy is in force that much later, at most, than its file was written.
    #[arg(long, env = "NETVERDICT_MANIFEST_INTERVAL", default_value = "500ms", value_parser = duration, value_name = "TIME")]
    pub manifest_interval: Duration,
}

/// What it asks of the kernel.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Probe")]
pub struct ProbeArguments {
    /// What the node does with a denial. Observe by default, so that a first run cuts nobody off. A change needs a
    /// restart of the collector.
    #[arg(long, env = "NETVERDICT_MODE", value_enum, default_value_t = ModeArgument::Observe)]
    pub mode: ModeArgument,
    /// How long an outage of the collector the rings bridge at the expected rates, in seconds. Half a minute leaves
    /// room for a slow image pull. Rings that are pinned already keep their size.
    #[arg(long, env = "NETVERDICT_RING_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..), value_name = "SECONDS")]
    pub ring_seconds: u32,
    /// Expected denials per second, for the size of their ring. A busy node denies far fewer.
    #[arg(long, env = "NETVERDICT_RING_DENIED_RATE", default_value_t = 2_000, value_name = "EVENTS")]
    pub ring_denied_rate: u32,
    /// Expected new flows per second, for the size of their ring.
    #[arg(long, env = "NETVERDICT_RING_FLOW_RATE", default_value_t = 10_000, value_name = "EVENTS")]
    pub ring_flow_rate: u32,
    /// Folder on a BPF file system below which everything is pinned.
    #[arg(long, env = "NETVERDICT_PIN_ROOT", default_value = "/sys/fs/bpf/netverdict", value_name = "DIR")]
    pub pin_root: PathBuf,
    /// BPF object to load instead of the one that is built in.
    #[arg(long, env = "NETVERDICT_BPF_OBJECT", value_name = "FILE")]
    pub bpf_object: Option<PathBuf>,
    /// Connections that the node remembers; as many as nf_conntrack keeps on a node of 16 GiB. When full, the least
    /// recently used is judged anew. A map that is pinned already keeps its size.
    #[arg(long, env = "NETVERDICT_MAX_CONNECTIONS", default_value_t = 262_144, value_name = "CONNECTIONS")]
    pub max_connections: u32,
    /// (subject class, identity) pairs that the kernel can hold, old and new side by side during a change.
    #[arg(long, env = "NETVERDICT_MAX_PAIRS", default_value_t = 524_288, value_name = "PAIRS")]
    pub max_pairs: u32,
    /// How long to wait for another collector to let go of the probe: in a rolling update two of them overlap.
    #[arg(long, env = "NETVERDICT_LOCK_WAIT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub lock_wait: Duration,
    /// Time between full looks at the node's interfaces, beside the kernel's own word that one came or went.
    #[arg(long, env = "NETVERDICT_DISCOVER_INTERVAL", default_value = "1s", value_parser = duration, value_name = "TIME")]
    pub discover_interval: Duration,
}

/// Where the record goes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageOptions {
    /// Directory of the record: `<table>/cluster=…/date=…/hour=…/*.parquet`.
    #[arg(long, env = "NETVERDICT_DATA_DIR", default_value = "/var/lib/netverdict/data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Directory of what has to outlive the process: write-ahead log, meaning of ids, snapshots, the rows port's token.
    #[arg(long, env = "NETVERDICT_STATE_DIR", default_value = "/var/lib/netverdict/state", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// How long rows wait before they become a file. A minute makes 1 440 files a day and table; rows can be asked for
    /// at once all the same, at the rows port.
    #[arg(long, env = "NETVERDICT_ROTATE_AFTER", default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub rotate_after: Duration,
    /// Rows of one table that become a file earlier: one row group.
    #[arg(long, env = "NETVERDICT_ROTATE_ROWS", default_value_t = 262_144, value_parser = clap::value_parser!(u64).range(1..), value_name = "ROWS")]
    pub rotate_rows: u64,
    /// Most bytes that the data directory may hold; the oldest hours go first, and a gap says so. 0 is no cap.
    #[arg(long, env = "NETVERDICT_DISK_CAP", default_value = "20GiB", value_parser = bytes, value_name = "BYTES")]
    pub disk_cap: u64,
    /// When the write-ahead log is synced: `none` survives a crash of the collector, `interval` loses a second at most
    /// in a crash of the node, `batch` nothing.
    #[arg(long, env = "NETVERDICT_FSYNC", value_enum, default_value_t = FsyncArgument::Interval)]
    pub fsync: FsyncArgument,
    /// How long repeats of one denial are counted into one row. 0s makes every denied packet a row.
    #[arg(long, env = "NETVERDICT_REPEAT_WINDOW", default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub repeat_window: Duration,
}

/// Where it listens. Port 0 takes a free one.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Listening")]
pub struct ListenOptions {
    /// `/metrics`, `/healthz` and `/readyz`. They tell nothing of the record and ask for no token.
    #[arg(long, env = "NETVERDICT_ADMIN_ADDRESS", default_value = "127.0.0.1:9470", value_name = "ADDRESS")]
    pub admin_address: SocketAddr,
    /// Rows that are in no file yet, for the query service. Asks for the token.
    #[arg(long, env = "NETVERDICT_ROWS_ADDRESS", default_value = "127.0.0.1:9471", value_name = "ADDRESS")]
    pub rows_address: SocketAddr,
    /// File with the token for the rows port; made with mode 0600 if it is not there. Default: `collector.token` in
    /// the state directory.
    #[arg(long, env = "NETVERDICT_COLLECTOR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Written once everything serves, as JSON: `{"admin":"127.0.0.1:9470","rows":"127.0.0.1:9471"}`.
    #[arg(long, env = "NETVERDICT_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Logs of other systems that it takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Receivers")]
pub struct ReceiverOptions {
    /// Take the flow log of Calico's Goldmane at this address: set `PUSH_URL` of its emitter to
    /// `http://ADDRESS/v1/goldmane`. Off by default: its rows repeat what our own probe sees on the same node.
    #[arg(long, env = "NETVERDICT_GOLDMANE_LISTEN", value_name = "ADDRESS")]
    pub goldmane_listen: Option<SocketAddr>,
    /// File with a token that the sender must give; made with mode 0600 if it is not there. Without it nobody is asked:
    /// the emitter itself has no token to send, a proxy before this port may.
    #[arg(long, env = "NETVERDICT_GOLDMANE_TOKEN_FILE", value_name = "FILE", requires = "goldmane_listen")]
    pub goldmane_token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArgument {
    /// Judge and record; never drop.
    Observe,
    /// As observe; the record also tells what enforcement would do.
    Audit,
    /// Drop what is denied.
    Enforce,
}

impl From<ModeArgument> for ModeName {
    fn from(mode: ModeArgument) -> Self {
        match mode {
            ModeArgument::Observe => Self::Observe,
            ModeArgument::Audit => Self::Audit,
            ModeArgument::Enforce => Self::Enforce,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FsyncArgument {
    None,
    Interval,
    Batch,
}

/// A length of time: `500ms`, `2s`, `15m`, `2h`, `7d`; a bare number is seconds.
///
/// # Errors
/// Says what was expected when the text is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a time such as 500ms, 2s, 15m, 2h or 7d, found `{text}`");
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    // A century is enough, and keeps sums of times far from overflow.
    let most = Duration::from_hours(100 * 366 * 24);
    number.checked_mul(milliseconds).map(Duration::from_millis).filter(|time| *time <= most).ok_or_else(wrong)
}

/// An amount of bytes: `500MiB`, `20GiB`, `1TB`; a bare number is bytes.
///
/// # Errors
/// Says what was expected when the text is none.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected an amount such as 500MiB, 20GiB or 1TB, found `{text}`");
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

/// Every setting of the daemon as name and value, for the log and the table `settings`. Nothing in it is secret.
pub fn effective(options: &RunOptions, node: &str) -> Vec<(String, String)> {
    let RunOptions { identity, source, probe, storage, listen, receivers, telemetry, record } = options;
    let IdentityOptions { node: _, cluster } = identity;
    let SourceOptions { manifests, manifest_interval } = source;
    let ProbeArguments {
        mode,
        ring_seconds,
        ring_denied_rate,
        ring_flow_rate,
        pin_root,
        bpf_object,
        max_connections,
        max_pairs,
        lock_wait,
        discover_interval,
    } = probe;
    let StorageOptions { data_dir, state_dir, rotate_after, rotate_rows, disk_cap, fsync, repeat_window } = storage;
    let ListenOptions { admin_address, rows_address, token_file, ready_file } = listen;
    let ReceiverOptions { goldmane_listen, goldmane_token_file } = receivers;
    let TelemetryOptions { log, log_format, otlp_endpoint } = telemetry;
    let path = |path: &PathBuf| path.display().to_string();
    let maybe = |value: &Option<PathBuf>| value.as_ref().map(path).unwrap_or_default();
    let settings = [
        ("node", node.to_owned()),
        ("cluster", cluster.clone()),
        ("manifests", path(manifests)),
        ("manifest-interval", format!("{manifest_interval:?}")),
        ("mode", ModeName::from(*mode).as_str().to_owned()),
        ("ring-seconds", ring_seconds.to_string()),
        ("ring-denied-rate", ring_denied_rate.to_string()),
        ("ring-flow-rate", ring_flow_rate.to_string()),
        ("pin-root", path(pin_root)),
        ("bpf-object", maybe(bpf_object)),
        ("max-connections", max_connections.to_string()),
        ("max-pairs", max_pairs.to_string()),
        ("lock-wait", format!("{lock_wait:?}")),
        ("discover-interval", format!("{discover_interval:?}")),
        ("data-dir", path(data_dir)),
        ("state-dir", path(state_dir)),
        ("rotate-after", format!("{rotate_after:?}")),
        ("rotate-rows", rotate_rows.to_string()),
        ("disk-cap", disk_cap.to_string()),
        ("fsync", format!("{fsync:?}").to_lowercase()),
        ("repeat-window", format!("{repeat_window:?}")),
        ("admin-address", admin_address.to_string()),
        ("rows-address", rows_address.to_string()),
        ("token-file", maybe(token_file)),
        ("ready-file", maybe(ready_file)),
        ("goldmane-listen", goldmane_listen.map(|address| address.to_string()).unwrap_or_default()),
        ("goldmane-token-file", maybe(goldmane_token_file)),
        ("record", maybe(record)),
        ("log", log.clone()),
        ("log-format", format!("{log_format:?}").to_lowercase()),
        // May hold credentials in its user part.
        ("otlp-endpoint", if otlp_endpoint.is_some() { "set".to_owned() } else { String::new() }),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_option_has_a_flag_and_a_variable() {
        let command = Options::command();
        command.clone().debug_assert();
        for argument in
            command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        {
            let flag = argument.get_long().unwrap_or_else(|| panic!("{} has no flag", argument.get_id()));
            let variable = argument.get_env().unwrap_or_else(|| panic!("--{flag} has no variable"));
            assert!(variable.to_string_lossy().starts_with("NETVERDICT_"), "{variable:?}");
            assert!(argument.get_help().is_some(), "--{flag} has no help");
        }
    }

    #[test]
    fn times_and_amounts_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(bytes("20GiB"), Ok(20 << 30));
        assert_eq!(bytes("5 MB"), Ok(5_000_000));
        for wrong in ["", "s", "-1s", "1 fortnight", "99999999999999999999d", "18446744073709551615h"] {
            duration(wrong).expect_err(wrong);
            bytes(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn replay_needs_no_manifests() {
        let options = Options::try_parse_from(["netverdict-collector", "replay", "file.nvr"]).unwrap();
        assert!(matches!(options.command, Some(Command::Replay(_))));
    }
}
