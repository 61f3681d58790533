//! `completion SHELL`: a script that makes a shell complete the tool's arguments.

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::{exit::Exit, terminal::Terminal};

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

/// `command` is the whole command line, `file` the name of the program's file.
pub(crate) fn execute(
    arguments: &Arguments,
    command: &mut Command,
    file: &str,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let shell = match arguments.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, command, file, &mut script);
    terminal.print(&String::from_utf8(script)?)?;
    Ok(Exit::Done)
}
