//! How one kind of the ordered tiers words its rules, and how long its lists may be.

use netverdict_policy::model::PortMatch;

use crate::{
    fields::{Field, Read},
    finding::{Invalid, Report, code},
};

/// How one kind words its rules.
pub(crate) struct Dialect {
    /// The word for accept.
    pub(crate) accept: &'static str,
    pub(crate) can_pass: bool,
    /// Whether peers may be domain names.
    pub(crate) names_domains: bool,
    /// The selectors that `pods` may not leave out.
    pub(crate) required_selectors: &'static [&'static str],
    /// The field that holds the ports.
    pub(crate) ports: &'static str,
    /// One entry of it.
    pub(crate) read_port: fn(Field<'_>) -> Read<PortMatch>,
    /// Items that an API server takes in a list of rules, peers or ports.
    pub(crate) most_items: usize,
}

/// More than an API server takes still counts: it is only never what a cluster holds (C-14).
pub(super) fn check_length(length: usize, most: usize, path: &str, report: &mut Report) {
    if length > most {
        let message = format!("the list has {length} items, an API server takes {most}");
        report.warning(Invalid::new(code::TOO_MANY_ITEMS, path, message, "split the policy"));
    }
}
