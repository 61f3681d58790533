//! Environment variables of options that were renamed.

use std::env;

/// The variable that an option reads: `name`, or `former` where only that one is set.
///
/// Variables are shared by all programs of a host or a pod, so one name must not mean two things. Installations that set
/// the former name keep it.
pub fn renamed(name: &'static str, former: &'static str) -> &'static str {
    choose(name, former, |variable| env::var_os(variable).is_some())
}

fn choose(name: &'static str, former: &'static str, is_set: impl Fn(&str) -> bool) -> &'static str {
    if !is_set(name) && is_set(former) { former } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_name_is_read_where_only_it_is_set() {
        for (set, expected) in [(&[][..], "NEW"), (&["NEW"], "NEW"), (&["OLD"], "OLD"), (&["OLD", "NEW"], "NEW")] {
            assert_eq!(choose("NEW", "OLD", |variable| set.contains(&variable)), expected, "{set:?}");
        }
    }
}
