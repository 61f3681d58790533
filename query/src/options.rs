//! Options of the record and of statements: long flags, `NETVERDICT_` variables, defaults with their reasons.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use netverdict_service::{endpoint_url::EndpointUrl, quantity::duration};

/// Where the record is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Record")]
pub struct DataOptions {
    /// Directory of the record: `<table>/cluster=…/date=…/hour=…/*.parquet`. Made if it does not exist.
    #[arg(long, env = "NETVERDICT_DATA_DIR", default_value = "/var/lib/netverdict/data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address of a collector's rows port, for instance `http://127.0.0.1:9471`; may be given more than once. With `dns+`
    /// before it, every address of the host is a collector, for instance `dns+http://netverdict-collector:9471`. Without
    /// any, rows are visible only once they are in files: up to a minute late.
    #[arg(long = "collector", env = "NETVERDICT_COLLECTORS", value_delimiter = ',', value_name = "URL")]
    pub collectors: Vec<EndpointUrl>,
    /// File with the token of the collectors' rows ports. It is read at each request, so it may appear or change later.
    #[arg(
        long,
        env = "NETVERDICT_COLLECTOR_TOKEN_FILE",
        default_value = "/var/lib/netverdict/state/collector.token",
        value_name = "FILE"
    )]
    pub collector_token_file: PathBuf,
    /// Certificates (PEM) of the authority that the certificates of the collectors' rows ports are checked with, instead of
    /// the system's. Read again when it changes.
    #[arg(long, env = "NETVERDICT_COLLECTOR_CA_FILE", value_name = "FILE")]
    pub collector_ca_file: Option<PathBuf>,
    /// How long to wait for a collector. After that the answer is given without its rows, and says so.
    #[arg(long, env = "NETVERDICT_COLLECTOR_TIMEOUT", default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub collector_timeout: Duration,
    /// Copy the files of all collectors into the data directory, which then has the record of all nodes, also of those
    /// that are gone. The directory has to be empty the first time.
    #[arg(long, env = "NETVERDICT_MIRROR", requires = "collectors")]
    pub mirror: bool,
    /// Space for the copies, in GiB. Beyond it the oldest flows are removed here, and answers say so.
    #[arg(long, env = "NETVERDICT_MIRROR_LIMIT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..), value_name = "GIB")]
    pub mirror_limit: u64,
}

/// Limits of statements.
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
    /// Most rows of one HTTP answer; further rows are cut off and the answer says `truncated`.
    #[arg(long, env = "NETVERDICT_MAX_ROWS", default_value_t = 50_000, value_name = "ROWS")]
    pub max_rows: usize,
    /// Most pairs of rows that the joins of a statement may compare. A join without an equality that could be larger is
    /// refused before it starts; any other ends when it is.
    #[arg(long, env = "NETVERDICT_MAX_JOIN_PAIRS", default_value_t = 50_000_000, value_name = "PAIRS")]
    pub max_join_pairs: u64,
    /// Threads that run statements; 0 is one for each processor. Sockets are served by other threads, so a heavy
    /// statement does not keep anybody from logging in.
    #[arg(long, env = "NETVERDICT_QUERY_THREADS", default_value_t = 0, value_name = "THREADS")]
    pub query_threads: usize,
    /// Most policy states in the cache, so that the next question about a node reads only what changed since. One for
    /// each node that people ask about, and some for older moments; 0 keeps none.
    #[arg(long, env = "NETVERDICT_KEPT_STATES", default_value_t = 16, value_name = "STATES")]
    pub kept_states: usize,
    /// Memory for cached policy states, in MiB; the least recently used are evicted. A state of 10 000 pods takes about
    /// 10.
    #[arg(long, env = "NETVERDICT_KEPT_STATES_MEMORY", default_value_t = 256, value_name = "MIB")]
    pub kept_states_memory: u64,
}
