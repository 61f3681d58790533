//! An error and its causes as one line, for logs and for the state of a part.

use std::error::Error;

/// The error's text, then each cause's, parted by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("state not saved")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn each_cause_is_named_once_and_the_innermost_last() {
        let text = chain(&Outer(std::io::Error::from_raw_os_error(2)));
        assert_eq!(text, "state not saved: No such file or directory (os error 2)");
    }
}
