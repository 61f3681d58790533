//! `netverdict`: the command-line tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    netverdict_cli::run(&netverdict_cli::Program::NETVERDICT, std::env::args_os())
}
