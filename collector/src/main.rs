//! `netverdict-collector`: reads its options and starts the collector or a command.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use netverdict_collector::{
    daemon,
    options::{Command, Options, ReplayOptions, RunOptions},
    replay,
};
use netverdict_service::{
    confine::{Kept, confine},
    error_chain::chain,
    shutdown::run_until_signal,
    telemetry::{ServiceIdentity, Telemetry, TelemetryOptions},
};

const SERVICE: ServiceIdentity =
    ServiceIdentity { name: "netverdict-collector", version: env!("CARGO_PKG_VERSION"), quiet: "" };

/// For blocking work that still runs when the daemon has ended.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Keeps large buffers: rows come and go by the hundred thousand.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    // The record says who talks to whom: it is for its group, and not for every user of the node.
    rustix::process::umask(rustix::fs::Mode::RWXO | rustix::fs::Mode::WGRP);
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netverdict-collector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Options { command, run }: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let telemetry = |options: &TelemetryOptions| {
        let _inside = runtime.enter();
        Telemetry::start(SERVICE, options)
    };
    match command {
        None => {
            let telemetry = telemetry(&run.telemetry)?;
            give_up_system_calls(&run);
            let result = runtime.block_on(run_until_signal(|shutdown| daemon::run(run, shutdown)));
            telemetry.stop();
            // Tasks that still run were given up: nothing waits for a start that was called off.
            runtime.shutdown_timeout(LAST_MOMENT);
            result.context("signals cannot be handled")?
        }
        Some(Command::Replay(options)) => {
            let telemetry = telemetry(&options.telemetry)?;
            let result = replay_file(&options);
            telemetry.stop();
            result
        }
    }
}

/// Outside of a cluster a kubeconfig may name a program that gives credentials.
fn give_up_system_calls(run: &RunOptions) {
    let is_inside = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let kept: &[Kept] = match run.source.kubernetes && !is_inside {
        true => &[Kept::Kernel, Kept::Programs],
        false => &[Kept::Kernel],
    };
    if let Err(error) = confine(kept) {
        tracing::warn!(error = %chain(&error), "no system call is given up");
    }
}

fn replay_file(options: &ReplayOptions) -> anyhow::Result<()> {
    let ReplayOptions { file, cluster, storage, telemetry: _ } = options;
    let window = u64::try_from(storage.repeat_window.as_nanos()).unwrap_or(u64::MAX);
    let replayed = replay::replay(file, window, |node, boot| daemon::store_options(storage, cluster, node, boot))?;
    println!("{} events of {} inputs on record in {}", replayed.events, replayed.inputs, storage.data_dir.display());
    anyhow::ensure!(replayed.whole, "the file is cut off or damaged: what comes before that is on record");
    Ok(())
}
