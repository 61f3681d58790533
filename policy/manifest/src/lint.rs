//! Findings that need more than one object.
use crate::{Finding, Reading};
/// .
pub fn lint(_reading: &Reading) -> Vec<Finding> { Vec::new() }
