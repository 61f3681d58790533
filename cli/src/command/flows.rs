//! `flows`: flow records by filter, once or as they arrive.

mod lines;

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use clap::Args;
use netverdict_flowlog::answer::{FlowsAnswer, Gap};
use netverdict_policy::{Verdict, model::Protocol};
use tokio::signal::unix::{SignalKind, signal};

use self::lines::Lines;
use crate::{
    endpoint::{Endpoint, namespace_name, parse_protocol, pod_name},
    exit::Exit,
    moment::Moment,
    service::{Service, ServiceError, ServiceOptions},
    structured::{Output, json, yaml},
    terminal::Terminal,
    wording::{gap_lines, time_text},
};

/// Lists flow records, newest last
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Keep printing new records until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Output format; wide adds nodes, addresses and near misses. With --follow, json is one object per line
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    service: ServiceOptions,
}

/// Most records in one answer of the service.
const MOST: i64 = 10_000;

/// Filters for records; all of them have to match.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
struct Filter {
    /// Only this verdict
    #[arg(long, value_name = "allowed|denied|unknown", value_parser = verdict)]
    verdict: Option<Verdict>,
    /// Only from this end: NAMESPACE/POD, or an address
    #[arg(long, value_name = "END", value_parser = Endpoint::parse)]
    source: Option<Endpoint>,
    /// Only to this end: NAMESPACE/POD, or an address
    #[arg(long, value_name = "END", value_parser = Endpoint::parse)]
    destination: Option<Endpoint>,
    /// Only where an end is in this namespace
    #[arg(short, long, value_parser = namespace_name)]
    namespace: Option<String>,
    /// Only where an end is this pod: POD, or NAMESPACE/POD
    #[arg(long, value_parser = pod)]
    pod: Option<String>,
    /// Only to this port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only this protocol: tcp, udp, sctp, icmp, icmpv6 or a number
    #[arg(long, value_parser = parse_protocol)]
    protocol: Option<Protocol>,
    /// Only flows that this policy decided: NAMESPACE/NAME, or NAME
    #[arg(long)]
    policy: Option<String>,
    /// Begin of the time: a span like 15m before now, or a time [default: 15m]
    #[arg(long, value_name = "SPAN|TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Most records to print; the newest are taken. At most 10000 [default: 200]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST))]
    limit: Option<u32>,
}

const AFTER_HELP: &str = "\
Examples:
  What is being denied, as it happens
    {program} flows --verdict denied --follow
  Who was denied at the database in the last hour, and how near they were
    {program} flows --verdict denied --destination db/pg --since 1h -o wide
  What one policy decided
    {program} flows --policy db/default-deny
  For a program, one object a line
    {program} flows --follow -o json | jq .source

Exit codes: 0 done (Ctrl-C and SIGTERM while following included), 1 it failed, 2 the arguments were not understood.";

fn verdict(text: &str) -> Result<Verdict, String> {
    Verdict::from_name(text).ok_or_else(|| format!("expected allowed, denied or unknown, found `{text}`"))
}

fn pod(text: &str) -> Result<String, crate::endpoint::EndpointError> {
    match text.split_once('/') {
        Some((namespace, name)) => Ok(format!("{}/{}", namespace_name(namespace)?, pod_name(name)?)),
        None => pod_name(text),
    }
}

pub(crate) async fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let service = Service::connect(&arguments.service).await?;
    let parameters = arguments.filter.parameters(Utc::now());
    if arguments.follow {
        return follow(&service, parameters, arguments.output, terminal).await;
    }
    let answer = ask(&service, &parameters).await?;
    for reason in &answer.stale {
        warn_stale(terminal, reason);
    }
    match arguments.output {
        Output::Json => terminal.print(&json(&answer)?)?,
        Output::Yaml => terminal.print(&yaml(&answer)?)?,
        Output::Table | Output::Wide => {
            if answer.flows.is_empty() {
                terminal.warn("no record matches; look back further with --since, or filter less");
            } else {
                let mut lines = Lines::new(arguments.output == Output::Wide, terminal.paint());
                terminal.print(&lines.next(&answer.flows))?;
            }
            warn_gaps(terminal, &answer.gaps);
        }
    }
    if answer.truncated {
        warn_cut(terminal, &answer);
    }
    Ok(Exit::Done)
}

