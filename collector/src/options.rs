//! The collector's options: long flags, `NETVERDICT_` variables, defaults with their reasons. It reads no file and opens
//! no socket.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use netverdict_flowlog::row::ModeName;
use netverdict_service::{
    http_server::HttpLimitOptions,
    quantity::{bytes, duration, positive_duration},
    telemetry::TelemetryOptions,
    variable::renamed,
};

use crate::receive::ReceiverOptions;

/// Read where no source is named.
const MANIFESTS: &str = "/etc/netverdict/manifests";

/// Enforces network policy on this node, and records for every connection which policy decided.
///
/// Reads the cluster's objects, keeps the probe's tables in the kernel up to date, and writes the probe's verdicts to
/// Parquet files. Needs root (or CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN) and Linux 6.6 or newer. Enforcement continues
/// when the collector ends; `netverdict probe detach` removes it.
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
    /// Writes the record of a file made with `--record`. Needs neither root nor BPF.
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
    pub http: HttpLimitOptions,
    #[command(flatten)]
    pub receivers: ReceiverOptions,
    #[command(flatten)]
    pub telemetry: TelemetryOptions,
    /// Also write every input of the pipeline to this file, for `replay`. For a bug report or a bench: it grows without
    /// bound.
    #[arg(long, env = "NETVERDICT_RECORD", value_name = "FILE", help_heading = "Record")]
    pub record: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct ReplayOptions {
    /// The recorded file.
    pub file: PathBuf,
    /// Name of the cluster, used in the paths of files.
    #[arg(long, env = "NETVERDICT_CLUSTER", default_value = "default", value_name = "NAME")]
    pub cluster: String,
    #[command(flatten)]
    pub storage: StorageOptions,
    #[command(flatten)]
    pub telemetry: TelemetryOptions,
}

/// The node that is recorded.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Identity")]
pub struct IdentityOptions {
    /// This node's name in the cluster: pods with that `nodeName` are local. Default: the host's name.
    #[arg(long, env = "NETVERDICT_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Name of the cluster, used in the paths of files. One bucket may hold several.
    #[arg(long, env = "NETVERDICT_CLUSTER", default_value = "default", value_name = "NAME")]
    pub cluster: String,
}

/// Where the cluster's objects come from.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster source")]
pub struct SourceOptions {
    /// Watch the Kubernetes API: Pods, Namespaces, Nodes, Services, NetworkPolicies, and every policy kind of
    /// policy.networking.k8s.io that it serves. Needs list and watch on them in all namespaces.
    #[arg(long, env = "NETVERDICT_WATCH_KUBERNETES")]
    pub kubernetes: bool,
    /// Kubeconfig of the cluster to watch [default: $KUBECONFIG, ~/.kube/config, or the pod's own account]
    #[arg(long, env = "NETVERDICT_KUBECONFIG", requires = "kubernetes", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use [default: its current one]
    #[arg(long, env = "NETVERDICT_CONTEXT", requires = "kubernetes", value_name = "NAME")]
    pub context: Option<String>,
    /// Folder of manifests: Pods, Namespaces, Nodes, Services and policies as YAML or JSON, read again when they
    /// change. A file that cannot be read keeps its last good objects. With --kubernetes, its objects count instead of those
    /// of the same name in the cluster [default: /etc/netverdict/manifests, with --kubernetes none]
    #[arg(long, env = "NETVERDICT_MANIFESTS", value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// How often the folder is read. A policy comes into force at most this much after its file was written.
    #[arg(long, env = "NETVERDICT_MANIFEST_INTERVAL", default_value = "500ms", value_parser = duration, value_name = "TIME")]
    pub manifest_interval: Duration,
}

impl SourceOptions {
    /// The folder of manifests that is read, if one is.
    pub fn folder(&self) -> Option<PathBuf> {
        let default = || (!self.kubernetes).then(|| PathBuf::from(MANIFESTS));
        self.manifests.clone().or_else(default)
    }
}

