//! Policies and ports that determine the class of a local pod.

use std::sync::Arc;

use super::policies::Version;
use crate::model::{ContainerPort, Direction};

/// Pods with equal keys are in one class.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    pub(super) direction: Direction,
    /// In order of evaluation.
    pub(super) policies: Vec<Arc<Version>>,
    /// Container ports of the subject whose names its ingress rules use; sorted. Empty for egress.
    pub(super) ports: Vec<ContainerPort>,
}
