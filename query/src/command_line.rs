//! The command line of the query service. The options of a port are with the port.

use clap::Parser;
use netverdict_service::telemetry::TelemetryOptions;

use crate::{
    options::{DataOptions, LimitOptions},
    ports::PortOptions,
};

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
    pub ports: PortOptions,
    #[command(flatten)]
    pub limits: LimitOptions,
    #[command(flatten)]
    pub telemetry: TelemetryOptions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn credentials_of_collectors_are_not_in_the_log_of_the_options() {
        let arguments = ["netverdict-query", "--collector", "https://user:password@node-1:9471"];
        let options = Options::try_parse_from(arguments).expect("options");
        let logged = format!("{options:?}");
        assert!(logged.contains("https://***@node-1:9471") && !logged.contains("password@"), "{logged}");
    }
}