/// The programs and maps in the kernel.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Probe")]
pub struct ProbeArguments {
    /// What the node does with a denied packet. Observe by default, so that a first run drops nothing. A change needs a
    /// restart of the collector.
    #[arg(long, env = "NETVERDICT_MODE", value_enum, default_value_t = ModeArgument::Observe)]
    pub mode: ModeArgument,
    /// What an enforcing node does with a connection through a Service whose backend cannot be known, because the kernel's
    /// connection tracking cannot be read or something else translates the address. Deny by default: such a connection
    /// could go anywhere.
    #[arg(long, env = "NETVERDICT_UNRESOLVED_SERVICES", value_enum, default_value_t = UnresolvedArgument::Deny)]
    pub unresolved_services: UnresolvedArgument,
    /// Ring size, as seconds of collector downtime it can absorb at the expected event rates. Half a minute leaves room
    /// for a slow image pull. Rings that are already pinned keep their size.
    #[arg(long, env = "NETVERDICT_RING_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..), value_name = "SECONDS")]
    pub ring_seconds: u32,
    /// Expected denied packets per second, for the size of their ring. A busy node denies far fewer.
    #[arg(long, env = "NETVERDICT_RING_DENIED_RATE", default_value_t = 2_000, value_name = "EVENTS")]
    pub ring_denied_rate: u32,
    /// Expected new flows per second, for the size of their ring.
    #[arg(long, env = "NETVERDICT_RING_FLOW_RATE", default_value_t = 10_000, value_name = "EVENTS")]
    pub ring_flow_rate: u32,
    /// Folder on a BPF file system in which programs, maps and rings are pinned.
    #[arg(long, env = "NETVERDICT_PIN_ROOT", default_value = "/sys/fs/bpf/netverdict", value_name = "DIR")]
    pub pin_root: PathBuf,
    /// BPF object to load instead of the built-in one.
    #[arg(long, env = "NETVERDICT_BPF_OBJECT", value_name = "FILE")]
    pub bpf_object: Option<PathBuf>,
    /// Entries of the kernel's connection table; as many as nf_conntrack keeps on a node of 16 GiB. When it is full, the
    /// least recently used entry is evicted, and its next packet is evaluated again. A map that is already pinned keeps
    /// its size. The variable was NETVERDICT_MAX_CONNECTIONS, which is read if the new one is not set.
    #[arg(
        long,
        env = renamed("NETVERDICT_MAX_TRACKED_CONNECTIONS", "NETVERDICT_MAX_CONNECTIONS"),
        default_value_t = 262_144,
        value_name = "CONNECTIONS"
    )]
    pub max_connections: u32,
    /// Entries for (subject class, identity) pairs in the kernel. A change of policy needs room for the old and the new
    /// ones at once.
    #[arg(long, env = "NETVERDICT_MAX_PAIRS", default_value_t = 524_288, value_name = "PAIRS")]
    pub max_pairs: u32,
    /// How long to wait for another collector to release the probe: in a rolling update two of them overlap.
    #[arg(long, env = "NETVERDICT_LOCK_WAIT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub lock_wait: Duration,
    /// Time between full scans of the node's interfaces, in addition to the kernel's notifications about single ones.
    #[arg(long, env = "NETVERDICT_DISCOVER_INTERVAL", default_value = "1s", value_parser = positive_duration, value_name = "TIME")]
    pub discover_interval: Duration,
    /// Runtime directory: the socket that netverdict-cni asks, and what it has written down. On a file system that a
    /// reboot empties.
    #[arg(long, env = "NETVERDICT_RUN_DIR", default_value = "/run/netverdict", value_name = "DIR")]
    pub run_dir: PathBuf,
    /// What an interface is taken for whose other end is in a network namespace that has no process yet and that
    /// netverdict-cni has not announced: a pod's (attach), so that a pod's first packet is judged also without the plugin,
    /// or not (ignore), where other software has such namespaces. Once a process of a pod is there, it is a pod's.
    #[arg(long, env = "NETVERDICT_UNANNOUNCED", value_enum, default_value_t = Unannounced::Attach)]
    pub unannounced: Unannounced,
}

