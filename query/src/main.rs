//! The query service's process.

use clap::Parser as _;
use netverdict_query::{Options, serve::Service};
use netverdict_service::{
    confine::confine,
    error_chain::chain,
    shutdown::run_until_signal,
    telemetry::{ServiceIdentity, Telemetry},
};

const SERVICE: ServiceIdentity =
    ServiceIdentity { name: "netverdict-query", version: env!("CARGO_PKG_VERSION"), quiet: "datafusion_postgres=warn" };

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let telemetry = Telemetry::start(SERVICE, &options.telemetry)?;
    tracing::info!(?options, "starting");
    if let Err(error) = confine(&[]) {
        tracing::warn!(error = %chain(&error), "no system call is given up");
    }
    let result =
        run_until_signal(|shutdown| async move { Service::start(&options, shutdown).await?.run().await }).await;
    telemetry.stop();
    result?
}
