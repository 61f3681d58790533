//! Where the answer goes: standard output and error, colours, characters that must not reach a terminal.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use netverdict_policy::Verdict;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The process's output.
#[derive(Debug)]
pub(crate) struct Terminal {
    output: Paint,
    errors: Paint,
}

impl Terminal {
    /// Colours only on a terminal, and not where `NO_COLOR` is set (<https://no-color.org>) or `TERM` is `dumb`.
    pub(crate) fn of_process() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        Self {
            output: Paint { on: wanted && io::stdout().is_terminal() },
            errors: Paint { on: wanted && io::stderr().is_terminal() },
        }
    }

    pub(crate) fn paint(&self) -> Paint {
        self.output
    }

    /// Writes to standard output at once. A closed pipe is an error; see [`is_closed_pipe`].
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    /// Whether nobody reads standard output any more, as after `head`: known before there is anything to write.
    pub(crate) fn reader_is_gone(&self) -> bool {
        let output = io::stdout();
        let mut polled = [PollFd::new(&output, PollFlags::empty())];
        // Asked for nothing, a pipe tells that its other end is closed. A terminal that hangs up tells so too.
        let gone = PollFlags::ERR | PollFlags::HUP;
        poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().intersects(gone)
    }

    /// What the reader ought to know about the answer.
    pub(crate) fn warn(&mut self, text: &str) {
        // A warning that nobody can read changes nothing.
        let _ = writeln!(io::stderr(), "{} {}", self.errors.yellow("warning:"), plain(text));
    }

    /// What is being done, on a line that the next word replaces. Only for people who watch.
    pub(crate) fn progress(&mut self, text: &str) {
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\x1b[2K{}", plain(text));
        }
    }

    pub(crate) fn end_progress(&mut self) {
        self.progress("");
    }

    pub(crate) fn error(&mut self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        let _ = writeln!(io::stderr(), "{} {}", self.errors.red("error:"), plain_lines(&text));
    }
}

/// Whether the reader of our output has gone, as `head` does: not worth a word.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Green, red or yellow.
    pub(crate) fn verdict(self, verdict: Verdict, text: &str) -> String {
        let code = match verdict {
            Verdict::Allowed => "32",
            Verdict::Denied => "31",
            Verdict::Unknown => "33",
        };
        self.with(code, text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Without control characters: a name from a record must not move a reader's cursor.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    replace_controls(text, |_| false)
}

/// The same for texts of several lines.
pub(crate) fn plain_lines(text: &str) -> Cow<'_, str> {
    replace_controls(text, |c| c == '\n')
}

fn replace_controls(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && !keep(c);
    if text.contains(bad) { Cow::Owned(text.replace(bad, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("web\x1b[2J\n"), "web\u{fffd}[2J\u{fffd}");
        assert_eq!(plain_lines("kind: Pod\n\x07"), "kind: Pod\n\u{fffd}");
        assert_eq!(plain("shop/wéb"), "shop/wéb");
    }

    #[test]
    fn without_colours_the_text_is_untouched() {
        assert_eq!(Paint::default().verdict(Verdict::Denied, "denied"), "denied");
        assert_eq!(Paint { on: true }.verdict(Verdict::Denied, "denied"), "\x1b[31mdenied\x1b[0m");
    }
}