impl Filter {
    fn parameters(&self, now: DateTime<Utc>) -> Vec<(&'static str, Option<String>)> {
        let Self { verdict, source, destination, namespace, pod, port, protocol, policy, since, limit } = self;
        let default_namespace = namespace.as_deref().unwrap_or("default");
        let end = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(|endpoint| endpoint.text(default_namespace));
        vec![
            ("verdict", verdict.map(|verdict| verdict.to_string())),
            ("source", end(source)),
            ("destination", end(destination)),
            ("namespace", namespace.clone()),
            ("pod", pod.clone()),
            ("port", port.map(|port| port.to_string())),
            ("protocol", protocol.map(|protocol| protocol.to_string())),
            ("policy", policy.clone()),
            ("since", since.map(|moment| time_text(moment, now))),
            ("limit", limit.map(|limit| limit.to_string())),
        ]
    }
}

async fn ask(service: &Service, parameters: &[(&'static str, Option<String>)]) -> Result<FlowsAnswer, ServiceError> {
    let mut answer: FlowsAnswer = service.get("/v1/flows", parameters).await?;
    answer.flows.sort_by_key(|flow| flow.time);
    Ok(answer)
}

fn warn_stale(terminal: &mut Terminal, reason: &str) {
    terminal.warn(&format!("the answer may be out of date: {reason}"));
}

fn warn_gaps(terminal: &mut Terminal, gaps: &[Gap]) {
    for line in gap_lines(gaps) {
        terminal.warn(&format!("known to be missing: {line}"));
    }
}

fn warn_cut(terminal: &mut Terminal, answer: &FlowsAnswer) {
    terminal.warn(&format!(
        "there are more records: these are the newest {}; ask for more with --limit (up to {MOST}), or for others with \
         --since and filters",
        answer.flows.len()
    ));
}

/// Pause after an answer without new records: a verdict must be shown within two seconds.
const PAUSE: Duration = Duration::from_millis(500);
/// Pause after the service did not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Resolves at Ctrl-C, and where the process is asked to end.
async fn asked_to_end() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        // Without a handler SIGTERM ends the process.
        Err(_) => _ = tokio::signal::ctrl_c().await,
    }
}

/// Prints new records until Ctrl-C, or until standard output is closed. If the service goes away it is asked again, but not
/// if it refuses.
async fn follow(
    service: &Service,
    mut parameters: Vec<(&'static str, Option<String>)>,
    output: Output,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let mut lines = Lines::new(output == Output::Wide, terminal.paint());
    let mut warned = HashSet::new();
    let mut interrupted = std::pin::pin!(asked_to_end());
    let mut away = false;
    loop {
        let asked = tokio::select! {
            asked = ask(service, &parameters) => asked,
            () = &mut interrupted => return Ok(Exit::Done),
        };
        let pause = match asked {
            Ok(answer) => {
                if std::mem::take(&mut away) {
                    terminal.warn("the query service is back");
                }
                for reason in answer.stale.iter().filter(|reason| warned.insert((*reason).clone())) {
                    warn_stale(terminal, reason);
                }
                let new: Vec<Gap> = answer.gaps.iter().filter(|gap| warned.insert(gap.to_string())).cloned().collect();
                warn_gaps(terminal, &new);
                if answer.truncated {
                    warn_cut(terminal, &answer);
                }
                let text = match output {
                    Output::Table | Output::Wide => lines.next(&answer.flows),
                    Output::Json => each(&answer, |flow| Ok(serde_json::to_string(flow)? + "\n"))?,
                    Output::Yaml => each(&answer, |flow| Ok(format!("---\n{}", yaml(flow)?)))?,
                };
                terminal.print(&text)?;
                let more = !answer.flows.is_empty();
                // Begin and limit hold for the first answer only.
                parameters.retain(|(name, _)| !matches!(*name, "after" | "since" | "limit"));
                parameters.push(("after", Some(answer.cursor)));
                if more { Duration::ZERO } else { PAUSE }
            }
            Err(error) if error.may_pass() && parameters.iter().any(|(name, _)| *name == "after") => {
                if !std::mem::replace(&mut away, true) {
                    terminal.warn(&format!("{}; asking again every {} s", first_line(&error), RETRY.as_secs()));
                }
                RETRY
            }
            Err(error) => return Err(error.into()),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut interrupted => return Ok(Exit::Done),
        }
        if terminal.reader_is_gone() {
            return Ok(Exit::Done);
        }
    }
}

fn each(
    answer: &FlowsAnswer,
    form: impl Fn(&netverdict_flowlog::answer::FlowLine) -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    answer.flows.iter().map(form).collect()
}

fn first_line(error: &ServiceError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
