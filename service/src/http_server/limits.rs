//! Limits on the clients of an HTTP port, as options and as numbers.

use std::time::Duration;

use clap::Args;

use crate::quantity::positive_duration;

/// Longest time for a graceful end of connections after the last request.
const DRAIN: Duration = Duration::from_secs(10);
/// A client that takes no byte of its answer for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const BODY_BYTES: usize = 2 << 20;

/// Limits of each HTTP port.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "HTTP limits")]
pub struct HttpLimitOptions {
    /// Most connections of one HTTP port. More are answered with 503. Each costs a file descriptor and some memory.
    #[arg(
        long,
        env = "NETVERDICT_HTTP_MAX_CONNECTIONS",
        default_value_t = 512,
        value_parser = positive,
        value_name = "CONNECTIONS"
    )]
    pub http_max_connections: usize,
    /// Most connections from one address to one HTTP port, so that one client cannot take all. An IPv6 network of
    /// length 64 counts as one address. Behind a proxy all clients have one address: raise it.
    #[arg(
        long,
        env = "NETVERDICT_HTTP_MAX_CONNECTIONS_PER_ADDRESS",
        default_value_t = 128,
        value_parser = positive,
        value_name = "CONNECTIONS"
    )]
    pub http_max_connections_per_address: usize,
    /// How long a client may take for a TLS handshake, and for the header of a request.
    #[arg(long, env = "NETVERDICT_HTTP_HEADER_TIMEOUT", default_value = "10s", value_parser = positive_duration, value_name = "TIME")]
    pub http_header_timeout: Duration,
    /// How long a connection is kept without a request, and a request without the next part of its body.
    #[arg(long, env = "NETVERDICT_HTTP_IDLE_TIMEOUT", default_value = "90s", value_parser = positive_duration, value_name = "TIME")]
    pub http_idle_timeout: Duration,
}

fn positive(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("expected a number of connections from 1 on, found `{text}`"))
}

/// Limits of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    /// From the first byte of a request's header to its last; on a new connection from its acceptance.
    pub header_timeout: Duration,
    /// Without a request; of a body, without its next part.
    pub idle_timeout: Duration,
    /// While the client takes nothing of its answer.
    pub write_timeout: Duration,
    /// Most bytes of a request's body; more is answered with 413.
    pub body_bytes: usize,
    /// How long requests may go on once the end is requested.
    pub drain: Duration,
}

impl HttpLimits {
    /// How often a connection's times are looked at.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self.header_timeout.min(self.idle_timeout).min(self.write_timeout);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

impl From<&HttpLimitOptions> for HttpLimits {
    fn from(options: &HttpLimitOptions) -> Self {
        let HttpLimitOptions {
            http_max_connections,
            http_max_connections_per_address,
            http_header_timeout,
            http_idle_timeout,
        } = options;
        Self {
            max_connections: *http_max_connections,
            max_connections_per_address: *http_max_connections_per_address,
            header_timeout: *http_header_timeout,
            idle_timeout: *http_idle_timeout,
            write_timeout: WRITE_TIMEOUT,
            body_bytes: BODY_BYTES,
            drain: DRAIN,
        }
    }
}
