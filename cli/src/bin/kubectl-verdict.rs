//! The same tool as a kubectl plugin: `kubectl verdict why …`.

use std::process::ExitCode;

fn main() -> ExitCode {
    netverdict_cli::run(&netverdict_cli::Program::KUBECTL_PLUGIN, std::env::args_os())
}
