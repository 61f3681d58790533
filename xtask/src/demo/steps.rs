//! Common to the steps of a demo.

use std::time::Duration;

/// A record is visible within two seconds; a loaded machine gets more time before the demo fails.
pub(super) const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// The heading of a step.
pub(super) fn say(step: &str) {
    println!("\n=== {step}");
}
