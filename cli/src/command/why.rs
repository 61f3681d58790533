//! `why SOURCE DESTINATION`: the recorded verdict on a connection, and the policies that decided.

mod explain;

use chrono::{DateTime, Utc};
use clap::Args;
use netverdict_flowlog::answer::WhyAnswer;

use crate::{
    endpoint::{Destination, Endpoint, namespace_name},
    exit::Exit,
    moment::Moment,
    service::{Service, ServiceOptions},
    structured::{Output, json, yaml},
    terminal::Terminal,
    wording::time_text,
};

/// Explains why a connection was allowed or denied: the policies that decided, as they were at that time
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Where the connection comes from: NAMESPACE/POD, POD, or an address
    #[arg(value_parser = Endpoint::parse)]
    source: Endpoint,
    /// Where it goes to: NAMESPACE/POD, POD, an address or [IPv6 address], then :PORT and /PROTOCOL
    #[arg(value_name = "DESTINATION[:PORT][/PROTOCOL]", value_parser = Destination::parse)]
    destination: Destination,
    /// Namespace of pods that are given without one
    #[arg(short, long, env = "NETVERDICT_NAMESPACE", default_value = "default", value_parser = namespace_name)]
    namespace: String,
    /// Search from this time: a span like 15m before the end, or a time [default: 15m]
    #[arg(long, value_name = "SPAN|TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Search until this time in the past: a time, or a span like 2h for two hours ago [default: now]
    #[arg(long, value_name = "TIME|SPAN", value_parser = Moment::parse)]
    at: Option<Moment>,
    /// Output format; wide adds the text of each policy, as it was at that time
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Exit with 0 if allowed, 3 if denied, 4 if unknown
    #[arg(long)]
    exit_status: bool,
    #[command(flatten)]
    service: ServiceOptions,
}

const AFTER_HELP: &str = "\
Examples:
  The last verdict on record between two pods, on any port
    {program} why shop/web db/pg
  On one port, with the text of the policies that decided
    {program} why shop/web db/pg:5432 -o wide
  Who decided yesterday at noon
    {program} why shop/web db/pg:5432/tcp --at 2026-05-01T12:00:00Z
  To the world; IPv6 addresses are in brackets when a port follows
    {program} why shop/web '[2001:db8::1]:443'
  In a script
    {program} why shop/web db/pg:5432 --exit-status >/dev/null || echo \"not allowed\"

Where no packet is on record, the policies on record are evaluated instead, and the answer says so.
Exit codes: 0 done, 1 it failed, 2 the arguments were not understood; with --exit-status: \
0 allowed, 3 denied, 4 unknown.";

pub(crate) async fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let now = Utc::now();
    let service = Service::connect(&arguments.service).await?;
    let answer: WhyAnswer = service.get("/v1/why", &parameters(arguments, now)).await?;
    for reason in &answer.stale {
        terminal.warn(&format!("the answer may be out of date: {reason}"));
    }
    let text = match arguments.output {
        Output::Table => explain::explain(&answer, false, now, terminal.paint()),
        Output::Wide => explain::explain(&answer, true, now, terminal.paint()),
        Output::Json => json(&answer)?,
        Output::Yaml => yaml(&answer)?,
    };
    terminal.print(&text)?;
    Ok(if arguments.exit_status { Exit::of(answer.verdict) } else { Exit::Done })
}

fn parameters(arguments: &Arguments, now: DateTime<Utc>) -> [(&'static str, Option<String>); 6] {
    let Arguments { source, destination, namespace, since, at, output: _, exit_status: _, service: _ } = arguments;
    // A span of `--since` ends at the time of `--at`.
    let end = at.map_or(now, |moment| moment.resolve(now));
    [
        ("source", Some(source.text(namespace))),
        ("destination", Some(destination.endpoint.text(namespace))),
        ("port", destination.port.map(|port| port.to_string())),
        ("protocol", destination.protocol.map(|protocol| protocol.to_string())),
        ("since", since.map(|moment| time_text(moment, end))),
        ("at", at.map(|moment| time_text(moment, now))),
    ]
}
