//! The differences between the kinds of the admin and baseline tiers: words, syntax of ports and limits of lists.

use netverdict_policy::model::PortMatch;

use crate::{
    fields::{Field, Read},
    finding::{Invalid, Report, code},
};

/// The syntax of one kind.
pub(crate) struct Dialect {
    /// The word for accept.
    pub(crate) accept: &'static str,
    pub(crate) can_pass: bool,
    /// Whether peers may be domain names.
    pub(crate) names_domains: bool,
    /// The selectors that `pods` requires.
    pub(crate) required_selectors: &'static [&'static str],
    /// The field that holds the ports.
    pub(crate) ports: &'static str,
    /// Reads one entry of that field.
    pub(crate) read_port: fn(Field<'_>) -> Read<PortMatch>,
    /// Items that an API server accepts in a list of rules, peers or ports.
    pub(crate) most_items: usize,
}

/// Warns of a list that is too long for an API server. It is still evaluated as written (C-14).
pub(super) fn check_length(length: usize, most: usize, path: &str, report: &mut Report) {
    if length > most {
        let message = format!("the list has {length} items, an API server accepts {most}");
        report.warning(Invalid::new(code::TOO_MANY_ITEMS, path, message, "split the policy"));
    }
}
