//! `eval`: what policies decide, or would: for people one flow with the walk through the tiers, for programs many cases
//! as JSON lines.

mod answer;
mod batch;
mod flow;
mod walk;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Arg, Args, ValueEnum};
use netverdict_manifest::Finding;
use netverdict_policy::{End, EvaluateError, Family, Snapshot, evaluate};

use crate::{
    exit::Exit,
    objects::{ObjectsOrigin, Sources},
    place::{Destination, Place, namespace_name},
    runtime::block_on,
    structured::{json, yaml},
    terminal::Terminal,
};

/// Evaluates flows against manifests or a cluster: who would decide, before anything is applied
#[derive(Args, Debug)]
#[command(
    after_help = AFTER_HELP,
    mut_arg("filename", needs_a_flow),
    mut_arg("kubeconfig", needs_a_flow),
    mut_arg("context", needs_a_flow)
)]
pub(crate) struct Arguments {
    /// File of cases, a JSON object a line; - or nothing reads standard input
    #[arg(conflicts_with_all = ["filename", "kubeconfig", "context", "from", "to"])]
    cases: Option<PathBuf>,
    #[command(flatten)]
    sources: Sources,
    /// Where the connection comes from: NAMESPACE/POD, POD, or an address
    #[arg(long, value_name = "SOURCE", value_parser = Place::parse, requires = "to")]
    from: Option<Place>,
    /// Where it goes to: NAMESPACE/POD, POD, an address or [IPv6 address], then :PORT and /PROTOCOL
    #[arg(long, value_name = "DESTINATION[:PORT][/PROTOCOL]", value_parser = Destination::parse, requires = "from")]
    to: Option<Destination>,
    /// Namespace of pods that are named without one [default: that of the kubeconfig's context, else `default`]
    #[arg(short, long, env = "NETVERDICT_NAMESPACE", value_parser = namespace_name)]
    namespace: Option<String>,
    /// Which of the pods' addresses the flow uses [default: 4, or 6 where an end has no other]
    #[arg(long, value_enum)]
    family: Option<FamilyArgument>,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Exit with 0 if allowed, 3 if denied, 4 if not known
    #[arg(long, requires = "from")]
    exit_status: bool,
}

/// Cases bring their own objects.
fn needs_a_flow(argument: Arg) -> Arg {
    argument.requires("from").requires("to")
}

const AFTER_HELP: &str = "\
Examples:
  May the web pod reach the database, as the cluster of the current context is now?
    {program} eval --from shop/web --to db/pg:5432
  And would it, once this policy is applied?
    {program} eval -f policy.yaml --context production --from shop/web --to db/pg:5432
  Would these manifests let it, without any cluster?
    {program} eval -f policies/ -f pods.yaml --from shop/web --to db/pg:5432
  Many cases at once, answered line by line
    {program} eval cases.jsonl > verdicts.jsonl

With --from and --to and without -f it reads the cluster that kubectl would ask. With -f and --kubeconfig or --context it \
lays the manifests over that cluster: an object that both have is the manifests'.

A case is one line:
  {\"id\": \"1\", \"objects\": [Kubernetes objects],
   \"flows\": [{\"source\": {\"pod\": \"ns/name\"} or {\"ip\": \"...\"},
              \"destination\": {...}, \"protocol\": \"TCP\", \"port\": 80,
              \"family\": 4}]}

Without a port, a flow is allowed only if every port is; without a family it is IPv4, or IPv6 where an end has no other \
address. A case that cannot be read is answered by a line with `error`, a flow by a verdict `unknown` with its own `error`; \
all others go on.

Exit codes: 0 done, 1 it failed, 2 the arguments were not understood; with --exit-status: 0 allowed, 3 denied, 4 unknown.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FamilyArgument {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
}

pub(crate) fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    match (&arguments.from, &arguments.to) {
        (Some(from), Some(to)) => block_on(one(arguments, from, to, terminal)),
        // clap lets neither pass without the other.
        _ => batch::execute(arguments.cases.as_deref(), terminal),
    }
}

/// One flow, for people.
async fn one(arguments: &Arguments, from: &Place, to: &Destination, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let given = arguments.sources.read(terminal).await?;
    let reading = netverdict_manifest::snapshot(&given.objects);
    // What is not enforced as written changes the answer; the rest is for `lint`.
    let mut findings = given.findings;
    findings.extend(reading.findings);
    findings.retain(Finding::changes_verdicts);
    for finding in &findings {
        terminal.warn(&finding.to_string());
    }
    let namespace = arguments.namespace.as_deref().or(given.namespace.as_deref()).unwrap_or("default");
    let (source, destination) = (end(from, namespace), end(&to.place, namespace));
    let chosen = arguments.family.map(|family| match family {
        FamilyArgument::V4 => Family::V4,
        FamilyArgument::V6 => Family::V6,
    });
    let flow = flow::flow_between(&reading.snapshot, source, destination, to.protocol, to.port, chosen)?;
    let evaluation =
        evaluate(&reading.snapshot, &flow).map_err(|error| with_remedy(error, &reading.snapshot, given.origin));
    let evaluation = evaluation.context("cannot evaluate the flow")?;
    let text = match arguments.output {
        Output::Table => walk::explain(&reading.snapshot, &flow, &evaluation, terminal.paint()),
        Output::Json => json(&answer::OneAnswer::of(&evaluation, findings))?,
        Output::Yaml => yaml(&answer::OneAnswer::of(&evaluation, findings))?,
    };
    terminal.print(&text)?;
    Ok(if arguments.exit_status { Exit::of(evaluation.verdict) } else { Exit::Done })
}

fn end(place: &Place, namespace: &str) -> End {
    match place {
        Place::Address(address) => End::Address(*address),
        Place::Pod { .. } => End::Pod(place.pod(namespace).unwrap_or_default()),
    }
}

fn with_remedy(error: EvaluateError, snapshot: &Snapshot, origin: ObjectsOrigin) -> anyhow::Error {
    let holders = origin.words();
    let remedy = match &error {
        EvaluateError::UnknownPod(_) if snapshot.pods.is_empty() => {
            format!("{holders} no pods; add them with -f, or read a cluster with --kubeconfig or --context")
        }
        EvaluateError::UnknownPod(wanted) if snapshot.services.contains_key(wanted) => {
            "it is a Service: name a pod behind it, with that pod's own port".to_owned()
        }
        EvaluateError::UnknownPod(wanted) => {
            let similar = |name: &str| name.contains(&wanted.name) || wanted.name.contains(name);
            let mut near: Vec<_> = snapshot.pods.keys().filter(|key| similar(&key.name)).collect();
            // The same name elsewhere first, then the same namespace.
            near.sort_by_key(|key| (key.name != wanted.name, key.namespace != wanted.namespace));
            if near.is_empty() {
                near.extend(snapshot.pods.keys().filter(|key| key.namespace == wanted.namespace));
            }
            if near.is_empty() {
                near.extend(snapshot.pods.keys());
            }
            let names: Vec<_> = near.iter().take(5).map(ToString::to_string).collect();
            format!("{holders}, among others, {}", names.join(", "))
        }
        EvaluateError::ContestedAddress { .. } | EvaluateError::FamilyMismatch { .. } => return error.into(),
    };
    anyhow::anyhow!("{error}\n  {remedy}")
}
