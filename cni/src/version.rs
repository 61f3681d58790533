//! The versions of the specification that are spoken.

pub(crate) const NEWEST: &str = "1.1.0";
/// Ascending. Results of older versions have another form.
pub(crate) const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", NEWEST];
