//! The options that all suites have.

use clap::Args;

use crate::cluster::Shape;

/// Which cases, and on what.
#[derive(Args, Clone, Debug)]
pub struct Choice {
    /// Only cases whose name contains this; the report is printed instead of written.
    #[arg(long, value_name = "TEXT")]
    pub(super) focus: Option<String>,
    #[command(flatten)]
    pub(super) shape: Shape,
}
