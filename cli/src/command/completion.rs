//! `completion SHELL`: a script that makes a shell complete the tool's arguments.

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::{exit::Exit, program::Program, terminal::Terminal};

/// Prints what makes a shell complete this tool's arguments
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    shell: Supported,
}

const AFTER_HELP: &str = "\
Examples:
  bash, for this session
    source <({program} completion bash)
  zsh, for good
    {program} completion zsh > \"${fpath[1]}/_netverdict\"
  fish, for good
    {program} completion fish > ~/.config/fish/completions/netverdict.fish";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

/// `command` is the whole command line, under the program's one word.
pub(crate) fn execute(
    arguments: &Arguments,
    command: &mut Command,
    program: &Program,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let script = match arguments.shell {
        Supported::Bash => registered_for(program, &generate(Shell::Bash, command, program.word)?),
        Supported::Zsh => generate(Shell::Zsh, command, program.file)?,
        Supported::Fish => generate(Shell::Fish, command, program.file)?,
    };
    terminal.print(&script)?;
    Ok(Exit::Done)
}

fn generate(shell: Shell, command: &mut Command, name: &str) -> anyhow::Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    Ok(String::from_utf8(script)?)
}

/// The script completes the program's file, whatever its functions are called.
fn registered_for(program: &Program, script: &str) -> String {
    let line = |line: &str| match line.trim_start().starts_with("complete -F") {
        true => line.strip_suffix(program.word).map_or(line.to_owned(), |begin| format!("{begin}{}", program.file)),
        false => line.to_owned(),
    };
    script.lines().map(|text| line(text) + "\n").collect()
}
