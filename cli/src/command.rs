//! The command line: one module for each command.

mod completion;
mod doctor;
mod eval;
mod flows;
mod lint;
mod probe;
mod sql;
mod status;
mod why;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{exit::Exit, program::Program, runtime::block_on, service::USUAL_SERVICE, terminal::Terminal};

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
  Does every node enforce and record what it should?
    {program} status
  What would these manifests decide, before they are applied?
    {program} eval -f policies/ --from shop/web --to db/pg:5432

Exit codes: 0 done, 1 it failed, 2 the arguments were not understood; `why` and `eval` with \
--exit-status: 0 allowed, 3 denied, 4 unknown; `status`: 5 something is not well. NO_COLOR switches colours off.";

#[derive(Subcommand, Debug)]
enum Command {
    Why(why::Arguments),
    Flows(flows::Arguments),
    Status(status::Arguments),
    Sql(sql::Arguments),
    Eval(eval::Arguments),
    Lint(lint::Arguments),
    Probe(probe::Arguments),
    Doctor(doctor::Arguments),
    Completion(completion::Arguments),
}

pub(crate) fn execute(cli: Cli, program: &Program, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Why(arguments) => block_on(why::execute(&arguments, terminal)),
        Command::Flows(arguments) => block_on(flows::execute(&arguments, terminal)),
        Command::Status(arguments) => block_on(status::execute(&arguments, terminal)),
        Command::Sql(arguments) => block_on(sql::execute(&arguments, terminal)),
        Command::Eval(arguments) => eval::execute(&arguments, terminal),
        Command::Lint(arguments) => block_on(lint::execute(&arguments, terminal)),
        Command::Probe(arguments) => probe::execute(&arguments, terminal),
        Command::Doctor(arguments) => doctor::execute(&arguments, terminal),
        Command::Completion(arguments) => {
            completion::execute(&arguments, &mut command_line(&program.as_word()), program, terminal)
        }
    }
}

/// The command line, with a program's name in its usage and examples.
pub(crate) fn command_line(program: &Program) -> clap::Command {
    let command = Cli::command().name(program.shown).bin_name(program.shown);
    let command = with_examples_of(program, command);
    // kubectl knows a cluster, so its plugin asks the service that is in it.
    if program.is_plugin() { command.mut_subcommands(in_a_cluster) } else { command }
}

fn in_a_cluster(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| match argument.get_id() == "service" {
        true => argument.default_value(USUAL_SERVICE),
        false => argument,
    })
}

/// Examples are written with `{program}`: clap knows the name only in the usage line.
fn with_examples_of(program: &Program, mut command: clap::Command) -> clap::Command {
    if let Some(text) = command.get_after_help() {
        let text = text.to_string().replace("{program}", program.shown);
        command = command.after_help(text);
    }
    command.mut_subcommands(|inner| with_examples_of(program, inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        for program in [Program::NETVERDICT, Program::KUBECTL_PLUGIN] {
            command_line(&program).debug_assert();
        }
    }

    #[test]
    fn the_plugin_asks_in_the_cluster_unless_a_server_is_named() {
        for (program, expected) in [(Program::NETVERDICT, None), (Program::KUBECTL_PLUGIN, Some(USUAL_SERVICE))] {
            let matches = command_line(&program).try_get_matches_from([program.file, "why", "a/b", "c/d"]).unwrap();
            let (_, why) = matches.subcommand().unwrap();
            let service = why.get_raw("service").and_then(|mut values| values.next()?.to_str());
            assert_eq!(service, expected);
        }
    }

    #[test]
    fn help_names_the_program_as_it_was_called() {
        for (program, usage, example) in [
            (Program::NETVERDICT, "Usage: netverdict why ", "netverdict why shop/web db/pg:5432"),
            (Program::KUBECTL_PLUGIN, "Usage: kubectl verdict why ", "kubectl verdict why shop/web db/pg:5432"),
        ] {
            let error = command_line(&program).try_get_matches_from([program.file, "why", "--help"]).unwrap_err();
            let help = error.to_string();
            assert!(help.contains(usage), "{help}");
            assert!(help.contains(example), "{help}");
            assert!(!help.contains("{program}"), "{help}");
        }
    }
}
