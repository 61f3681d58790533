//! The two names that the tool is installed under.

use clap::{Command, CommandFactory};

use crate::command::Cli;

/// Under which name the tool runs.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// As a person types it.
    pub shown: &'static str,
    /// The file's name, for shell completion.
    pub file: &'static str,
}

impl Program {
    pub const NETVERDICT: Self = Self { shown: "netverdict", file: "netverdict" };
    /// kubectl runs a file called `kubectl-verdict` for `kubectl verdict`.
    pub const KUBECTL_PLUGIN: Self = Self { shown: "kubectl verdict", file: "kubectl-verdict" };

    /// The command line, with this program's name in its usage and examples.
    pub(crate) fn command(&self) -> Command {
        let command = Cli::command().name(self.shown).bin_name(self.shown);
        self.named(command)
    }

    /// Examples are written with `{program}`, for clap knows the name only in the usage line.
    fn named(&self, mut command: Command) -> Command {
        if let Some(text) = command.get_after_help() {
            let text = text.to_string().replace("{program}", self.shown);
            command = command.after_help(text);
        }
        command.mut_subcommands(|inner| self.named(inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        for program in [Program::NETVERDICT, Program::KUBECTL_PLUGIN] {
            program.command().debug_assert();
        }
    }

    #[test]
    fn help_names_the_program_as_it_was_called() {
        for (program, usage, example) in [
            (Program::NETVERDICT, "Usage: netverdict why ", "netverdict why shop/web db/pg:5432"),
            (Program::KUBECTL_PLUGIN, "Usage: kubectl verdict why ", "kubectl verdict why shop/web db/pg:5432"),
        ] {
            let error = program.command().try_get_matches_from([program.file, "why", "--help"]).unwrap_err();
            let help = error.to_string();
            assert!(help.contains(usage), "{help}");
            assert!(help.contains(example), "{help}");
            assert!(!help.contains("{program}"), "{help}");
        }
    }
}
