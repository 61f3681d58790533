//! The read service's process.

use clap::Parser as _;
use netverdict_query::{Options, serve};
use netverdict_service::telemetry::{ServiceIdentity, Telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const SERVICE: ServiceIdentity = ServiceIdentity { name: "netverdict-query", version: env!("CARGO_PKG_VERSION"), quiet: "datafusion_postgres=warn" };

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let telemetry = Telemetry::start(SERVICE, &options.telemetry)?;
    tracing::info!(?options, "starting");
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let told = stop.clone();
    let listening = tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = told.cancelled() => {}
        }
        told.cancel();
    });
    let result = match serve::Service::start(&options, stop.clone()).await {
        Ok(service) => service.run().await,
        Err(error) => Err(error),
    };
    stop.cancel();
    listening.await?;
    telemetry.stop();
    result
}
