//! `probe await-nodes`: the last step of an uninstall waits until every node is clean.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use netverdict_cluster::kubernetes::{Access, NodeCounts};
use tokio::time::{Instant, sleep};

use crate::{exit::Exit, terminal::Terminal};

const POLL: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The DaemonSet whose ready pods say that their nodes are clean
    #[arg(value_name = "DAEMONSET")]
    name: String,
    #[arg(short, long, value_name = "NAME")]
    namespace: String,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    within: u64,
}

pub(super) async fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let Arguments { name, namespace, within } = arguments;
    let connection = Access::default().connect().await?;
    let started = Instant::now();
    loop {
        // The API server may be away for a moment; what it says last is told.
        let counts = connection.daemon_set(namespace, name).await;
        if let Ok(Some(counts)) = counts
            && counts.is_complete()
        {
            terminal.print(&format!("{} nodes are clean\n", counts.ready))?;
            return Ok(Exit::Done);
        }
        if started.elapsed() >= Duration::from_secs(*within) {
            let NodeCounts { desired, ready } = counts?.unwrap_or(NodeCounts { desired: 0, ready: 0 });
            bail!(
                "after {within} s {ready} of {desired} nodes are clean: `kubectl -n {namespace} get pods -o wide` shows where \
                 {name} is not ready, and the logs of its pods say why"
            );
        }
        sleep(POLL).await;
    }
}
