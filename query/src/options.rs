//! What the service can be told: long flags, `NETVERDICT_` variables, defaults with their reasons. It reads no file and
//! opens no socket.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser};
use netverdict_service::telemetry::TelemetryOptions;

/// Answers which policy decided, over HTTP and the PostgreSQL protocol.
///
/// The service reads the Parquet files that collectors wrote and the rows that they have not yet written. It changes
/// nothing and needs no privilege. Ask it with `netverdict why`, `netverdict sql`, psql or Grafana.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "netverdict-query",
    version,
    args_override_self = true,
    after_help = "Try:\n  psql \"host=127.0.0.1 port=9432 user=netverdict dbname=netverdict\"   (password: the content of --secret-file)\n  netverdict=> select time, source, destination, policies from denials order by time desc limit 10;"
)]
pub struct Options {
    #[command(flatten)]
    pub data: DataOptions,
    #[command(flatten)]
    pub listen: ListenOptions,
    #[command(flatten)]
    pub limits: LimitOptions,
    #[command(flatten)]
    pub telemetry: TelemetryOptions,
}

/// Where the record is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Record")]
pub struct DataOptions {
    /// Directory of the record: `<table>/cluster=…/date=…/hour=…/*.parquet`. Made if it is not there.
    #[arg(long, env = "NETVERDICT_DATA_DIR", default_value = "/var/lib/netverdict/data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address of a collector's rows port, for instance `http://127.0.0.1:9471`; may be given more than once.
    /// Without any, only what is in files can be seen: up to a minute late.
    #[arg(long = "collector", env = "NETVERDICT_COLLECTORS", value_delimiter = ',', value_name = "URL")]
    pub collectors: Vec<String>,
    /// File with the token that collectors ask for. It is read at each request, so it may appear or change later.
    #[arg(
        long,
        env = "NETVERDICT_COLLECTOR_TOKEN_FILE",
        default_value = "/var/lib/netverdict/state/collector.token",
        value_name = "FILE"
    )]
    pub collector_token_file: PathBuf,
    /// How long to wait for a collector. When it is over, the answer is given without its rows and says so.
    #[arg(long, env = "NETVERDICT_COLLECTOR_TIMEOUT", default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub collector_timeout: Duration,
}

/// Where it listens, and who may ask.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Listening")]
pub struct ListenOptions {
    /// HTTP address. Loopback by default: the record tells who talks to whom. Port 0 takes a free one.
    #[arg(long, env = "NETVERDICT_HTTP", default_value = "127.0.0.1:9480", value_name = "ADDRESS")]
    pub http: SocketAddr,
    /// PostgreSQL address. Port 0 takes a free one.
    #[arg(long, env = "NETVERDICT_POSTGRES", default_value = "127.0.0.1:9432", value_name = "ADDRESS")]
    pub postgres: SocketAddr,
    /// File with the secret: the Bearer token for HTTP and the password of user `netverdict` for PostgreSQL. Made with
    /// a random secret and mode 0600 if it is not there; refused if others may read it.
    #[arg(
        long,
        env = "NETVERDICT_SECRET_FILE",
        default_value = "/var/lib/netverdict/state/query.password",
        value_name = "FILE"
    )]
    pub secret_file: PathBuf,
    /// Certificate chain (PEM) for PostgreSQL. With it, clients without TLS are refused.
    #[arg(long, env = "NETVERDICT_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate.
    #[arg(long, env = "NETVERDICT_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Listen on other than loopback addresses without TLS: passwords do not travel in clear (SCRAM), tokens and
    /// answers do. For pods behind a mesh or a TLS proxy.
    #[arg(long, env = "NETVERDICT_INSECURE")]
    pub insecure: bool,
    /// Written once everything serves, as JSON: `{"http":"127.0.0.1:9480","postgres":"127.0.0.1:9432"}`.
    #[arg(long, env = "NETVERDICT_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// What one question may cost.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Longest time for a statement, from planning to the last row.
    #[arg(long, env = "NETVERDICT_STATEMENT_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub statement_timeout: Duration,
    /// Memory for all running statements together, in MiB; what does not fit is spilled to temporary files.
    #[arg(long, env = "NETVERDICT_MEMORY_LIMIT", default_value_t = 512, value_parser = clap::value_parser!(u64).range(16..), value_name = "MIB")]
    pub memory_limit: u64,
    /// Temporary files of all running statements together, in MiB.
    #[arg(long, env = "NETVERDICT_SPILL_LIMIT", default_value_t = 1024, value_name = "MIB")]
    pub spill_limit: u64,
    /// Most rows of one HTTP answer; more are cut off and the answer says `truncated`.
    #[arg(long, env = "NETVERDICT_MAX_ROWS", default_value_t = 50_000, value_name = "ROWS")]
    pub max_rows: usize,
    /// Most pairs of rows that the joins of a statement may compare. A join without an equality that could be larger is
    /// refused before it starts; any other ends when it is.
    #[arg(long, env = "NETVERDICT_MAX_JOIN_PAIRS", default_value_t = 50_000_000, value_name = "PAIRS")]
    pub max_join_pairs: u64,
    /// Threads that run statements; 0 is one for each processor. Sockets are served by others, so a heavy statement
    /// keeps nobody from logging in.
    #[arg(long, env = "NETVERDICT_QUERY_THREADS", default_value_t = 0, value_name = "THREADS")]
    pub query_threads: usize,
    /// Most policy states that are kept, so that the next question about a node reads only what changed since. One for
    /// each node that people ask about, and some for older moments; 0 keeps none.
    #[arg(long, env = "NETVERDICT_KEPT_STATES", default_value_t = 16, value_name = "STATES")]
    pub kept_states: usize,
    /// Memory for kept policy states, in MiB; those used least recently go first. A state of 10 000 pods takes about 10.
    #[arg(long, env = "NETVERDICT_KEPT_STATES_MEMORY", default_value_t = 256, value_name = "MIB")]
    pub kept_states_memory: u64,
    /// Most PostgreSQL connections at once.
    #[arg(long, env = "NETVERDICT_POSTGRES_MAX_CONNECTIONS", default_value_t = 100, value_name = "CONNECTIONS")]
    pub max_connections: usize,
}

/// A length of time as people write it: `500ms`, `2s`, `15m`, `2h`, `7d`; a bare number is seconds.
///
/// # Errors
/// Says what was expected when the text is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("expected a time such as 500ms, 2s, 15m, 2h or 7d, found `{text}`");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return Err(wrong()),
    };
    // A century is enough, and keeps sums of times far from overflow.
    match number.checked_mul(milliseconds) {
        Some(total) if total <= 100 * 366 * 86_400_000 => Ok(Duration::from_millis(total)),
        _ => Err(format!("expected at most a hundred years, found `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_help_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in [("500ms", 500), ("2s", 2_000), ("15m", 900_000), ("2h", 7_200_000), ("3", 3_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "m", "-1s", "1.5h", "3 fortnights", "99999999999999999999d", "40000000000d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
