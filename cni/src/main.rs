//! `netverdict-cni`: reads a call of the container runtime, and writes its answer as the CNI specification says. With
//! arguments, which runtimes do not give, it puts itself in place on the node.

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
};

use netverdict_cni::{LARGEST_CONFIGURATION, answer, node};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() { answer_runtime() } else { change_node(&arguments) }
}

fn change_node(arguments: &[String]) -> ExitCode {
    if let Some(help) = node::help(arguments) {
        println!("{help}");
        return ExitCode::SUCCESS;
    }
    match node::run(arguments) {
        Ok(done) => {
            for line in done {
                println!("netverdict-cni: {line}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("netverdict-cni: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer_runtime() -> ExitCode {
    let mut configuration = Vec::new();
    // One byte more tells a configuration that is too large from one that just fits.
    let read = std::io::stdin().take(LARGEST_CONFIGURATION + 1).read_to_end(&mut configuration);
    let variable = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    let (text, succeeds) = match answer(read.map(|_| configuration.as_slice()), &variable) {
        Ok(text) => (text, true),
        Err(error) => (error.to_json(), false),
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    if succeeds && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
