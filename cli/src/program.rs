//! The two names that the tool is installed under.

/// The name that the tool was started under.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// As typed on a command line.
    pub shown: &'static str,
    /// The file's name, for shell completion.
    pub file: &'static str,
    /// The same as one word: clap's script for bash knows no subcommands of a name with a space or a hyphen.
    pub(crate) word: &'static str,
}

impl Program {
    pub const NETVERDICT: Self = Self { shown: "netverdict", file: "netverdict", word: "netverdict" };
    /// kubectl runs a file called `kubectl-verdict` for `kubectl verdict`.
    pub const KUBECTL_PLUGIN: Self =
        Self { shown: "kubectl verdict", file: "kubectl-verdict", word: "kubectl_verdict" };

    /// The program under a name of one word.
    pub(crate) fn as_word(self) -> Self {
        Self { shown: self.word, ..self }
    }

    pub(crate) fn is_plugin(self) -> bool {
        self.file == Self::KUBECTL_PLUGIN.file
    }
}
