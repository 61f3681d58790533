//! What the tool can be asked, one module a command.

mod completion;
mod eval;
mod flows;
mod lint;
mod probe;
mod sql;
mod why;

use clap::{Parser, Subcommand};

use crate::{exit::Exit, program::Program, terminal::Terminal};

/// Which network policy decided, as it stood at that moment
#[derive(Parser, Debug)]
#[command(version, about, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  Why can the web pod not reach the database?
    {program} why shop/web db/pg:5432
  What has been denied in namespace db in the last hour?
    {program} flows --verdict denied -n db --since 1h
  What would these manifests decide, before they are applied?
    {program} eval -f policies/ --from shop/web --to db/pg:5432

Exit codes: 0 done, 1 it failed, 2 the arguments were not understood; `why` and `eval` with \
--exit-status: 0 allowed, 3 denied, 4 unknown. NO_COLOR switches colours off.";

#[derive(Subcommand, Debug)]
enum Command {
    Why(why::Arguments),
    Flows(flows::Arguments),
    Sql(sql::Arguments),
    Eval(eval::Arguments),
    Lint(lint::Arguments),
    Probe(probe::Arguments),
    Completion(completion::Arguments),
}

pub(crate) fn execute(cli: Cli, program: &Program, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Why(arguments) => block_on(why::execute(&arguments, terminal)),
        Command::Flows(arguments) => block_on(flows::execute(&arguments, terminal)),
        Command::Sql(arguments) => block_on(sql::execute(&arguments, terminal)),
        Command::Eval(arguments) => eval::execute(&arguments, terminal),
        Command::Lint(arguments) => block_on(lint::execute(&arguments, terminal)),
        Command::Probe(arguments) => probe::execute(&arguments, terminal),
        Command::Completion(arguments) => completion::execute(&arguments, program, terminal),
    }
}

/// One thread is enough for one question at a time.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// As JSON for programs: indented, with its line's end.
fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn yaml(value: &impl serde::Serialize) -> anyhow::Result<String> {
    // Through a JSON value, so that both spell everything alike.
    let mut text = serde_saphyr::to_string(&serde_json::to_value(value)?)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
