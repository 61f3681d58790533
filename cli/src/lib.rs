//! The command-line tool: queries the query service, evaluates and lints manifests, shows the probe of this node.
//!
//! Verdicts come from the engine or from the record, never from the tool. Answers go to standard output, warnings
//! and errors to standard error.

mod cluster;
mod command;
mod exit;
mod manifests;
mod moment;
mod objects;
mod place;
mod program;
mod runtime;
mod service;
mod structured;
mod table;
mod terminal;
mod wording;

use std::{ffi::OsString, process::ExitCode};

use clap::{FromArgMatches, error::ErrorKind};

pub use program::Program;

use crate::{
    exit::Exit,
    terminal::{Terminal, is_closed_pipe},
};

/// Reads the arguments, does what they ask, and gives the process's exit code: see [`Exit`].
pub fn run(program: &Program, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = command::command_line(program)
        .try_get_matches_from(arguments)
        .and_then(|matches| command::Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told when this cannot be printed.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked_for { Exit::Done } else { Exit::Usage }.into();
        }
    };
    let mut terminal = Terminal::of_process();
    match command::execute(cli, program, &mut terminal) {
        Ok(exit) => exit.into(),
        Err(error) if is_closed_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            terminal.error(&error);
            Exit::Error.into()
        }
    }
}
