//! Errors as one line: what failed, and all that led to it.

/// An error with all that led to it.
pub fn chain(error: &dyn std::error::Error) -> String {
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
    use super::*;
    use crate::state::{self, StateError};

    #[test]
    fn cause_is_told_once_and_last() {
        let error: StateError = state::save(std::path::Path::new("/proc/nowhere/a"), &1).unwrap_err();
        let text = chain(&error);
        assert!(text.ends_with("No such file or directory (os error 2)"), "{text}");
        assert_eq!(text.matches("os error 2").count(), 1, "{text}");
    }
}