/// Files that are written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageOptions {
    /// Directory of the record: `<table>/cluster=…/date=…/hour=…/*.parquet`.
    #[arg(long, env = "NETVERDICT_DATA_DIR", default_value = "/var/lib/netverdict/data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Directory of the state that outlives the process: write-ahead log, meanings of ids, snapshots, the rows port's
    /// token.
    #[arg(long, env = "NETVERDICT_STATE_DIR", default_value = "/var/lib/netverdict/state", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// How long rows are kept in memory before they are flushed to a file. A minute makes 1 440 files a day and table;
    /// the rows port serves unflushed rows at once.
    #[arg(
        long,
        alias = "rotate-after",
        env = renamed("NETVERDICT_FLUSH_AFTER", "NETVERDICT_ROTATE_AFTER"),
        default_value = "60s",
        value_parser = duration,
        value_name = "TIME"
    )]
    pub flush_after: Duration,
    /// Rows of one table that are flushed earlier: one row group.
    #[arg(
        long,
        alias = "rotate-rows",
        env = renamed("NETVERDICT_FLUSH_ROWS", "NETVERDICT_ROTATE_ROWS"),
        default_value_t = 262_144,
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "ROWS"
    )]
    pub flush_rows: u64,
    /// Most bytes of the data directory. Above it the oldest hours are removed, and a gap is recorded. 0 is no cap.
    #[arg(long, env = "NETVERDICT_DISK_CAP", default_value = "20GiB", value_parser = bytes, value_name = "BYTES")]
    pub disk_cap: u64,
    /// When the write-ahead log is synced to disk: `none` survives a crash of the collector, `interval` loses at most a
    /// second in a crash of the node, `batch` loses nothing.
    #[arg(long, env = "NETVERDICT_FSYNC", value_enum, default_value_t = FsyncArgument::Interval)]
    pub fsync: FsyncArgument,
    /// Dedup window: repeats of one denial within it are counted in one row. 0s makes every denied packet a row.
    #[arg(long, env = "NETVERDICT_REPEAT_WINDOW", default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub repeat_window: Duration,
}

