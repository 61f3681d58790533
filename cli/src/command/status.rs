//! `status`: for each node, what works and what does not, with the remedy.

mod findings;
mod report;

use chrono::Utc;
use clap::Args;
use netverdict_flowlog::answer::ServiceStatus;
use serde::Serialize;

use self::findings::Finding;
use crate::{
    exit::Exit,
    service::{Service, ServiceOptions},
    structured::{Output, json, yaml},
    terminal::Terminal,
};

/// Shows for each node what works and what does not, with the remedy
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Only these nodes [default: all whose collectors the query service knows]
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Output format; wide adds columns about files, copies and events
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    service: ServiceOptions,
}

const AFTER_HELP: &str = "\
Examples:
  Is anything wrong, and what is to be done about it?
    {program} status
  One node, with its files, copies and events
    {program} status node-7 -o wide
  In a script: the nodes that have something wrong
    {program} status -o json | jq -r '.findings[].node'
  As it changes
    watch -n 5 {program} status

Columns:
  READY      no: the node should not be relied on. unknown: its collector does not answer
  POLICY     current: changes of the cluster come into force. stale: they are not seen, since so long.
             unpublished: they are seen and cannot be put in force. incomplete: an object cannot be read, and its last
             good state stays in force. none: no policy has come into force since the collector's start
  ENDPOINTS  interfaces that are judged as their pod's
  UNBOUND    interfaces with programs whose pod is not known or not in the tables: denied in mode enforce
  GAPS       events that were lost since the collector's start, and when the last one was
  UP         how long the collector has been running
  READ, RECORDED (wide)
             events read from the rings, and events in rows. Repeats of a denial are counted before they are a row

Exit codes: 0 all is well, 1 it failed, 2 the arguments were not understood, 5 something is not well: below the nodes, a
line for each problem says what, and the line after it what to do. A loss of events counts for an hour.";

/// The service's answer, and what is to be concluded from it.
#[derive(Debug, Serialize)]
struct Concluded<'a> {
    findings: &'a [Finding],
    #[serde(flatten)]
    status: &'a ServiceStatus,
}

pub(crate) async fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let service = Service::connect(&arguments.service).await?;
    let mut status: ServiceStatus = service.get("/v1/status", &[]).await?;
    let unknown = findings::keep_only(&mut status, &arguments.nodes);
    // Ages are measured by the clock that the times are of.
    let now = status.time.unwrap_or_else(Utc::now);
    let findings = findings::of(&status, &unknown, now);
    let text = match arguments.output {
        Output::Table => report::describe(&status, &findings, now, false, terminal.paint()),
        Output::Wide => report::describe(&status, &findings, now, true, terminal.paint()),
        Output::Json => json(&Concluded { findings: &findings, status: &status })?,
        Output::Yaml => yaml(&Concluded { findings: &findings, status: &status })?,
    };
    terminal.print(&text)?;
    Ok(if findings.is_empty() { Exit::Done } else { Exit::NotWell })
}
