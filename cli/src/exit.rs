//! Exit codes, as the help lists them.

use std::process::ExitCode;

use netverdict_policy::Verdict;

/// What the process tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It worked; of `lint`: nothing of severity error was found.
    Done = 0,
    /// It did not work; of `lint`: something of severity error was found.
    Error = 1,
    /// The arguments were not understood.
    Usage = 2,
    /// With `--exit-status`: the verdict is denied.
    Denied = 3,
    /// With `--exit-status`: the verdict is not known.
    Unknown = 4,
    /// Of `status`: something is not well.
    NotWell = 5,
}

impl Exit {
    pub(crate) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allowed => Self::Done,
            Verdict::Denied => Self::Denied,
            Verdict::Unknown => Self::Unknown,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
