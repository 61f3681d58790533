//! The syntax of label keys and values, and of names, in Kubernetes.

/// `[prefix/]name`: the prefix a DNS subdomain, the name up to 63 characters.
pub(crate) fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
    }
}

/// Empty, or up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
pub(crate) fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

fn is_name(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = name.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63 && bytes.iter().all(|b| inside(*b)) && ends(bytes.first()) && ends(bytes.last())
}

/// Up to 253 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of each part.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        bytes.iter().all(|b| plain(b) || *b == b'-')
            && bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
    };
    text.len() <= 253 && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_and_values_that_an_api_server_accepts_are_valid() {
        for (key, expected) in [
            ("app", true),
            ("kubernetes.io/metadata.name", true),
            ("App_1", true),
            ("", false),
            ("/x", false),
            ("a/b/c", false),
            ("-x", false),
            ("a b", false),
            ("UPPER.io/x", false),
        ] {
            assert_eq!(is_key(key), expected, "{key:?}");
        }
        let long = "x".repeat(64);
        for (value, expected) in [("", true), ("web", true), ("1.2_3-a", true), ("a/b", false), (long.as_str(), false)]
        {
            assert_eq!(is_value(value), expected, "{value:?}");
        }
    }
}