/// Ports. Port 0 takes a free one.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Listening")]
pub struct ListenOptions {
    /// Address for `/metrics`, `/livez`, `/readyz` and `/healthz`. They hold nothing of the record and need no token;
    /// with the rows port's token, `/readyz` also tells the text of problems.
    #[arg(long, env = "NETVERDICT_ADMIN_ADDRESS", default_value = "127.0.0.1:9470", value_name = "ADDRESS")]
    pub admin_address: SocketAddr,
    /// Address for unflushed rows, read by the query service. Needs the token.
    #[arg(long, env = "NETVERDICT_ROWS_ADDRESS", default_value = "127.0.0.1:9471", value_name = "ADDRESS")]
    pub rows_address: SocketAddr,
    /// File with the token of the rows port; made with mode 0600 if it does not exist, and read again when it changes.
    /// Default: `collector.token` in the state directory.
    #[arg(long, env = "NETVERDICT_COLLECTOR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate chain (PEM) of the rows port, which then speaks HTTPS. Read again when it changes. The query service
    /// trusts the authorities of its system, or those in the file that SSL_CERT_FILE names.
    #[arg(long, env = "NETVERDICT_ROWS_TLS_CERT", requires = "rows_tls_key", value_name = "FILE")]
    pub rows_tls_cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, env = "NETVERDICT_ROWS_TLS_KEY", requires = "rows_tls_cert", value_name = "FILE")]
    pub rows_tls_key: Option<PathBuf>,
    /// File to write once all ports are open and the first snapshot is in force, as JSON: `{"admin":"127.0.0.1:9470","rows":"127.0.0.1:9471"}`.
    #[arg(long, env = "NETVERDICT_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnresolvedArgument {
    /// Forward it; the record says that the backend is not known.
    Pass,
    /// Drop it; the record says so.
    Deny,
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
pub enum Unannounced {
    Attach,
    Ignore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FsyncArgument {
    None,
    Interval,
    Batch,
}

/// Every setting of the daemon as name and value, for the log and the table `settings`. None is secret.
pub fn effective(options: &RunOptions, node: &str) -> Vec<(String, String)> {
    let RunOptions { identity, source, probe, storage, listen, http, receivers, telemetry, record } = options;
    let IdentityOptions { node: _, cluster } = identity;
    let SourceOptions { kubernetes, kubeconfig, context, manifests: _, manifest_interval } = source;
    let ProbeArguments {
        mode,
        unresolved_services,
        ring_seconds,
        ring_denied_rate,
        ring_flow_rate,
        pin_root,
        bpf_object,
        max_connections,
        max_pairs,
        lock_wait,
        discover_interval,
        run_dir,
        unannounced,
    } = probe;
    let StorageOptions { data_dir, state_dir, flush_after, flush_rows, disk_cap, fsync, repeat_window } = storage;
    let ListenOptions { admin_address, rows_address, token_file, rows_tls_cert, rows_tls_key, ready_file } = listen;
    let HttpLimitOptions {
        http_max_connections,
        http_max_connections_per_address,
        http_header_timeout,
        http_idle_timeout,
    } = http;
    let TelemetryOptions { log, log_format, otlp_endpoint } = telemetry;
    let path = |path: &PathBuf| path.display().to_string();
    let maybe = |value: &Option<PathBuf>| value.as_ref().map(path).unwrap_or_default();
    let settings = [
        ("node", node.to_owned()),
        ("cluster", cluster.clone()),
        ("kubernetes", kubernetes.to_string()),
        ("kubeconfig", maybe(kubeconfig)),
        ("context", context.clone().unwrap_or_default()),
        ("manifests", maybe(&source.folder())),
        ("manifest-interval", format!("{manifest_interval:?}")),
        ("mode", ModeName::from(*mode).as_str().to_owned()),
        ("unresolved-services", format!("{unresolved_services:?}").to_lowercase()),
        ("ring-seconds", ring_seconds.to_string()),
        ("ring-denied-rate", ring_denied_rate.to_string()),
        ("ring-flow-rate", ring_flow_rate.to_string()),
        ("pin-root", path(pin_root)),
        ("bpf-object", maybe(bpf_object)),
        ("max-connections", max_connections.to_string()),
        ("max-pairs", max_pairs.to_string()),
        ("lock-wait", format!("{lock_wait:?}")),
        ("discover-interval", format!("{discover_interval:?}")),
        ("run-dir", path(run_dir)),
        ("unannounced", format!("{unannounced:?}").to_lowercase()),
        ("data-dir", path(data_dir)),
        ("state-dir", path(state_dir)),
        ("flush-after", format!("{flush_after:?}")),
        ("flush-rows", flush_rows.to_string()),
        ("disk-cap", disk_cap.to_string()),
        ("fsync", format!("{fsync:?}").to_lowercase()),
        ("repeat-window", format!("{repeat_window:?}")),
        ("admin-address", admin_address.to_string()),
        ("rows-address", rows_address.to_string()),
        ("token-file", maybe(token_file)),
        ("rows-tls-cert", maybe(rows_tls_cert)),
        ("rows-tls-key", maybe(rows_tls_key)),
        ("ready-file", maybe(ready_file)),
        ("http-max-connections", http_max_connections.to_string()),
        ("http-max-connections-per-address", http_max_connections_per_address.to_string()),
        ("http-header-timeout", format!("{http_header_timeout:?}")),
        ("http-idle-timeout", format!("{http_idle_timeout:?}")),
        ("record", maybe(record)),
        ("log", log.clone()),
        ("log-format", format!("{log_format:?}").to_lowercase()),
        // Shown without credentials.
        ("otlp-endpoint", otlp_endpoint.as_ref().map(ToString::to_string).unwrap_or_default()),
    ];
    settings.into_iter().chain(receivers.settings()).map(|(name, value)| (name.to_owned(), value)).collect()
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
    fn credentials_of_the_trace_receiver_are_not_on_record() {
        let arguments = ["netverdict-collector", "--otlp-endpoint", "http://user:secret@127.0.0.1:4317"];
        let options = Options::try_parse_from(arguments).unwrap();
        let settings = effective(&options.run, "node-1");
        let endpoint = settings.iter().find(|(name, _)| name == "otlp-endpoint").map(|(_, value)| value.as_str());
        assert_eq!(endpoint, Some("http://***@127.0.0.1:4317"));
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn manifests_lie_over_a_cluster_only_where_they_are_named() {
        let folder = |arguments: &[&str]| {
            let arguments = ["netverdict-collector"].iter().chain(arguments);
            Options::try_parse_from(arguments).unwrap().run.source.folder()
        };
        assert_eq!(folder(&[]), Some(MANIFESTS.into()));
        assert_eq!(folder(&["--kubernetes"]), None);
        assert_eq!(folder(&["--kubernetes", "--manifests", "/a"]), Some("/a".into()));
        let alone = Options::try_parse_from(["netverdict-collector", "--context", "production"]);
        assert!(alone.is_err(), "which cluster, and no cluster");
    }

    #[test]
    fn replay_needs_no_manifests() {
        let options = Options::try_parse_from(["netverdict-collector", "replay", "file.nvr"]).unwrap();
        assert!(matches!(options.command, Some(Command::Replay(_))));
    }
}
