//! The two names that the tool is installed under.

/// The name that the tool was started under.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// As typed on a command line.
    pub shown: &'static str,
    /// The file's name, for shell completion.
    pub file: &'static str,
}

impl Program {
    pub const NETVERDICT: Self = Self { shown: "netverdict", file: "netverdict" };
    /// kubectl runs a file called `kubectl-verdict` for `kubectl verdict`.
    pub const KUBECTL_PLUGIN: Self = Self { shown: "kubectl verdict", file: "kubectl-verdict" };

    /// The program under the name of its file, which is what shells complete.
    pub(crate) fn as_file(self) -> Self {
        Self { shown: self.file, ..self }
    }

    pub(crate) fn is_plugin(self) -> bool {
        self.file == Self::KUBECTL_PLUGIN.file
    }
}
